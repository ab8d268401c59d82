"""`predict`: the outputs of a model on data, joined in the order of the rows, or batch by batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import Any, Literal, overload

from ..compile._evaluation import queue, wait_for
from ..core._errors import located
from ..core._mlx import mx
from ..core._options import FLAG, check_options
from ..core._traceback import ShortTraceback
from ..core._types import Array, Batch, Params, Tree
from ..data import Cursor, Dataset
from ..data._collate import fills
from ..data._cursor import EpochRead, empty_epoch
from ..nn._given import check_given
from ..nn._layer import Layer, require_layer
from ..step._checks import check_options as check_step_options
from ..step._forward import forward
from ..step._rows import row_count
from ..tree._paths import flat, tree_map
from ._evaluation import as_test_data
from ._report import Report, params_of
from ._totals import IN_FLIGHT

__all__ = ["predict"]

_BATCHES = "predict takes batches, not rows: data.batch(n)"
_EACH = "predict(test, by_batch=True) gives the outputs of each batch as they are"


@overload
def predict(
    test: object,
    *,
    params: Params | Report | None = None,
    by_batch: Literal[False] = False,
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
) -> Callable[..., Tree]: ...
@overload
def predict(
    test: object,
    *,
    params: Params | Report | None = None,
    by_batch: Literal[True],
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
) -> Callable[..., Iterator[Tree]]: ...
def predict(
    test: object,
    *,
    params: Params | Report | None = None,
    by_batch: bool = False,
    compile: bool | Mapping[str, Any] = True,
    dtype: Any = None,
) -> Callable[..., Any]:
    """Return the outputs of a model on data, in evaluation mode: `predict(test)(model, params)`.

    In a pipe the parameters are an option: `pipe(model, predict(test, params=report))`. Row i of the result belongs to
    row i of the data. A model that returns a dict, tuple or list of arrays gives the same container of joined arrays.

    The input of the model is a batch that is an array, the first column of a pair, or the column `x` of a dict, or a
    column whose name stands for `x`, see `data.bind`. Without such a column the model takes all columns but `y` and
    `mask` by name.

    Args:
        test: A Dataset or a sequence of batches. Of `splits` the test split is read. It is read once.
        params: The parameters, or a report, whose last parameters are taken. None: they are given after the model.
        by_batch: Whether to return an iterator over the outputs of each batch, of which nothing is kept.
        compile: Whether to compile the model, or a dict of options of `mx.compile`.
        dtype: Dtype in which the model computes, for example `mx.bfloat16`. None: that of the parameters.

    Returns:
        A function from a model, and parameters, to the outputs, `(n, …)` for n rows.

    Raises:
        TypeError: A trainer is given in place of the model, or no parameters are given.
        ValueError: Rows are given in place of batches, there is no batch, the parameters are not those of the model, or
            the outputs are not one for each row.

    >>> from mlx_fp import data, nn
    >>> test = pipe(data.arrays(x=mx.arange(5.0)[:, None], y=mx.zeros((5,))), data.batch(2))
    >>> params = {"weight": mx.array([[2.0]]), "bias": mx.array([1.0])}
    >>> predict(test)(nn.linear(1, 1), params)[:, 0].tolist()
    [1.0, 3.0, 5.0, 7.0, 9.0]
    >>> [len(outputs) for outputs in pipe(nn.linear(1, 1), predict(test, params=params, by_batch=True))]
    [2, 2, 1]
    """
    check_options("predict", {"by_batch": by_batch}, {"by_batch": FLAG})
    check_step_options(compile, dtype)
    data = as_test_data(test, "predict")
    params_option = params

    def predicted(model: Layer, params: Params | Report | None = params_option) -> Tree | Iterator[Tree]:
        target = require_layer(model, "predict")
        if params is None:
            raise TypeError("predict takes parameters, too: predict(test)(model, report.params)")
        weights = params_of(params)
        check_given(target, weights)
        _check_batched(data)
        run = forward(target, compile=compile, dtype=dtype)
        outputs = _outputs(lambda batch: run(weights, *_inputs(batch)), data)
        if by_batch:
            return (each for each, _ in outputs)
        with ShortTraceback():
            return _join_rows(outputs)

    return predicted


def _outputs(run: Callable[[Batch], Tree], data: Dataset) -> Iterator[tuple[Tree, int | None]]:
    """Yield the outputs of each batch and its number of rows. The device computes them asynchronously."""
    number = 0
    with located(split="test", batch=lambda: number), closing(data.open(Cursor(), kind="test")) as batches:
        for batch in batches:
            outputs = run(batch)
            queue(outputs)
            yield outputs, row_count(_inputs(batch))
            number += 1
    if not number:
        raise empty_epoch(data)


def _join_rows(outputs: Iterator[tuple[Tree, int | None]]) -> Tree:
    """Join the outputs of all batches by rows. At most a few batches are queued on the device."""
    every: list[Tree] = []
    flight: deque[Tree] = deque()
    for number, (each, rows) in enumerate(outputs):
        with located(split="test", batch=number):
            _check_rows(each, rows)
            every.append(each)
            flight.append(each)
            if len(flight) > IN_FLIGHT:
                wait_for(flight.popleft())
    joined = tree_map(lambda *leaves: _concatenated(leaves), every[0], *every[1:])
    wait_for(joined)
    return joined


def _inputs(batch: Batch) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the inputs of the model in a batch, by position and by name.

    >>> _inputs((1, [2])), _inputs({"feature": 1, "label": [2]}), _inputs({"a": 1, "b": 2, "y": [3], "mask": 4})
    (((1,), {}), ((1,), {}), ((), {'a': 1, 'b': 2}))
    """
    if isinstance(batch, (tuple, list)):
        _check_target(batch[1:2])
        return (batch[0],), {}
    if not isinstance(batch, dict):
        return (batch,), {}
    targets = fills("y", batch, taken=("x",))
    _check_target([batch[name] for name in targets])
    inputs = fills("x", batch, taken=("y",))
    if len(inputs) > 1:
        both = " and ".join(map(repr, inputs))
        raise ValueError(f"both {both} may be the input: data.collate({{'x': {inputs[0]!r}}}) says which")
    if inputs:
        return (batch[inputs[0]],), {}
    rest = {name: value for name, value in batch.items() if name not in (*targets, "mask")}
    if not rest:
        raise ValueError(f"the batch has no input, only {', '.join(map(str, batch)) or 'nothing'}")
    return (), rest


