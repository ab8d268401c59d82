"""A forward function over named parts: what it sees, what it may change, what is refused."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import mean_square

import mlx_fp as fp
from mlx_fp import nn, optim, rng
from mlx_fp.tree._paths import flat

X = mx.random.normal((5, 3), key=rng.key(0))


def attend(dims, *, heads=1, bias=True):
    """A model with options: they are parameters of this function."""

    def forward(m, x, *, mask=None):
        m.update(calls=m.calls + 1)
        y = m.proj(x) * m.scale
        return y if mask is None else m.drop(y) * mask

    return nn.define(
        forward,
        proj=nn.linear(dims, dims * heads, bias=bias),
        drop=nn.dropout(0.5),
        scale=nn.param(dims * heads, init=1.0),
        calls=nn.buffer((), dtype=mx.int32),
    )


def test_options_are_parameters_of_a_function():
    params = nn.init(0)(attend(3, heads=2, bias=False))
    assert {path: leaf.shape for path, leaf in flat(params).items()} == {
        "proj.weight": (6, 3),
        "scale": (6,),
        "calls": (),
    }
    with pytest.raises(TypeError, match="head"):
        attend(3, head=2)
    with pytest.raises(TypeError, match=r"attend: unknown option 'head': did you mean 'heads'.*dims, heads, bias"):
        nn.lift(attend, 3, head=2)
    assert nn.lift(attend, 3, heads=2).name == "forward"


def test_it_computes_with_its_parts_and_takes_arguments():
    model = attend(3)
    params = nn.init(0)(model)
    linear = params["proj"]
    y, after = model.apply(params, X)
    assert mx.allclose(y, X @ linear["weight"].T + linear["bias"], atol=1e-5)
    assert [params["calls"].item(), after["calls"].item()] == [0, 1]
    assert not model.apply(params, X, mask=mx.zeros((3,)), train=True, key=0)[0].any()


def test_a_buffer_moves_through_the_compiled_step_and_never_trains():
    model = nn.sequential(nn.linear(3, 3), attend(3))
    step = fp.train_step(model, mean_square, optim.adam(0.1))
    params, state = step.init(0)
    for n in range(1, 4):
        params, state, _ = step(params, state, X)
        assert params["layers"][1]["calls"].item() == n
    assert params["layers"][1]["calls"].dtype == mx.int32
    assert step.traces <= 1  # none where nothing compiles
    assert "calls" not in "".join(fp.paths()(state["optimizer"]))
    assert not mx.array_equal(params["layers"][1]["scale"], mx.ones((3,)))


def test_buffers_stay_out_after_unfreezing_everything_but_by_their_path():
    model = nn.define(lambda m, x: m.norm(x) * m.by, norm=nn.batch_norm(3), by=nn.buffer(3, init=1.0), w=nn.param(1))
    params = nn.init(0)(model)
    trains = lambda layer: fp.paths(layer.trainable(params))(params)
    plain = ("norm.weight", "norm.bias", "w")
    for all_of_it in (None, lambda path: True, fp.everything, fp.matching("")):
        assert trains(nn.unfreeze(all_of_it)(model)) == plain
        assert trains(nn.unfreeze(all_of_it)(nn.freeze()(model))) == plain
    assert trains(nn.unfreeze("by")(model)) == ("norm.weight", "norm.bias", "by", "w")
    assert "norm.running_mean" in trains(nn.unfreeze("norm.running_mean")(model))
    assert "norm.running_mean" not in trains(nn.unfreeze("norm")(model))
    step = fp.train_step(nn.unfreeze("by")(model), mean_square, optim.sgd(0.5))
    state = step.init(params)
    after, _, _ = step(*state, X)
    assert not mx.array_equal(after["by"], params["by"])


def test_the_view_is_frozen_and_names_candidates():
    def unknown_part(m, x):
        return m.prj(x)

    def assigned(m, x):
        m.scale = x

    for forward, words in (
        (unknown_part, "unknown part 'prj': did you mean 'proj'.*update"),
        (assigned, "frozen.*update"),
    ):
        model = nn.define(forward, proj=nn.linear(3, 3), scale=nn.param(3))
        with pytest.raises(AttributeError, match=words):
            model.apply(nn.init(0)(model), X)


def test_update_takes_buffers_only_of_their_shape():
    def through(**changes):
        model = nn.define(
            lambda m, x: m.update(**changes) or x, count=nn.buffer((), dtype=mx.int32), w=nn.param(3), p=nn.relu
        )
        return model.apply(nn.init(0)(model), X)[1]

    assert [(through(count=v)["count"].item(), through(count=v)["count"].dtype) for v in (3, 3.7, mx.array(3.0))] == [
        (3, mx.int32)
    ] * 3
    for name in ("w", "p", "cuont"):
        with pytest.raises(TypeError, match=f"update changes buffers only; unknown buffer '{name}'.*known: count"):
            through(**{name: mx.zeros((3,))})
    with pytest.raises(ValueError, match=r"buffer 'count' has shape \(\); got \(3,\)"):
        through(count=mx.zeros((3,)))


def test_the_mode_is_told_and_reaches_the_parts():
    model = nn.define(lambda m, x: (m.train, m.drop(x)), drop=nn.sequential(nn.dropout(0.5)))
    params = nn.init(0)(model)
    told, y = model.apply(params, X, train=True, key=1)[0]
    assert told is True
    assert (y == 0).any()
    told, y = model.apply(params, X)[0]
    assert told is False
    assert mx.array_equal(y, X)


def test_buffers_of_parts_come_back_and_a_part_may_run_twice():
    model = nn.define(lambda m, x: m.norm(m.norm(x)), norm=nn.batch_norm(3))
    params = nn.init(0)(model)
    _, after = model.apply(params, X, train=True)
    module = mlx_nn.BatchNorm(3)
    module(module(X))
    assert mx.allclose(after["norm"]["running_mean"], module.running_mean)
    assert mx.allclose(after["norm"]["running_var"], module.running_var)


def test_two_calls_share_nothing():
    seen = []
    model = nn.define(lambda m, x: seen.append(m) or m.n + x, n=nn.buffer((), init=1.0))
    params = nn.init(0)(model)
    assert model.apply(params, mx.array(1.0))[0].item() == model.apply(params, mx.array(1.0))[0].item() == 2.0
    assert seen[0] is not seen[1]


SHAPES = {3: (3,), (2, 3): (2, 3), (): (), 0: (0,), (2, 0): (2, 0)}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape):
    for leaf in (nn.param(shape), nn.buffer(shape)):
        assert leaf.make("w").shape == SHAPES[shape]
    assert nn.param([2, 3]).make("w").shape == (2, 3)


@pytest.mark.parametrize("shape", [-1, (2, -1), 2.5, (2, 1.5), True, (True,), "ab", None, ((2,), 3)])
@pytest.mark.parametrize("make", [nn.param, nn.buffer], ids=lambda f: f.__name__)
def test_what_is_no_shape(make, shape):
    with pytest.raises(ValueError, match="a shape is an int or a tuple of ints, 0 or more; got"):
        make(shape)


INITS = {
    "number": (2.5, None, mx.full((2, 3), 2.5)),
    "int for a float": (2, None, mx.full((2, 3), 2.0)),
    "mlx initialiser": (nn.initializers.constant(0.5), None, mx.full((2, 3), 0.5)),
    "mlx creation": (mx.ones, mx.bfloat16, mx.ones((2, 3), mx.bfloat16)),
    "names shape": (lambda shape: mx.full(shape, 3.0), None, mx.full((2, 3), 3.0)),
    "names shape and dtype": (lambda shape, dtype: mx.full(shape, 3, dtype), mx.int32, mx.full((2, 3), 3, mx.int32)),
    "of the array": (lambda a: a + 1, mx.float16, mx.ones((2, 3), mx.float16)),
}


@pytest.mark.parametrize("case", INITS)
def test_initialisers(case):
    init, dtype, expected = INITS[case]
    made = nn.param((2, 3), init=init, dtype=dtype).make("w")
    assert made.dtype == expected.dtype
    assert mx.array_equal(made, expected)


def test_the_default_is_drawn_from_the_key():
    model = nn.define(lambda m, x: x, w=nn.param((64, 64)))
    one, again, other = (nn.init(seed)(model)["w"] for seed in (1, 1, 2))
    assert mx.array_equal(one, again)
    assert not mx.array_equal(one, other)
    assert one.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize(
    ("init", "words"),
    [
        (lambda shape: mx.zeros((3, 2)), r"of 'w' must give .*float32 \(2, 3\); it gave .*float32 \(3, 2\)"),
        (lambda shape: mx.zeros(shape, mx.int32), r"must give .*float32 \(2, 3\); it gave .*int32 \(2, 3\)"),
        (lambda shape: [[0.0] * 3] * 2, "it gave list"),
        (lambda shape: None, "it gave NoneType"),
    ],
)
def test_what_an_initialiser_gives_is_checked(init, words):
    model = nn.define(lambda m, x: x, w=nn.param((2, 3), init=init))
    with pytest.raises(ValueError, match=words):
        nn.init(0)(model)


def test_what_is_no_initialiser_and_no_forward():
    with pytest.raises(TypeError, match="init is an initialiser or a number; got 'zeros'"):
        nn.param(3, init="zeros")
    with pytest.raises(TypeError, match="define takes a forward function"):
        nn.define(3)
    with pytest.raises(TypeError, match="must take the view of its parts first"):
        nn.define(lambda: 0, w=nn.param(3))
    with pytest.raises(TypeError, match="must take the view of its parts first"):
        nn.define(lambda *, x: 0, w=nn.param(3))


@pytest.mark.parametrize("name", ["train", "update", "_hidden"])
def test_names_that_are_taken(name):
    with pytest.raises(ValueError, match=f"a part cannot be called '{name}'"):
        nn.define(lambda m, x: x, **{name: nn.param(3)})


def test_an_error_in_a_part_says_which():
    model = nn.define(lambda m, x: m.proj(x), proj=nn.linear(4, 4))
    with pytest.raises(ValueError, match="addmm") as caught:
        model.apply(nn.init(0)(model), X)
    assert caught.value.__notes__ == ["in proj (Linear)"]


def test_define_equals_the_composition_it_spells():
    spelled = nn.define(lambda m, x: x + m.b(mlx_nn.relu(m.a(x))), a=nn.linear(3, 4), b=nn.linear(4, 3))
    composed = nn.residual(a=nn.linear(3, 4), act=nn.relu, b=nn.linear(4, 3))
    params = nn.init(4)(spelled)
    assert mx.array_equal(params["b"]["weight"], nn.init(4)(composed)["b"]["weight"])
    assert mx.allclose(spelled.apply(params, X)[0], composed.apply({**params, "act": {}}, X)[0])
