"""Steps in turn: one compiled call with the numbers of separate steps, alone and through a run."""

import mlx.core as mx
import numpy as np
import pytest
from helpers import PLAIN, assert_close, assert_same_bits, changed, random_batch
from mlx.utils import tree_map

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim, pipe

X, Y = random_batch(8)


def pair():
    """Return a model of two parts, each with a buffer or with draws."""
    return nn.branch(
        dis=nn.sequential(nn.linear(3, 4), nn.tanh, nn.dropout(0.2), nn.linear(4, 1)),
        gen=nn.sequential(nn.linear(3, 4), nn.batch_norm(4), nn.relu, nn.linear(4, 3)),
    )


def d_loss(model, x, y):
    real, fake = model.dis(x), model.dis(model.gen(x))
    return nn.losses.mse_loss(real, mx.ones_like(real)) + fake.square().mean(), {"real": real.mean()}


def g_loss(model, x, y):
    fake = model.dis(model.gen(x))
    return nn.losses.mse_loss(fake, mx.ones_like(fake))


def members(model=None, **options):
    model = model or pair()
    return {
        "d": fp.train_step(model, d_loss, pipe(optim.adam(1e-2), optim.clip_norm(1.0)), trainable="dis", **options),
        "g": fp.train_step(model, g_loss, optim.sgd(optim.step_decay(0.1, 0.9, 2)), trainable="gen", **options),
    }


def one_after_another(steps, batches, turns=lambda name, i: True):
    """Take the turns by hand, each with its own compiled call: parameters, states of the optimisers, logs."""
    params, state = steps["d"].init(0)
    key, states = state["key"], {name: step.init(params)[1]["optimizer"] for name, step in steps.items()}
    for i, batch in enumerate(batches, 1):
        seen = {}
        for name, step in steps.items():
            after = step(params, {"key": key, "optimizer": states[name], "metrics": {}}, batch)
            key = after[1]["key"]
            seen |= {f"{name}_{log}": value for log, value in after[2].items()}
            if turns(name, i):
                params, states[name] = after[0], after[1]["optimizer"]
    return params, list(states.values()), seen


def taken(step, batches):
    params, opt_state = step.init(0)
    for batch in batches:
        params, opt_state, logs = step(params, opt_state, batch)
    return params, opt_state, logs


BATCHES = [random_batch(8, seed) for seed in range(5)]


def test_one_call_has_the_numbers_of_separate_calls_and_one_trace():
    step = fp.in_turn(**members())
    params, opt_state, logs = taken(step, BATCHES)
    by_hand = one_after_another(members(), BATCHES)
    assert_close(params, by_hand[0])
    assert_close(opt_state["optimizer"]["groups"], by_hand[1])
    assert step.traces == 1
    assert logs.pop("loss").item() == pytest.approx(sum(by_hand[2][f"{name}_loss"].item() for name in "dg"), rel=1e-5)
    assert_close(dict(sorted(logs.items())), dict(sorted(by_hand[2].items())))
    assert changed(step.init(0)[0]["gen"], params["gen"]) >= {"layers.1.running_mean", "layers.1.running_var"}


def test_a_member_with_a_ratio_has_its_turns_and_keeps_everything_else():
    step = fp.in_turn(**members(compile=False), every={"g": 2}, compile=False)
    params, opt_state, _ = taken(step, BATCHES)
    by_hand = one_after_another(members(compile=False), BATCHES, lambda name, i: name == "d" or i % 2 == 0)
    assert_close(params, by_hand[0])
    assert_close(opt_state["optimizer"]["groups"], by_hand[1])
    assert opt_state["optimizer"]["groups"][1]["step"].item() == 2


def test_a_ratio_has_one_trace_and_counts_logs_of_turns_only():
    step = fp.in_turn(**members(), every={"g": 3})
    state = step.carry(*step.init(0))
    weights = []
    for batch in BATCHES[:3]:
        state, ((_, counted, _),) = step.advance(state, [batch])
        weights.append([float(counted[name]) for name in ("loss", "d_loss", "g_loss")])
    assert weights == [[8, 8, 0], [8, 8, 0], [8, 8, 8]]
    assert step.traces == 1


def target_network():
    return nn.branch(online=nn.linear(3, 2), target=nn.linear(3, 2))


def td(model, x, y):
    return nn.losses.mse_loss(model.online(x), y + model.target(x))


