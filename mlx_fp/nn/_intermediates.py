"""The outputs of the parts of a model for a batch, by path."""

from __future__ import annotations

from collections.abc import Callable

from ..compile import rng
from ..core._types import Params, Tree
from ..tree._select import select
from ..tree._strict import must_match
from ._layer import Layer
from ._observing import observed_calls, run_observed

__all__ = ["intermediates"]


def intermediates(spec: object = None) -> Callable[[Layer], Callable[..., dict[str, Tree]]]:
    """Return the outputs of the parts of a model, by path, in evaluation mode.

    Args:
        spec: Chooses parts by path, as `freeze` chooses parameters; None is every part. Modules inside lifted modules
            are parts, too. The model itself has the path "".

    Returns:
        A function of a Layer. It returns `run(params, *inputs, **inputs_by_name)`, which returns a dict from paths to
        outputs, in the order of the calls. Later calls of a part that is called several times have paths with a number,
        for example `body[1]`. `run` is pure, so it may be compiled or differentiated.

    Raises:
        KeyError: From `run`: the spec matches no part; the message has the nearest paths.

    >>> import mlx.core as mx
    >>> from mlx_fp import nn
    >>> model = nn.sequential(body=nn.linear(3, 2), act=nn.relu)
    >>> outputs = intermediates("body")(model)(nn.init(0)(model), mx.ones((4, 3)))
    >>> {path: output.shape for path, output in outputs.items()}
    {'body': (4, 2)}
    """
    chosen = select(spec)

    def of_model(model: Layer) -> Callable[..., dict[str, Tree]]:
        def run(params: Params, *inputs: Tree, **by_name: Tree) -> dict[str, Tree]:
            calls = observed_calls(lambda: rng.run(0, lambda: run_observed(model, "", params, inputs, by_name, False)))
            must_match(chosen, [(call.path, call.outputs) for call in calls], "part of the model")
            outputs: dict[str, Tree] = {}
            counts: dict[str, int] = {}
            for call in calls:
                if chosen(call.path, call.outputs):
                    number = counts[call.path] = counts.get(call.path, -1) + 1
                    outputs[f"{call.path}[{number}]" if number else call.path] = call.outputs
            return outputs

        return run

    return of_model
