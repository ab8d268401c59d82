"""The step of one process among several: one trace, one message, and errors at the edge."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import mlx.core as mx
import pytest
from helpers import assert_same_bits

import mlx_fp as fp
from mlx_fp import nn, optim, passes
from mlx_fp.across._world import World
from mlx_fp.core.backend import GPU, device_backend
from mlx_fp.step import _across

X = mx.random.normal((12, 4), key=mx.random.key(0))
Y = X.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Mirrored(World):
    """Two processes with the same rows: what the other one sends is what this one sends."""

    size: int = 2
    sent: list[int] = field(default_factory=list, compare=False)

    def sum(self, array):
        self.sent.append(array.size)
        return 2 * array


def squared(model, x, y):
    error = model(x) - y
    return error.square().mean(), {"size": fp.mean(mx.abs(error))}


def model():
    return nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.tanh, nn.linear(8, 1))


def trained(optimizer, batches=5, **options):
    step = fp.train_step(model(), squared, optimizer, **options)
    params, opt_state = step.init(0)
    for _ in range(batches):
        params, opt_state, logs = step(params, opt_state, (X, Y))
    return step, params, logs


@pytest.mark.parametrize("options", [{}, {"parts": 2}, {"through": [passes.in_parts(3)], "measure": True}], ids=str)
@pytest.mark.usual("{'through': [in_parts(3)], 'measure': True}")
def test_a_step_has_one_trace_and_sends_one_message(options):
    world = Mirrored()
    step, params, logs = trained(optim.sgd(0.1), across=world, **options)
    parameters = sum(leaf.size for path, leaf in fp.flat(params).items())
    assert step.traces == 1
    assert len(world.sent) == 1
    assert parameters < world.sent[0] < parameters + 100
    _, alone, expected = trained(optim.sgd(0.1), **options)
    assert logs["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-5)
    for path, leaf in fp.flat(alone).items():
        assert mx.allclose(leaf, fp.flat(params)[path], rtol=1e-4, atol=1e-5), path


def test_one_process_sends_nothing_and_has_the_same_bits():
    world = Mirrored(size=1)
    _, params, _ = trained(optim.sgd(0.1), across=world)
    _, alone, _ = trained(optim.sgd(0.1))
    assert world.sent == []
    assert all(mx.array_equal(leaf, fp.flat(alone)[path]) for path, leaf in fp.flat(params).items())


def once(step, params, opt_state, batches):
    """A step on each batch."""
    for batch in batches:
        params, opt_state, logs = step(params, opt_state, batch)
    return params, opt_state, logs


def carried(step, params, opt_state, batches):
    """All steps in one call."""
    state, logged = step.advance(step.carry(params, opt_state), batches)
    assert [examples for *_, examples in logged] == [12, 12]
    return state.params, state.opt_state, logged[-1][0]


def in_halves(step, params, opt_state, batches):
    """The two public halves of each step."""
    for batch in batches:
        grads, rest, opt_state, logs, _ = step.gradients(params, opt_state, batch)
        params, opt_state = step.update(params, opt_state, grads, rest)
    return params, opt_state, logs


def accumulated(step, params, opt_state, batches):
    return step.accumulate(params, opt_state, batches)


def accumulated_in_halves(step, params, opt_state, batches):
    grads, rest, opt_state, logs, _ = step.accumulated_gradients(params, opt_state, batches)
    return *step.update(params, opt_state, grads, rest), logs


@dataclass(frozen=True)
class Watched(Mirrored):
    """Two processes with the same rows. A sum outside a compiled function reads its vector."""

    read: list[float] = field(default_factory=list, compare=False)

    def sum(self, array):
        self.read.append(array.sum().item())  # an error within a compiled function
        return super().sum(array)


def sums_apart(monkeypatch):
    backend = replace(device_backend(), sums_apart=GPU.sums_apart)
    monkeypatch.setattr(_across, "device_backend", lambda: backend)


@pytest.mark.parametrize("take", [once, carried, in_halves, accumulated, accumulated_in_halves])
@pytest.mark.parametrize("compile", [True, False])
def test_on_a_gpu_messages_are_summed_outside_compiled_functions_with_the_same_bits(take, compile, monkeypatch):
    def after(world):
        options = {"metrics": [fp.metrics.mse()], "measure": True, "compile": compile}
        step = fp.train_step(model(), squared, optim.clip_norm(1.0)(optim.adamw(0.01)), across=world, **options)
        return take(step, *step.init(0), [(X, Y), (X + 1, Y)])

    within = after(Mirrored())
    sums_apart(monkeypatch)
    world = Watched()
    apart = after(world)
    assert len(world.read) == 2  # one message for each batch
    assert_same_bits(within, apart)


def test_on_a_gpu_a_step_has_two_traces_and_one_process_has_one(monkeypatch):
    sums_apart(monkeypatch)
    assert trained(optim.sgd(0.1), across=Mirrored())[0].traces == 2
    assert trained(optim.sgd(0.1))[0].traces == 1


def test_on_a_gpu_buffers_that_a_pass_leaves_alone_keep_their_bits(monkeypatch):
    sums_apart(monkeypatch)
    unused = nn.define(lambda m, x: m.head(x), head=nn.linear(4, 1), norm=nn.batch_norm(8))
    step = fp.train_step(unused, squared, optim.sgd(0.1), across=Mirrored())
    params, opt_state = step.init(0)
    params["norm"]["running_mean"] = mx.full((8,), 0.1)
    after, *_ = step(params, opt_state, (X[:7], Y[:7]))
    assert_same_bits(after["norm"]["running_mean"], params["norm"]["running_mean"])


def test_a_metric_without_merge_is_refused():
    seen = fp.Metric("seen", lambda: mx.array(0), lambda state, output, batch: state + 1, lambda state: state)
    with pytest.raises(ValueError, match="metric 'seen' has no merge, and the rows are divided among 2 processes"):
        fp.train_step(model(), squared, optim.sgd(0.1), metrics=[seen], across=Mirrored())


def test_updates_in_the_backward_pass_are_refused():
    with pytest.raises(ValueError, match=r'update="in_backward" takes the gradients of a whole batch; across changes'):
        fp.train_step(model(), squared, optim.sgd(0.1), update="in_backward", across=Mirrored())


def test_more_figures_than_a_message_holds_are_refused():
    def many(model, x, y):
        loss, _ = squared(model, x, y)
        return loss, {f"figure_{n}": loss for n in range(32)}

    step = fp.train_step(model(), many, optim.sgd(0.1), across=Mirrored())
    with pytest.raises(ValueError, match="a loss has at most 31 figures across processes; it returns 32"):
        step(*step.init(0), (X, Y))


def test_a_task_that_compares_rows_is_refused():
    trainer = fp.trainer(nn.linear(4, 1), fp.Task("pairs", squared, whole_batches=True))
    with pytest.raises(ValueError, match="pairs compares the rows of a batch, and processes=2 cuts batches"):
        fp.fit([(X, Y)], across=Mirrored(), quiet=True)(trainer)


def test_a_rank_beyond_the_size_is_an_error():
    with pytest.raises(ValueError, match="a rank is from 0 to size - 1; got rank 2 of 2"):
        World(2, 2)
