"""A backend is a record of answers; one is in use within `using`, and none is left behind."""

from __future__ import annotations

import threading
from dataclasses import FrozenInstanceError, fields, replace

import mlx.core as mx
import pytest

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.core import backend as module
from mlx_fp.core.backend import GPU, PLAIN, Backend, in_use, on_device, using

FAST = replace(PLAIN, name="fast")


def test_a_backend_is_frozen_and_plain_is_all_defaults():
    with pytest.raises(FrozenInstanceError):
        PLAIN.name = "another"
    with pytest.raises(TypeError):
        PLAIN.substitutes[nn.linear] = nn.linear
    assert {f.name: getattr(Backend(), f.name) for f in fields(Backend)} == {
        f.name: getattr(PLAIN, f.name) for f in fields(Backend)
    }


def test_plain_answers_as_mlx_is():
    tree, rest = {"a": mx.array(1.0), "b": [mx.array(2.0)]}, {"a": mx.array(3.0), "b": [mx.array(4.0)]}
    (same, other), ungroup = PLAIN.grouped(tree, rest)
    assert same is tree
    assert other is rest
    assert ungroup(tree) is tree
    summed = PLAIN.elementwise(lambda a, b: a + b, tree, rest)
    assert {path: leaf.item() for path, leaf in fp.flat(summed).items()} == {"a": 4.0, "b.0": 6.0}
    assert PLAIN.separate(tree, 1 << 40) is tree
    assert PLAIN.form(tree, {}, tree, 0) is None
    assert not PLAIN.waits(1 << 40)
    assert PLAIN.parallel is None
    with PLAIN.tuned(1 << 40):
        pass


def test_on_a_gpu_everything_is_plain_but_the_place_of_messages(monkeypatch):
    monkeypatch.setattr(module, "on_cpu", lambda: False)
    assert module.device_backend() is GPU
    assert replace(GPU, name="plain", sums_apart=False) == PLAIN


def test_on_a_gpu_no_result_of_an_update_is_separated(monkeypatch):
    """A large model: on a CPU its update is separated, and its gradients are evaluated before it."""
    step = fp.train_step(nn.linear(3000, 3000), lambda m, x: m(x).square().mean(), optim.adamw(1e-3))
    params, opt_state = step.init(0)
    assert step.parameter_bytes > 32 << 20

    def refuse(*_):
        raise AssertionError("separated or evaluated")

    monkeypatch.setattr(module, "on_cpu", lambda: False)
    monkeypatch.setattr(mx, "depends", refuse)
    monkeypatch.setattr(mx, "eval", refuse)
    step(params, opt_state, mx.ones((1, 3000)))
    carried, _ = step.advance(step.carry(params, opt_state), [mx.ones((1, 3000))])
    assert carried.form is None
    assert step.traces == 1


def test_within_it_is_in_use_and_afterwards_it_is_not():
    assert using(FAST)(in_use)() is FAST
    assert in_use() is PLAIN
    with pytest.raises(ZeroDivisionError):
        using(FAST)(lambda: 1 / 0)()
    assert in_use() is PLAIN


def test_one_within_another_is_in_use_until_its_end():
    def outer():
        return in_use(), using(PLAIN)(in_use)(), in_use()

    assert using(FAST)(outer)() == (FAST, PLAIN, FAST)


def test_another_thread_has_its_own():
    found = []
    thread = threading.Thread(target=lambda: found.append(in_use()))

    def run():
        thread.start()
        thread.join()

    using(FAST)(run)()
    assert found == [PLAIN]


def test_on_device_asks_at_each_call(monkeypatch):
    name = on_device(lambda: in_use().name)
    monkeypatch.setattr(module, "device_backend", lambda: FAST)
    assert name() == "fast"
    monkeypatch.setattr(module, "device_backend", lambda: PLAIN)
    assert name() == "plain"


def test_a_substitute_computes_in_the_place_of_a_class_while_a_step_trains(monkeypatch):
    import mlx.nn as mlx_nn

    class Doubled(mlx_nn.Linear):
        def __call__(self, x):
            return 2 * super().__call__(x)

    backend = replace(PLAIN, name="doubling", substitutes={mlx_nn.Linear: Doubled})
    monkeypatch.setattr(module, "device_backend", lambda: backend)
    model, x = nn.linear(2, 1), mx.ones((1, 2))
    losses = {}
    for name, make in (("train", fp.train_step), ("evaluate", fp.eval_step)):
        if name == "train":
            step = make(model, lambda m, x: m(x).mean(), optim.sgd(0.0))
            params, opt_state = step.init(0)
            losses[name] = step(params, opt_state, x)[2]["loss"].item()
        else:
            step = make(model, lambda m, x: m(x).mean())
            losses[name] = step(params, step.init(), x)[1]["loss"].item()
    assert losses["train"] == pytest.approx(2 * losses["evaluate"])
