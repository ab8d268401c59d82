"""Read a function from a file that `export` has written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core._errors import CheckpointError
from ..core._mlx import mx
from ..core._types import Array, Tree
from ..core._user_path import user_path
from ..store._environment import environment
from ..tree._conversion import as_arrays
from ..tree._flattening import Flattening, builder, flattening
from ._layout import Contents, as_tree, kinds_of, parse_contents
from ._traced import Arguments, differences

__all__ = ["imported"]


def imported(path: str | os.PathLike[str], *, compile: bool = True) -> Callable[..., Tree]:
    """Read a training step or a function of arrays from a file of `export`.

    The result takes and returns the trees of the original, with arrays of MLX or numpy in the arguments. It has no
    model and no optimiser: a step is `step(params, opt_state, batch) -> (params, opt_state, logs)`. A NamedTuple is a
    plain tuple in a file.

    Args:
        path: The file. A leading `~` is the home folder of the user.
        compile: Whether MLX compiles the function, once per shape. Default: True.

    Returns:
        The function. Arguments with another structure are a ValueError, and so are shapes that no example had.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is no function that `export` has written. It is a ValueError.

    >>> import tempfile
    >>> from mlx_fp import export
    >>> file = export(tempfile.mkdtemp() + "/double.mlxfn", lambda x: {"y": 2 * x}, mx.array([1.0]))
    >>> imported(file)(mx.array([4.0]))
    {'y': array([8], dtype=float32)}
    """
    source = user_path(path)
    if not source.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    try:
        read: Any = mx.import_function(str(source), return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{source} is no function that MLX {environment()['mlx']} can read: {error}") from error
    run, metadata = read
    found = parse_contents(metadata or "")
    if found is None:
        raise CheckpointError(f"{source} has no layout of trees: read it with mx.import_function, or export it again")
    args, kwargs = as_tree(found.arguments)

    def call(inputs: list[Array]) -> list[Array]:
        return list(run(*inputs))

    function = mx.compile(call) if compile else call
    return _Imported(source, found, function, (args, kwargs), flattening(args, kwargs), builder(as_tree(found.result)))


@dataclass(frozen=True, slots=True)
class _Imported:
    """A function of trees from a file."""

    path: Path
    contents: Contents
    _run: Callable[[list[Array]], list[Array]]
    _arguments: Arguments
    _structure: Flattening
    _build: Callable[[list[Array]], Tree]

    def __call__(self, *args: Tree, **kwargs: Tree) -> Tree:
        """Call the function on trees of arrays."""
        inputs = self._structure.flatten(args, kwargs)
        if inputs is None:
            given = as_arrays(args), as_arrays(kwargs)
            inputs = self._structure.flatten(*given)
            if inputs is None:
                raise ValueError(f"{self.path} takes other arguments: {differences(self._arguments, given)}")
        try:
            outputs = self._run(inputs)
        except ValueError as error:
            wrong = self._wrong_shapes(inputs)
            if wrong is None:
                raise
            raise ValueError(wrong) from error
        return self._build(outputs)

    def _wrong_shapes(self, inputs: Sequence[Array]) -> str | None:
        """Return the message for arrays of shapes that no example had, with those of the nearest example."""
        given = kinds_of(inputs)
        apart = [[i for i, kind in enumerate(given) if tuple(kind) != tuple(case[i])] for case in self.contents.cases]
        if not all(apart):
            return None
        number = min(range(len(apart)), key=lambda n: len(apart[n]))
        case = self.contents.cases[number]
        texts = [f"{self.contents.inputs[i]} is {_form(given[i])}, not {_form(case[i])}" for i in apart[number][:3]]
        return (
            f"{self.path} has a trace for each of {len(apart)} examples, and none for these shapes. Against example "
            f"{number}, {'; '.join(texts)}: pad the batch, or export the function again with an example more"
        )

    def __repr__(self) -> str:
        return f"imported({str(self.path)!r})"


def _form(kind: tuple[str, Sequence[int]]) -> str:
    dtype, shape = kind
    return f"{dtype}{tuple(shape)}"
