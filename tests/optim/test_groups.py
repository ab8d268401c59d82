"""Groups: first match wins, the rules are total, and each optimiser does what it would do alone."""

from __future__ import annotations

import re

import mlx.core as mx
import numpy as np
import pytest
from drawn import examples
from helpers import mean_square
from hypothesis import given
from hypothesis import strategies as st
from mlx.utils import tree_map
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.tree._paths import flat, paths

pytestmark = pytest.mark.filterwarnings("ignore:.*of groups gets no parameter")


def moves(opt, params):
    """How far a step of unit gradients moves each parameter, by path."""
    new, _ = opt.update(tree_map(mx.ones_like, params), opt.init(params), params)
    before = flat(params)
    return {path: round((before[path] - leaf).flatten()[0].item(), 4) for path, leaf in flat(new).items()}


def test_a_rule_that_gets_no_parameter_is_told():
    params = {"layers": [{"weight": mx.ones((2,)), "bias": mx.ones((2,))}]}
    with pytest.warns(RuntimeWarning, match=r"matching\('bias'\) of groups gets no parameter: .*the first match wins"):
        optim.groups(("layers", optim.sgd(0.1)), (re.compile("bias"), optim.sgd(0.2))).init(params)


@pytest.mark.parametrize("spec", ["bias", ["layers", "bias"], fp.under("layers") & ~fp.under("bias")], ids=repr)
def test_a_rule_that_matches_nothing_is_an_error_with_the_nearest_paths(spec):
    params = {"layers": [{"weight": mx.ones((2,)), "bias": mx.ones((2,))}]}
    opt = optim.groups((spec, optim.sgd(0.1)), (None, optim.sgd(0.2)))
    with pytest.raises(KeyError, match=r"'bias' matches no parameter that trains.*'bias\$'.*layers.0.bias"):
        opt.init(params)
    optim.groups((fp.select(spec, strict=False), optim.sgd(0.1)), (None, optim.sgd(0.2))).init(params)


def model():
    return nn.sequential(
        nn.linear(3, 4),
        nn.tanh,
        nn.stack(2, lambda: nn.sequential(nn.linear(4, 4), nn.sigmoid)),
        nn.dropout(0.0),
        head=nn.linear(4, 2),
    )


NOBODY = fp.select("nobody", strict=False)
TREE = {
    "enc": {"layers": [{"weight": mx.zeros((2, 2)), "bias": mx.zeros((2,))}, {}]},
    "head": {"weight": mx.zeros((2, 1))},
}


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        ("enc", {"enc.layers.0.weight", "enc.layers.0.bias"}),
        ("enc.layers.0.bias", {"enc.layers.0.bias"}),
        (fp.select("en", strict=False), set()),
        (re.compile(r"weight$"), {"enc.layers.0.weight", "head.weight"}),
        (lambda path: path.startswith("head"), {"head.weight"}),
        (lambda path, leaf: leaf.ndim == 1, {"enc.layers.0.bias"}),
        (["head", re.compile("bias")], {"enc.layers.0.bias", "head.weight"}),
        (fp.ndim(2) & ~fp.under("head"), {"enc.layers.0.weight"}),
        (None, {"enc.layers.0.weight", "enc.layers.0.bias", "head.weight"}),
        (fp.nothing, set()),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_every_kind_of_spec_chooses(spec, chosen):
    opt = optim.groups((spec, optim.sgd(2.0)), (fp.everything, optim.sgd(1.0)))
    assert moves(opt, TREE) == {path: 2.0 if path in chosen else 1.0 for path in paths()(TREE)}


@examples(40)
@given(st.lists(st.sets(st.sampled_from("abcd")), max_size=4))
def test_the_first_rule_that_matches_wins(rules):
    params = {name: mx.zeros((1,)) for name in "abcd"}
    opt = optim.groups(*[(rule, optim.sgd(i + 1)) for i, rule in enumerate(rules)], (None, optim.sgd(9)))
    wanted = {n: next((i + 1.0 for i, rule in enumerate(rules) if n in rule), 9.0) for n in "abcd"}
    assert moves(opt, params) == {name: -0.0 + wanted[name] for name in "abcd"}


def test_order_of_the_rules_decides():
    first = optim.groups(("enc", optim.sgd(2.0)), (re.compile("weight"), optim.sgd(3.0)))
    last = optim.groups((re.compile("weight"), optim.sgd(3.0)), ("enc", optim.sgd(2.0)))
    assert moves(first, TREE)["enc.layers.0.weight"] == 2.0
    assert moves(last, TREE)["enc.layers.0.weight"] == 3.0


