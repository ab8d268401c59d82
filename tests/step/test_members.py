"""Members in one compiled step: each trains as a step alone does, and models that MLX cannot vmap are refused."""

from __future__ import annotations

from functools import partial

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from helpers import assert_close, cross_entropy, mean_square, small_net
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.tree._paths import flat

X = mx.random.normal((16, 8), key=mx.random.key(0))
Y = mx.argmax(X[:, :4], axis=1)
IMAGES = mx.random.normal((4, 8, 8, 3), key=mx.random.key(1))
SEQUENCES = mx.random.normal((4, 6, 16), key=mx.random.key(2))
TOKENS = mx.random.randint(0, 20, (4, 6), key=mx.random.key(3))


class Encoder(mlx_nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = mlx_nn.TransformerEncoder(1, 16, 2, dropout=0.1)

    def __call__(self, x):
        return self.blocks(x, None)


def mlp(*middle, bias=True):
    return nn.sequential(nn.linear(8, 16, bias=bias), *middle, nn.relu, head=nn.linear(16, 4))


def assert_as_alone(steps, many, batches, *, own=False, rtol=1e-5, atol=1e-6):
    """Assert that each member has the parameters, the state and the logs of its step alone."""
    seeds = [3, 1, 2][: many.count]
    params, opt_state = many.init(seeds)
    logs = []
    for batch in batches:
        params, opt_state, log = many(params, opt_state, batch)
        logs.append(log)
    for i, step in enumerate(steps):
        alone, state = step.init(seeds[i])
        for batch, log in zip(batches, logs, strict=True):
            mine = many.member(i)(list(batch)) if own else batch
            alone, state, log_alone = step(alone, state, mine)
            assert_close(many.member(i)(log), log_alone, rtol=rtol, atol=atol)
        assert_close(many.member(i)(params), alone, rtol=rtol, atol=atol)
        assert_close(many.member(i)(opt_state), state, rtol=rtol, atol=atol)


MODELS = {
    "linear": (mlp(), (X, Y), cross_entropy),
    # The gradient of a bias before batch norm is rounding noise, which AdamW makes as large as its rate: no bias there.
    "batch norm and dropout": (mlp(nn.batch_norm(16), nn.dropout(0.5), bias=False), (X, Y), cross_entropy),
    "embedding": (nn.sequential(nn.embedding(20, 16), nn.linear(16, 4)), (TOKENS,), mean_square),
    "one convolution": (
        nn.sequential(nn.conv2d(3, 4, 3, padding=1), nn.relu, nn.max_pool2d(2)),
        (IMAGES,),
        mean_square,
    ),
    "lstm": (nn.sequential(nn.lstm(16, 8), lambda h, c: h), (SEQUENCES,), mean_square),
    "lifted transformer": (nn.lift(Encoder()), (SEQUENCES,), mean_square),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.usual("linear", "batch norm and dropout", "embedding", "one convolution", "lstm")
def test_a_member_trains_as_its_step_alone(name):
    model, batch, loss = MODELS[name]
    step = fp.train_step(model, loss, optim.adamw(1e-2), compile=False)
    assert_as_alone([step] * 3, fp.members(3)(step), [batch] * 3)


def test_one_trace_steps_all_members():
    step = fp.train_step(small_net(), cross_entropy, optim.adamw(1e-2), metrics=[fp.accuracy()])
    many = fp.members(3)(step)
    assert_as_alone([step] * 3, many, [(X[:, :3], Y % 2)] * 3)
    assert many.traces == 1


OPTIMIZERS = {
    "clip": pipe(optim.adamw(1e-2), optim.clip_norm(0.1)),
    "ema and skip": pipe(optim.adamw(1e-2), optim.skip_nonfinite(), optim.ema(0.9)),
    "groups and schedule": optim.groups(
        ("layers.0", optim.sgd(1e-2)), (None, optim.adamw(optim.cosine_decay(1e-2, 9)))
    ),
    "adam, bias correction": optim.adam(1e-2, bias_correction=True),
    "muon": optim.muon(1e-2),
    "adafactor": optim.adafactor(1e-2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_states_of_optimisers_and_metrics_are_those_of_steps_alone(name):
    step = fp.train_step(mlp(), cross_entropy, OPTIMIZERS[name], metrics=[fp.accuracy()], measure=True, compile=False)
    assert_as_alone([step] * 2, fp.members(2)(step), [(X, Y)] * 3, rtol=1e-4)


def make(model, compile=False, **options):
    """Return a step whose optimiser takes its options as they are."""
    rate = options.pop("rate", 1e-2)
    decay, norm = options.pop("decay", 0.9), options.pop("norm", 1.0)
    optimizer = pipe(optim.adamw(rate, **options), optim.clip_norm(norm), optim.ema(decay))
    return fp.train_step(model, cross_entropy, optimizer, compile=compile)


def test_settings_differ_between_members_and_lie_in_the_state():
    settings = {
        "rate": [1e-2, 1e-1, 1e-3],
        "weight_decay": [0, 0.1, 0.2],
        "decay": [0.9, 0.5, 0.99],
        "norm": [0.1, 1.0, 10.0],
    }
    many = fp.members(3, **settings)(partial(make, mlp()))
    alone = [make(mlp(), **{name: values[i] for name, values in settings.items()}) for i in range(3)]
    assert_as_alone(alone, many, [(X, Y)] * 3, rtol=1e-4)
    _, opt_state = many.init(0)
    assert opt_state["settings"]["norm"].tolist() == pytest.approx([0.1, 1.0, 10.0])
    assert optim.reading("learning_rate")(opt_state).shape == (3,)


def test_a_schedule_may_have_settings():
    def scheduled(start):
        return fp.train_step(mlp(), cross_entropy, optim.sgd(optim.exponential_decay(start, 0.5)), compile=False)

    assert_as_alone([scheduled(0.1), scheduled(0.4)], fp.members(2, start=[0.1, 0.4])(scheduled), [(X, Y)] * 3)


def test_the_options_of_an_optimiser_are_read_again_after_a_trace():
    many = fp.members(1, weight_decay=[0.1])(partial(make, mlp()))
    many(*many.init(0), (X, Y))
    with pytest.raises(ValueError, match="learning_rate of sgd"):
        optim.sgd(mx.array(-1.0))
    with pytest.raises(TypeError, match="a weight decay|weight_decay"):
        optim.adamw(0.1, weight_decay=mx.array([1.0, 2.0]))


def test_each_member_may_have_its_own_batches():
    step = fp.train_step(mlp(nn.dropout(0.5)), cross_entropy, optim.adamw(1e-2), compile=False)
    batches = [(mx.stack([X, X + 1, X * i]), mx.stack([Y, Y, Y])) for i in range(1, 4)]
    assert_as_alone([step] * 3, fp.members(3, batches="own")(step), batches, own=True)
    many = fp.members(3, batches="own")(step)
    with pytest.raises(ValueError, match='"own" the first axis of each array is that of 3 members'):
        many(*many.init(0), (X, Y))


def test_members_that_have_stopped_leave_the_stack():
    many = fp.members(4, weight_decay=[0, 0.1, 0.2, 0.3])(partial(make, nn.linear(8, 4), compile=True))
    params, opt_state = many.init(0)
    params, opt_state, _ = many(params, opt_state, (X, Y))
    rest, rest_state, logs = many(*map(many.only([3, 1]), (params, opt_state)), (X, Y))
    after, state, all_logs = many(params, opt_state, (X, Y))
    assert_close(rest, many.only([3, 1])(after))
    assert_close(rest_state, many.only([3, 1])(state))
    assert_close(logs, many.only([3, 1])(all_logs))
    assert many.traces == 2
    with pytest.raises(IndexError, match="members 0 to 3; got 4"):
        many.only([0, 4])(params)


def test_starts_are_seeds_lists_or_parameters():
    step = fp.train_step(small_net(), cross_entropy, optim.sgd(0.1))
    many = fp.members(2)(step)
    assert_close(many.init(5)[0], many.init([5, 6])[0])
    given = step.init(9)[0]
    params, opt_state = many.init(given, seed=3)
    assert_close(many.member(1)(params), given)
    assert_close(many.member(1)(opt_state), step.init(given, seed=4)[1])
    with pytest.raises(ValueError, match="start has 3 entries for 2 members"):
        many.init([1, 2, 3])


def test_a_prediction_is_a_mean_with_its_spread():
    step = fp.train_step(mlp(nn.dropout(0.5)), cross_entropy, optim.sgd(0.1), compile=False)
    many = fp.members(3)(step)
    params, _ = many.init(0)
    mean, spread = many.predict(params)(X)
    outputs = mx.stack([mlp().apply(_without_dropout(many.member(i)(params)), X)[0] for i in range(3)])
    assert_close(mean, outputs.mean(axis=0))
    assert_close(spread, mx.std(outputs, axis=0))


def _without_dropout(params):
    return {**params, "layers": [params["layers"][0], {}]}


def test_a_step_that_is_not_compiled_and_frozen_parts_work():
    model = nn.freeze("layers.0")(mlp())
    step = fp.train_step(model, cross_entropy, optim.adamw(1e-2), compile=False)
    many = fp.members(2)(step)
    params, opt_state = many.init(0)
    after, _, logs = many(params, opt_state, (X, Y))
    assert_close(many.member(1)(after), step(*step.init(1), (X, Y))[0])
    assert many.traces == 0
    assert logs["loss"].shape == (2,)


REFUSED = {
    "two convolutions": (
        nn.sequential(nn.conv2d(3, 4, 3), nn.relu, nn.conv2d(4, 4, 3)),
        r"layers\.0, layers\.2: .*two convolutions",
    ),
    "two convolutions in a lifted module": (
        nn.lift(mlx_nn.Sequential(mlx_nn.Conv2d(3, 4, 3), mlx_nn.Conv2d(4, 4, 3))),
        r"layers\.0, layers\.1: .*two convolutions",
    ),
    "groups": (nn.sequential(nn.conv2d(3, 3, 3, groups=3)), r"layers\.0: .*with groups"),
    "remat": (nn.sequential(nn.remat(nn.linear(3, 4)), nn.linear(4, 4)), r"layers\.0: .*leave nn\.remat out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_mlx_cannot_vmap_is_refused_by_the_name_of_its_layer(name):
    model, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        fp.members(2)(fp.train_step(model, mean_square, optim.sgd(0.1)))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (nn.sequential(nn.conv2d(3, 4, 3), nn.max_pool2d(3, 2)), r"AsStrided in layers\.0, layers\.1"),
        (nn.sequential(nn.linear(3, 3), nn.conv2d(3, 4, 3)), r"AsStrided in layers\.1"),
    ],
)
def test_an_operation_without_a_rule_is_named_with_its_layers_before_the_first_step(model, words):
    many = fp.members(2)(fp.train_step(model, mean_square, optim.sgd(0.1)))
    with pytest.raises(ValueError, match=words):
        many(*many.init(0), (IMAGES,))


def test_options_of_a_step_that_members_cannot_have():
    step = partial(fp.train_step, mlp(), cross_entropy, optim.sgd(0.1))
    with pytest.raises(ValueError, match='update="at_end"'):
        fp.members(2)(step(update="in_backward"))
    many = fp.members(2)(step(parts=2))
    with pytest.raises(ValueError, match=r"leave parts=…"):
        many(*many.init(0), (X, Y))


def test_wrong_arguments():
    step = fp.train_step(mlp(), cross_entropy, optim.sgd(0.1))
    with pytest.raises(ValueError, match="1 or more; got 0"):
        fp.members(0)
    with pytest.raises(ValueError, match='"shared" or "own"; got \'mine\''):
        fp.members(2, batches="mine")
    with pytest.raises(ValueError, match="'decay' has 3 values for 2 members"):
        fp.members(2, decay=[0.1, 0.2, 0.3])
    with pytest.raises(TypeError, match="a list with a number for each member"):
        fp.members(2, decay=0.1)
    with pytest.raises(TypeError, match="takes a function of decay"):
        fp.members(2, decay=[0.1, 0.2])(step)
    with pytest.raises(TypeError, match="without settings members takes a step"):
        fp.members(2)(lambda: step)
    with pytest.raises(TypeError, match="returns a step of train_step; got int"):
        fp.members(2, decay=[0.1, 0.2])(lambda decay: 3)
    many = fp.members(2)(step)
    params, opt_state = many.init(0)
    with pytest.raises(ValueError, match="settings none; the state has decay"):
        many(params, {**opt_state, "settings": {"decay": mx.zeros((2,))}}, (X, Y))


def test_a_setting_that_decides_a_branch_is_an_error_with_its_place():
    def with_momentum(momentum):
        return fp.train_step(mlp(), cross_entropy, optim.sgd(0.1, momentum=momentum), compile=False)

    many = fp.members(2, momentum=[0.0, 0.9])(with_momentum)
    with pytest.raises(ValueError, match="momentum"):
        many(*many.init(0), (X, Y))


def test_flat_states_of_members_have_the_paths_of_one():
    step = fp.train_step(mlp(), cross_entropy, optim.sgd(0.1))
    many = fp.members(2)(step)
    assert flat(many.member(0)(many.init(0)[1])).keys() == flat(step.init(0)[1]).keys()