def test_a_function_of_the_parameters_is_a_member():
    online = fp.train_step(target_network(), td, optim.sgd(0.1), trainable="online")
    step = fp.in_turn(q=online, target=lambda params: {**params, "target": params["online"]}, every={"target": 3})
    params, opt_state = step.init(0)
    params = start = {**params, "target": params["online"]}
    for i in range(1, 7):
        before, (params, opt_state, _) = params, step(params, opt_state, BATCHES[0])
        if i % 3:
            assert_same_bits(params["target"], before["target"])
            assert changed(params["target"], params["online"])
        else:
            assert_same_bits(params["target"], params["online"])
    assert changed(start["online"], params["online"])
    assert len(opt_state["optimizer"]["groups"]) == 1
    assert step.traces == 1


def test_each_step_a_copy_and_a_clip():
    online = fp.train_step(target_network(), td, optim.sgd(1.0), trainable="online")
    step = fp.in_turn(
        q=online,
        clip=lambda params: {**params, "online": tree_map(lambda p: mx.clip(p, -0.1, 0.1), params["online"])},
        target=lambda params: {"target": params["online"], "online": params["online"]},
    )
    params, opt_state = step.init(0)
    for _ in range(3):
        params, opt_state, _ = step(params, opt_state, BATCHES[0])
    assert max(np.abs(np.array(leaf)).max() for leaf in fp.flat(params).values()) <= 0.1 + 1e-7
    assert_same_bits(params["target"], params["online"])
    assert set(fp.flat(step.trainable(params))) == set(fp.flat(params))
    assert set(fp.flat(fp.in_turn(q=online).trainable(params))) == {"online.weight", "online.bias"}


def test_reading_and_scale_rates_find_the_optimisers():
    step = fp.in_turn(**members(compile=False), compile=False)
    _, opt_state, _ = taken(step, BATCHES[:1])
    assert optim.reading("grad_norm")(opt_state).item() > 0
    groups = optim.scale_rates(0.5)(opt_state)["optimizer"]["groups"]
    assert groups[0]["inner"]["learning_rate"].item() == pytest.approx(5e-3)
    assert groups[1]["learning_rate"].item() == pytest.approx(0.05)


def test_metrics_of_the_members_fold():
    model = target_network()
    online = fp.train_step(model, lambda m, x, y: nn.losses.mse_loss(m.online(x), y), optim.sgd(0.0),
                           trainable="online", metrics=[metrics.mae()], compile=False)  # fmt: skip
    step = fp.in_turn(q=online, other=fp.train_step(model, td, optim.sgd(0.0), trainable="target"), compile=False)
    params, opt_state, _ = taken(step, BATCHES[:2])
    error = [np.abs(np.array(x @ params["online"]["weight"].T + params["online"]["bias"] - y)) for x, y in BATCHES[:2]]
    assert metrics.mae().value(opt_state["metrics"]["mae"]).item() == pytest.approx(np.mean(error), rel=1e-5)


# through a run --------------------------------------------------------------------------------------------------


def trainer():
    def make(model, loss, optimizer, *, metrics, **options):
        def clipped(params):
            return {**params, "gen": tree_map(lambda p: mx.clip(p, -2, 2), params["gen"])}

        return fp.in_turn(**members(model), clip=clipped, every={"g": 2})

    return fp.with_step(make)(fp.trainer(pair(), g_loss))


def source():
    x = mx.concatenate([x for x, _ in BATCHES])
    return pipe(data.arrays(x=x, y=mx.concatenate([y for _, y in BATCHES])), data.shuffle(seed=1), data.batch(8))


def assert_same(one, other):
    compare = assert_close if PLAIN else assert_same_bits
    compare((one.params, one.opt_state), (other.params, other.opt_state))


def test_a_run_with_hooks_is_resumed_to_the_same_bits(tmp_path):
    losses = []
    seen = fp.on("after_step", lambda event: losses.append(sorted(event.logs)))
    whole = pipe(trainer(), seen, fp.fit(source(), epochs=3, quiet=True))
    path = str(tmp_path / "epoch-{epoch}")
    pipe(trainer(), fp.checkpoints(path), fp.fit(source(), epochs=2, quiet=True))
    resumed = pipe(trainer(), fp.checkpoints(path), fp.fit(source(), epochs=3, quiet=True, resume="latest"))
    assert losses[0] == ["d_loss", "d_real", "g_loss", "loss"]
    assert len(losses) == 15
    assert_same(whole, resumed)
    assert whole.rows[-1].metrics["g_loss"] == pytest.approx(resumed.rows[-1].metrics["g_loss"], rel=1e-5)
    assert whole.setup.optimizer.startswith("in_turn(d: clip_norm")
    assert resumed.resumed_from_epoch is not None


