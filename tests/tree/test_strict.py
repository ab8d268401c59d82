"""A spec that chooses nothing is an error with the nearest paths, wherever a spec is taken."""

from __future__ import annotations

import re

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import nn, optim

MODEL = nn.sequential(encoder=nn.linear(3, 3), head=nn.linear(3, 2))
PARAMS = nn.init(0)(MODEL)


def loss(model, x):
    return model(x).mean()


TAKERS = {
    "freeze": lambda spec: nn.freeze(spec)(MODEL),
    "unfreeze": lambda spec: nn.unfreeze(spec)(MODEL),
    "freeze a trainer": lambda spec: fp.freeze(spec)(fp.trainer(MODEL, loss)),
    "train_step": lambda spec: fp.train_step(MODEL, loss, optim.sgd(0.1), trainable=spec),
    "groups": lambda spec: optim.groups((spec, optim.sgd(0.1)), (None, optim.adam(0.1))).init(PARAMS),
}
TYPOS = {
    "path": ("encodr", r"'encodr' matches no .*nearest: .*encoder"),
    "leaf": ("head.wieght", r"'head.wieght' matches no .*nearest: .*head.weight"),
    "one of a list": (["head", "encodr"], r"'encodr' matches no"),
    "pattern": (re.compile("wieght$"), r"matching\('wieght\$'\) matches no .*nearest: encoder.weight"),
    "pattern in a list": (["head", re.compile("wieght$")], r"matching\('wieght\$'\) matches no"),
    "function": (lambda path: path == "encodr", "matches no"),
    "function of leaves": (fp.ndim(7), r"ndim\(7\) matches no"),
    "alternative": (fp.under("head") | fp.matching("wieght"), r"matching\('wieght'\) matches no"),
    "exception": (fp.under("head") & ~fp.under("head.baias"), r"'head.baias' matches no .*nearest: .*head.bias"),
    "negation": (~fp.under("encodr"), r"'encodr' matches no"),
    "intersection": (fp.under("head") & fp.ndim(3), r"under\('head'\) & ndim\(3\) matches no"),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
@pytest.mark.parametrize("typo", TYPOS.values(), ids=TYPOS)
@pytest.mark.filterwarnings("ignore:.*of groups gets no parameter")
def test_a_typo_is_an_error_and_strict_false_allows_it(take, typo):
    spec, words = typo
    with pytest.raises(KeyError, match=words):
        take(spec)
    take(fp.select(spec, strict=False))


@pytest.mark.parametrize(
    "spec",
    [
        None,
        fp.everything,
        fp.nothing,
        [],
        "head",
        "head.bias",
        ["encoder", "head"],
        fp.everything & ~fp.matching("norm"),
        ~fp.matching("norm"),
        fp.under("head") & ~fp.under("head.bias"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
@pytest.mark.filterwarnings("ignore:.*of groups gets no parameter")
def test_a_spec_without_a_typo_is_none(take, spec):
    take(spec)


def test_partition_refuses_a_path_that_is_not_there():
    with pytest.raises(KeyError, match=r"'encodr' matches no leaf; nearest: encoder"):
        fp.partition("encodr")(PARAMS)
    assert fp.partition(fp.select("encodr", strict=False))(PARAMS)[1] == PARAMS
    assert fp.partition(fp.ndim(7))(PARAMS)[1] == PARAMS


def test_freeze_and_unfreeze_take_strict_themselves():
    for verb in (nn.freeze, nn.unfreeze):
        assert isinstance(verb("encodr", strict=False)(MODEL), nn.Layer)
        with pytest.raises(TypeError, match="strict of select is True or False; got 'no'"):
            verb("head", strict="no")


def test_a_lenient_spec_keeps_what_it_chooses_and_how_it_reads():
    spec = fp.select(["head", "encodr"], strict=False)
    assert fp.paths(spec)(PARAMS) == ("head.weight", "head.bias")
    assert repr(spec) == "under('head') | under('encodr')"
    assert mx.array_equal(fp.partition(spec)(PARAMS)[0]["head"]["bias"], PARAMS["head"]["bias"])
