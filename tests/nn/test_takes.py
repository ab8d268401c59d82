"""The names of the inputs that a layer takes beside the first."""

from __future__ import annotations

import mlx.nn
import pytest

from mlx_fp import nn


def attend(x, mask=None):
    return x


def masked(m, x, mask=None, *, segments=None, **rest):
    return x


class Net(mlx.nn.Module):
    def __call__(self, x, mask, cache=None):
        return x

    def encode(self, x, positions):
        return x


BOTH = nn.define(masked)
CASES = {
    "a function": (nn.fn(lambda x, mask, train: x), {"mask"}),
    "a builtin": (nn.fn(abs), set()),
    "define": (BOTH, {"mask", "segments"}),
    "a module": (nn.lift(Net), {"mask", "cache"}),
    "a layer of mlx.nn": (nn.transformer_encoder(1, 8, 2), {"mask"}),
    "a lowered layer": (
        nn.lift(
            lambda: nn.lower(nn.define(masked, a=nn.linear(2, 2)), nn.init(0)(nn.define(masked, a=nn.linear(2, 2))))
        ),
        {"mask", "segments"},
    ),
    "another method": (nn.method(nn.lift(Net), "encode"), {"positions"}),
    "a layer by hand": (nn.layer(dict, lambda p, xs, kw, train: (xs[0], p)), set()),
    "a layer by hand that says so": (nn.layer(dict, lambda p, xs, kw, train: (xs[0], p), takes=["mask"]), {"mask"}),
    "remat": (nn.remat(BOTH), {"mask", "segments"}),
    "wide": (nn.wide(BOTH), {"mask", "segments"}),
    "frozen": (nn.frozen(BOTH), {"mask", "segments"}),
    "freeze": (nn.freeze("a")(nn.define(masked, a=nn.linear(2, 2))), {"mask", "segments"}),
    "the first of a sequence": (nn.sequential(BOTH, nn.relu), {"mask", "segments"}),
    "not the second": (nn.sequential(nn.relu, BOTH), set()),
    "not where the second wants it, too": (nn.sequential(BOTH, attend), {"segments"}),
    "no part": (nn.sequential(), set()),
    "residual": (nn.residual(attend), {"mask"}),
    "repeat": (nn.repeat(2, attend), set()),
    "share once": (nn.share(1, attend), {"mask"}),
    "share": (nn.share(2, attend), set()),
    "branch": (nn.branch(BOTH, attend), {"mask"}),
    "add": (nn.add(BOTH, nn.relu), set()),
    "concat": (nn.concat(BOTH, BOTH), {"mask", "segments"}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_layer_takes_the_names_of_its_function(name):
    target, names = CASES[name]
    assert target.takes == names