def test_a_run_has_the_bits_of_a_loop_of_ones_own_and_an_interrupted_one_goes_on(tmp_path):
    step = trainer().step(pair(), None, None, metrics=())
    state = step.init(0)
    for epoch in range(2):
        for batch in source().open(data.Cursor(epoch)):
            *state, _ = step(*state, batch)
    report = pipe(trainer(), fp.fit(source(), epochs=2, quiet=True))
    assert_close((report.params, report.opt_state["optimizer"]), (state[0], state[1]["optimizer"]))
    path = str(tmp_path / "step-{step}")
    pipe(trainer(), fp.checkpoints(path, every_steps=3), fp.fit(source(), steps=6, quiet=True))
    resumed = pipe(trainer(), fp.fit(source(), epochs=2, quiet=True, resume=str(tmp_path / "step-3.safetensors")))
    assert_same(report, resumed)


def test_a_run_says_what_such_a_step_cannot_do():
    with pytest.raises(TypeError, match=r"accumulate needs a step with `accumulated`, and in_turn\(d, g, clip\)"):
        pipe(trainer(), fp.fit(source(), accumulate=2, quiet=True))
    with pytest.raises(TypeError, match="after_backward need a step with `gradients`"):
        pipe(trainer(), fp.on("after_backward", print), fp.fit(source(), quiet=True))
    with pytest.raises(ValueError, match=r"wrap the optimiser of each member in optim.skip_nonfinite\(\)"):
        pipe(trainer(), fp.fit(source(), nonfinite="skip", quiet=True))
    with pytest.raises(ValueError, match="plateau changes a rate that is a number; groups.1.learning_rate"):
        pipe(trainer(), fp.plateau(0.5, patience=1), fp.fit(source(), quiet=True))


def test_members_are_steps_on_one_tree_of_parameters():
    step = members(compile=False)["d"]
    other = fp.train_step(nn.linear(3, 2), lambda m, x, y: m(x).mean(), optim.sgd(0.1))
    cases = [
        (TypeError, "one step of train_step or more", {}),
        (TypeError, "g of in_turn is a step of train_step, or a function", {"d": step, "g": 3}),
        (TypeError, "g of in_turn is a step", {"d": step, "g": nn.linear(3, 2)}),
        (ValueError, "d and g differ in .*bias", {"d": step, "g": other}),
        (
            ValueError,
            r"same paths and shapes; these differ: \['dis.layers.0.bias'",
            {"d": step, "f": lambda p: p["gen"]},
        ),
        (ValueError, "same paths and shapes", {"d": step, "f": lambda p: None}),
        (ValueError, "every of d is a count of steps", {"d": step, "every": {"d": 0}}),
        (KeyError, "unknown member in every .*known: d", {"d": step, "every": {"e": 2}}),
    ]
    for error, words, options in cases:
        with pytest.raises(error, match=words):
            fp.in_turn(**options)


def test_another_state_is_refused():
    step, (params, opt_state) = fp.in_turn(**members(compile=False), compile=False), members()["d"].init(0)
    with pytest.raises(ValueError, match=r"in_turn takes the opt_state of its own init.*\['d', 'g'\]; got no groups"):
        step(params, opt_state, BATCHES[0])


# parts of native models -----------------------------------------------------------------------------------------


def test_parts_of_native_modules_are_callable_in_a_loss_and_keep_their_buffers():
    import mlx.nn

    class Gan(mlx.nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = mlx.nn.Sequential(mlx.nn.Linear(3, 4), mlx.nn.BatchNorm(4), mlx.nn.Linear(4, 3))
            self.critic = mlx.nn.Linear(3, 1)

        def __call__(self, x):
            return self.critic(self.generator(x))

    model = nn.lift(Gan)
    step = fp.in_turn(
        d=fp.train_step(model, lambda m, x, y: m.critic(m.generator(x)).mean(), optim.sgd(0.1), trainable="critic"),
        g=fp.train_step(model, lambda m, x, y: -m(x).mean(), optim.sgd(0.1), trainable="generator"),
    )
    before, opt_state = step.init(0)
    after, *_ = step(before, opt_state, (X, Y))
    assert changed(before, after) >= {"critic.weight", "generator.layers.0.weight", "generator.layers.1.running_mean"}
    once = fp.train_step(model, lambda m, x, y: m.generator(x).mean(), optim.sgd(0.1), trainable="generator")
    through = fp.train_step(model, lambda m, x, y: m(x).mean(), optim.sgd(0.1), trainable="generator")
    buffers = [step(before, step.init(before)[1], (X, Y))[0]["generator"]["layers"][1] for step in (once, through)]
    assert_close(*({name: each[name] for name in ("running_mean", "running_var")} for each in buffers))
