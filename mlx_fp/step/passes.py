"""Passes over a batch, and verbs that change them: everything that happens before the optimiser.

A pass function, a `Backward`, takes `(params, opt_state, batch)` and returns a `Pass`: gradients, logs and their
weights. A verb takes a pass function and returns another one. For example, `in_parts(4)` computes a batch in four
parts. `train_step(…, through=[verb, …])` chains verbs; the first is nearest to the loss. A step compiles all of them
into one function. An order of these verbs that makes no sense is a ValueError of `train_step`.
"""

from __future__ import annotations

from ._parts import abreast, in_parts
from ._pass import Backward, Pass, Verb, joined
from ._pcgrad import pcgrad
from ._private import private
from ._sam import sam

__all__ = ["Backward", "Pass", "Verb", "abreast", "in_parts", "joined", "pcgrad", "private", "sam"]
