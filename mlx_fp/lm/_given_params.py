"""The parameters that a program gives to the verbs of this folder."""

from __future__ import annotations

from typing import TypeAlias

from ..core._types import Params
from ..loop._report import Report
from ..nn._layer import Layer
from ..nn._module_call import ModuleCall
from ..store._checkpoint import Checkpoint
from ..tree._paths import flat, restore_like
from ._source import source_of

__all__ = ["Given", "given_params"]

Given: TypeAlias = Params | Report | Checkpoint
"""Parameters, or a report of `fit` or a checkpoint with them."""


def given_params(model: Layer, given: Given) -> Params:
    """Return the parameters of a model that a program gives.

    A checkpoint may leave out frozen weights. Those of a model from `lm.load` come from its files.

    Raises:
        ValueError: A checkpoint leaves out weights of a model that does not come from files.
    """
    if isinstance(given, Report):
        return given.params
    if not isinstance(given, Checkpoint):
        return given
    if not given.left_out:
        return given.params
    run = model.apply.run
    if not isinstance(run, ModuleCall) or source_of(run.template) is None:
        raise ValueError(
            f"{given.path} leaves out {given.left_out[0]} and other weights of {model.name}, which no files have: add "
            "them with fp.merge"
        )
    whole = model.init()
    return restore_like(whole, {**flat(whole), **flat(given.params)})
