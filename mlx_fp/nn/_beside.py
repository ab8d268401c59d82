"""The computation of a layer whose parameters stand in one dict with those of other layers."""

from __future__ import annotations

from dataclasses import dataclass

from ..core._types import Params
from ._call import Inputs, Keywords, LayerCall, Result

__all__ = ["Beside"]


@dataclass(frozen=True, slots=True, eq=False)
class Beside:
    """Run a layer on a dict of parameters without the entries of other layers, which stay as they are."""

    inner: LayerCall
    """The computation of the layer."""
    others: frozenset[str]
    """The names of the entries that the layer does not have."""

    def __call__(self, params: Params, xs: Inputs, kw: Keywords, train: bool, /) -> Result:
        """Run the layer."""
        y, after = self.inner(self.own(params), xs, kw, train)
        return y, {**after, **{name: params[name] for name in params if name in self.others}}

    def own(self, params: Params) -> Params:
        """Return the parameters of the layer itself."""
        return {name: tree for name, tree in params.items() if name not in self.others}