def test_rules_that_are_not_total_are_an_error_naming_every_unmatched_path():
    opt = optim.groups(("head", optim.sgd(1.0)), (fp.select(re.compile("norm"), strict=False), optim.sgd(1.0)))
    with pytest.raises(
        ValueError, match=r"head.*norm.*enc\.layers\.0\.weight, enc\.layers\.0\.bias.*everything"
    ) as error:
        opt.init(TREE)
    assert "head.weight" not in str(error.value)


def test_step_init_refuses_rules_that_are_not_total():
    step = fp.train_step(model(), lambda m, x: m(x).mean(), optim.groups(("head", optim.sgd(1.0))))
    with pytest.raises(
        ValueError, match=r"layers\.0\.weight, layers\.0\.bias, layers\.2\.layers\.0\.layers\.0\.weight"
    ):
        step.init(0)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ((optim.sgd(1.0),), r"rule 0 .*\(spec, optimizer\)"),
        (((None, optim.sgd(1.0)), ("a", 3)), r"rule 1 .*\(spec, optimizer\)"),
        (((3, optim.sgd(1.0)),), r"a spec is None, a path.*int"),
    ],
)
def test_what_is_no_rule_is_a_type_error(rules, words):
    with pytest.raises(TypeError, match=words):
        optim.groups(*rules)


def test_no_rules_are_an_error():
    with pytest.raises(ValueError, match="at least one"):
        optim.groups()


def test_different_optimisers_equal_what_each_does_alone_bit_for_bit():
    grads, encoder = tree_map(mx.ones_like, TREE), optim.adamw(0.1)
    head = pipe(optim.lion(0.2), optim.clip_norm(1.0))
    opt = optim.groups(("enc", encoder), (None, head))
    together, state = TREE, opt.init(TREE)
    parts = {"enc": TREE["enc"]}, {"head": TREE["head"]}
    alone = [(part, o.init(part)) for part, o in zip(parts, (encoder, head), strict=True)]
    for _ in range(3):
        together, state = opt.update(grads, state, together)
        alone = [
            o.update({k: grads[k] for k in part}, memory, part)
            for o, (part, memory) in zip((encoder, head), alone, strict=True)
        ]
    wanted = {**flat(alone[0][0]), **flat(alone[1][0])}
    assert {p: x.tolist() for p, x in flat(together).items()} == {p: x.tolist() for p, x in wanted.items()}
    assert state["groups"][1]["grad_norm"].item() == pytest.approx(2**0.5)


def test_the_state_of_a_rule_is_read_and_swapped_by_path_without_a_retrace():
    step = fp.train_step(model(), mean_square, optim.groups(("head", optim.adam(0.1)), (None, optim.sgd(0.2))))
    params, opt_state = step.init(0)
    x = mx.ones((4, 3))
    _, opt_state, _ = step(params, opt_state, x)
    still = fp.swap("optimizer.groups.1.learning_rate", 0.0)(opt_state)
    new, opt_state, _ = step(params, still, x)
    moved = {path for path, leaf in flat(new).items() if mx.any(leaf != flat(params)[path]).item()}
    assert moved == {"head.weight", "head.bias"}
    assert step.traces == 1
    assert flat(opt_state)["optimizer.groups.0.memory.head.weight.m"].shape == (2, 4)


