"""Write a training step or a function of arrays to a file that MLX reads without the library."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..core._files import write_whole
from ..core._mlx import mx
from ..core._types import Array, Params, Tree
from ..step._evaluate import EvalStep
from ..step._protocol import Step
from ..store._environment import environment
from ..tree._conversion import as_arrays
from ._graph import graph_of
from ._layout import Contents, array_paths, as_layout, kinds_of
from ._traced import Arguments, Flat, arguments_of, flat_function, require_function

__all__ = ["export"]

_SHAPELESS = (
    "shapeless=True is refused: in a function without fixed shapes, MLX's addmm, which every linear layer with a bias "
    "uses, writes outside of its memory at another batch size. Give a list of examples, one for each shape"
)

_STEP = ("params", "opt_state", "batch"), ("params", "opt_state", "logs")
"""The names of the arguments of a step, and of its results."""


def export(
    path: str | os.PathLike[str],
    target: Step | Callable[..., Tree],
    example: Tree,
    *,
    start: int | Array | Params = 0,
    shapeless: bool = False,
) -> Path:
    """Write a training step or a function of arrays to a file of MLX.

    `imported` reads the file and returns a function of the same trees. Without the library, `mx.import_function` reads
    it as a function of arrays. The file contains one trace for each example. Arrays that are no arguments are constants
    in the file, for example the parameters of a predictor. Custom derivatives of the library are replaced with those of
    MLX, so gradients are equal to rounding. The format is MLX's and may change with its version.

    Args:
        path: The file. A leading `~` is the home folder of the user. The file is written whole or not at all.
        target: A training step, or a function of arrays such as `nn.predictor` makes.
        example: For a step, a batch. For a function, its arguments: a dict by name, a tuple by position, anything else
            as the one argument. Or a list of such examples with other shapes; an example that is a list itself stands
            in a list.
        start: For a step, the first argument of its `init`. Only the shapes of the parameters and of the state matter.
        shapeless: Refused where it is True; the error has the reason.

    Returns:
        The path of the file.

    Raises:
        TypeError: The target is no step and no function.
        ValueError: The examples differ in more than shapes; the function contains a custom function of the user, or
            draws random numbers without a key; or `shapeless` is True.

    >>> import tempfile
    >>> from mlx_fp import imported, nn
    >>> model = nn.linear(3, 2)
    >>> predict = nn.predictor(nn.init(0)(model))(model)
    >>> file = export(tempfile.mkdtemp() + "/model.mlxfn", predict, [mx.ones((1, 3)), mx.ones((8, 3))])
    >>> x = mx.random.normal((8, 3))
    >>> mx.array_equal(imported(file)(x), predict(x)).item()
    True
    """
    if shapeless:
        raise ValueError(_SHAPELESS)
    require_function(target, "export")
    cases = _cases(target, example, start)
    function = flat_function(target, cases[0])
    arrays = [function.arrays(case, f"example {i}") for i, case in enumerate(cases)]
    if not _is_step(target):
        mx.eval(function(*arrays[0]))  # a lazy array outside the function would be written as its computation
    graph_of(function, arrays[0])
    metadata = _file_contents(function, arrays, _STEP if _is_step(target) else None)
    return write_whole(path, partial(_write_traces, function, arrays, str(metadata)))


def _is_step(target: object) -> bool:
    return isinstance(target, Step) and not isinstance(target, EvalStep)


def _cases(target: Any, example: Tree, start: int | Array | Params) -> list[Arguments]:
    """Return the arguments of the call for each example."""
    examples = example if type(example) is list else [example]
    if not examples:
        raise ValueError("export takes one example or more; got an empty list")
    if not _is_step(target):
        return [arguments_of(each) for each in examples]
    params, opt_state = target.init(start)
    return [((params, opt_state, as_arrays(batch)), {}) for batch in examples]


def _file_contents(
    function: Flat, arrays: Sequence[Sequence[Array]], names: tuple[Sequence[str], Sequence[str]] | None
) -> Contents:
    """Describe the file of a function that has been traced."""
    (args, kwargs), result = function.arguments, function.results[0]
    inputs, outputs = names or ([str(i) for i in range(len(args))], ["result"])
    arguments = [*zip(inputs, args, strict=True), *kwargs.items()]
    results = zip(outputs, result if names else (result,), strict=True)
    return Contents(
        environment()["mlx"] or "",
        as_layout([args, dict(kwargs)]),
        as_layout(result),
        [path for name, tree in arguments for path in array_paths(tree, name)],
        [path for name, tree in results for path in array_paths(tree, name)],
        [kinds_of(each) for each in arrays],
    )


def _write_traces(function: Flat, arrays: Sequence[Sequence[Array]], metadata: str, path: Path) -> None:
    """Write a trace for each example, and read the file once: MLX does not report a write that failed."""
    with mx.exporter(str(path), function, metadata=metadata) as add_trace:
        for each in arrays:
            add_trace(*each)
    try:
        mx.import_function(str(path))
    except RuntimeError as error:
        raise OSError(f"the file of the function could not be written: {error}") from error