def _check_target(targets: Sequence[object]) -> None:
    """Raise ValueError for a row in place of a batch: its target is one number."""
    for target in targets:
        if isinstance(target, (int, float)) or getattr(target, "shape", None) == ():
            raise ValueError(f"y is one number: {_BATCHES}")


def _check_batched(data: Dataset) -> None:
    """Raise ValueError for columns of arrays without `data.batch`, where this is known before a row is read."""
    columns = data.indexed and data.labels[0].startswith("arrays(")
    if columns and any(isinstance(index, int) for index in islice(data.view(EpochRead(0, "test")).order, 1)):
        raise ValueError(f"{data!r} gives rows: {_BATCHES}")


def _check_rows(outputs: Tree, rows: int | None) -> None:
    """Raise ValueError for outputs whose number of rows is not that of the inputs: rows of the result would shift."""
    for path, leaf in flat(outputs).items():
        name = f"the output {path!r}" if path else "the output"
        if not isinstance(leaf, mx.array):
            raise ValueError(f"{name} is no array but {type(leaf).__name__}: {_EACH}")
        if leaf.ndim == 0 or leaf.shape[0] != (rows or leaf.shape[0]):
            raise ValueError(f"{name} is {leaf.shape} for a batch of {rows} rows; {_BATCHES}; {_EACH}")


def _concatenated(leaves: Sequence[Array]) -> Array:
    """Concatenate the outputs of all batches along the first axis."""
    shapes = sorted({leaf.shape[1:] for leaf in leaves})
    if len(shapes) > 1:
        raise ValueError(
            f"the outputs of the batches differ in shape, {shapes[0]} and {shapes[-1]} for each row: pad the rows to "
            f"one length; {_EACH}"
        )
    return mx.concatenate(list(leaves), axis=0)