def test_schedules_advance_in_every_group_also_in_one_that_nothing_matches():
    opt = optim.groups(
        (NOBODY, optim.sgd(optim.linear_schedule(0, 1, 4))),
        (None, optim.sgd(optim.linear_schedule(1, 0, 4))),
    )
    state = opt.init(TREE)
    for _ in range(3):
        _, state = opt.update(tree_map(mx.ones_like, TREE), state, TREE)
    assert [group["step"].item() for group in state["groups"]] == [3, 3]
    assert [group["learning_rate"].item() for group in state["groups"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    "verb",
    [
        optim.clip_norm(1.0),
        optim.clip_value(0.5),
        optim.skip_nonfinite(),
        optim.ema(0.5),
    ],
    ids=["clip_norm", "clip_value", "skip_nonfinite", "ema"],
)
def test_wrappers_go_inside_a_group_also_one_that_nothing_matches(verb):
    inside = optim.groups(
        (NOBODY, verb(optim.sgd(5.0))),
        ("head", verb(optim.sgd(1.0))),
        (None, optim.sgd(1.0)),
    )
    alone, part = verb(optim.sgd(1.0)), {"head": TREE["head"]}
    together, state, single, memory = TREE, inside.init(TREE), part, alone.init(part)
    for _ in range(2):
        together, state = inside.update(tree_map(mx.ones_like, TREE), state, together)
        single, memory = alone.update(tree_map(mx.ones_like, part), memory, single)
    assert together["head"]["weight"].tolist() == single["head"]["weight"].tolist() != [[0.0], [0.0]]
    assert together["enc"]["layers"][0]["bias"].tolist() == [-2.0, -2.0]


def test_wrappers_go_around_groups_and_see_the_whole_gradient():
    opt = pipe(optim.groups(("head", optim.sgd(1.0)), (None, optim.sgd(1.0))), optim.clip_norm(1.0), optim.ema(0.5))
    _, state = opt.update(tree_map(mx.ones_like, TREE), opt.init(TREE), TREE)
    assert optim.reading("grad_norm")(state).item() == pytest.approx(8**0.5)
    inner = pipe(optim.sgd(1.0), optim.clip_norm(1.0))
    assert moves(opt, TREE)["head.weight"] == round(1 / 8**0.5, 4)
    each = optim.groups(("head", inner), (None, inner))
    assert moves(each, TREE)["head.weight"] == round(1 / 2**0.5, 4)


def test_groups_go_inside_groups():
    inner = optim.groups((fp.ndim(1), optim.sgd(3.0)), (None, optim.sgd(2.0)))
    opt = optim.groups(("enc", inner), (None, optim.sgd(1.0)))
    assert moves(opt, TREE) == {"enc.layers.0.weight": 2.0, "enc.layers.0.bias": 3.0, "head.weight": 1.0}


def test_frozen_leaves_and_buffers_need_no_group_and_keep_their_bits():
    net = pipe(nn.sequential(enc=nn.linear(3, 4), norm=nn.batch_norm(4), head=nn.linear(4, 2)), nn.freeze("enc"))
    opt = optim.groups(("head", optim.sgd(0.1)), (re.compile(r"norm\.(weight|bias)"), optim.adam(0.1)))
    step = fp.train_step(net, mean_square, opt)
    params, opt_state = step.init(0)
    new, _, _ = step(params, opt_state, mx.random.normal((8, 3)))
    assert new["enc"]["weight"].tolist() == params["enc"]["weight"].tolist()
    assert new["head"]["weight"].tolist() != params["head"]["weight"].tolist()
    assert new["norm"]["running_mean"].tolist() != params["norm"]["running_mean"].tolist()
    assert not [path for path in paths()(opt_state) if "enc" in path or "running" in path]


@pytest.mark.slow
def test_through_the_compiled_step_with_activations_a_stack_and_bfloat16():
    def cast(tree):
        return mx_map(lambda leaf: leaf.astype(mx.bfloat16), tree)

    net = model()
    opt = optim.groups((re.compile(r"layers\.2"), optim.adam(0.1)), ("head", optim.sgd(0.0)), (None, optim.lion(0.1)))
    step = fp.train_step(net, mean_square, opt)
    params, opt_state = step.init(cast(nn.init(0)(net)))
    for _ in range(2):
        new, opt_state, _ = step(params, opt_state, mx.ones((4, 3), mx.bfloat16))
    assert step.traces == 1
    assert {leaf.dtype for leaf in flat(new).values()} == {mx.bfloat16}
    moved = {path.split(".weight")[0] for path in paths()(new) if mx.any(flat(new)[path] != flat(params)[path]).item()}
    assert {"layers.0", "layers.2.layers.0.layers.0", "layers.2.layers.1.layers.0"} <= moved
    assert new["head"]["weight"].tolist() == params["head"]["weight"].tolist()
    np.testing.assert_array_equal(new["layers"][1], {})


def mx_map(fn, tree):
    if isinstance(tree, dict):
        return {key: mx_map(fn, child) for key, child in tree.items()}
    return [mx_map(fn, child) for child in tree] if isinstance(tree, list) else fn(tree)


def test_scale_rates_goes_through_every_group():
    opt = optim.groups(("enc", optim.sgd(1.0)), (None, optim.clip_norm(1.0)(optim.sgd(2.0))))
    state = optim.scale_rates(0.5, least=0.75)(opt.init(TREE))
    assert state["groups"][0]["learning_rate"].item() == 0.75
    assert state["groups"][1]["inner"]["learning_rate"].item() == 1.0
