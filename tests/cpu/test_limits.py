"""Limits of the process within a tuned context: what holds, and that all is put back."""

from __future__ import annotations

import os

import pytest
from helpers import run_python

from mlx_fp.core._mlx import on_cpu

DEFAULT = 32 << 20
HEAD = """
import gc, os, threading
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import cpu, nn, optim

def limit():
    now = mx.set_cache_limit(0)
    mx.set_cache_limit(now)
    return now

def made(width, **options):
    model = nn.linear(width, width, bias=False)
    return fp.train_step(model, lambda f, x: (f(x) ** 2).mean(), optim.adamw(1e-3), **options)
"""


def run(code):
    """Run `HEAD` and `code` in a process of its own, whose limits nothing has touched; return the numbers it prints."""
    return [int(line) for line in run_python(HEAD + code, timeout=60).split()]


pytestmark = pytest.mark.skipif(not on_cpu(), reason="on a GPU MLX keeps all")
LARGE, LARGER = 4 * 2900**2, 4 * 3000**2
"""Bytes of two models of more than 32 MB."""


def test_a_step_alone_changes_no_limit():
    code = """
step = made(3000, streams=1)
state = step.init(0)
state = step(*state, mx.ones((2, 3000)))
print(limit())
"""
    assert run(code) == [DEFAULT]


@pytest.mark.parametrize(
    ("size", "native", "kept"),
    [
        (LARGE, False, 3 * LARGE),
        (LARGE, True, 3 * LARGE),
        (9 << 20, False, 36 << 20),
        (9 << 20, True, DEFAULT),
        (7 << 20, False, DEFAULT),
        (None, False, 1 << 30),
    ],
)
def test_within_mlx_keeps_what_steps_of_such_a_model_free(size, native, kept):
    code = f"from mlx_fp.cpu import _native; _native._folders += ['here'] * {native}\n"
    assert run(code + f"with cpu.tuned({size}): print(limit())\nprint(limit())") == [kept, DEFAULT]


def test_contexts_of_several_sizes_hold_the_largest_whichever_ends_first():
    code = f"""
one, other = cpu.tuned({LARGE}), cpu.tuned({LARGER})
one.__enter__(); print(limit()); other.__enter__(); print(limit())
one.__exit__(None, None, None); print(limit()); other.__exit__(None, None, None); print(limit())
"""
    assert run(code) == [3 * LARGE, 3 * LARGER, 3 * LARGER, DEFAULT]


@pytest.mark.parametrize("own", [0, 50 << 20, 1 << 30])
def test_a_limit_that_the_program_has_set_stays(own):
    inside = f"with cpu.tuned({LARGE}): print(limit())\nprint(limit())"
    assert run(f"mx.set_cache_limit({own})\n{inside}") == [own, own]
    assert run(f"with cpu.tuned({LARGE}): mx.set_cache_limit({own})\nprint(limit())") == [own]


@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt", "SystemExit"])
def test_an_exception_within_puts_all_back(error):
    code = f"""
try:
    with cpu.tuned({LARGE}):
        raise {error}
except BaseException:
    print(limit())
"""
    assert run(code) == [DEFAULT]


def test_fit_enters_the_context_for_the_time_of_a_run_and_puts_all_back():
    code = """
model = nn.linear(3000, 1000, bias=False)
trainer = fp.trainer(model, lambda f, x: (f(x) ** 2).mean())
def look(event):
    print(limit() >> 20)
for verbs in ([fp.on("after_step", look)], [fp.on("after_step", look), fp.on("after_step", lambda e: 1 / 0)]):
    target = trainer
    for verb in verbs:
        target = verb(target)
    try:
        fp.fit([mx.ones((4, 3000))], quiet=True)(target)
    except ZeroDivisionError:
        pass
    print(limit() >> 20)
stream = fp.events([mx.ones((4, 3000))] * 3, only=("after_step",))(trainer)
next(stream)
print(limit() >> 20)
stream.close()
print(limit() >> 20)
"""
    tuned, plain = 4 * 4 * 3_000_000 >> 20, 32
    assert run(code) == [tuned, plain] * 3


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_signal_in_a_run_puts_all_back(number):
    code = f"""
import signal
target = fp.trainer(nn.linear(3000, 1000, bias=False), lambda f, x: (f(x) ** 2).mean())
target = fp.on("after_step", lambda event: signal.raise_signal(signal.{number}))(target)
report = fp.fit([mx.ones((4, 3000))] * 3, quiet=True)(target)
print(len(report.losses), limit())
"""
    assert run(code) == [1, DEFAULT]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("before", ["", "import mlx_fp.step._train"])
def test_in_a_fork_of_a_process_that_has_used_mlx_it_does_not_wait_for_threads_that_do_not_exist(before):
    code = f"""
{before}
_ = fp.cpu.tuned
child = os.fork()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
else:
    with cpu.tuned({LARGE}):
        made(3000).init(0)
    os._exit(7)
"""
    assert run(code) == [7]


def test_a_large_step_takes_no_more_memory_at_its_peak():
    code = """
step = made(3000)
with cpu.tuned(step.parameter_bytes):
    params, opt_state = step.init(0)
    for _ in range(3):
        params, opt_state, _ = step(params, opt_state, mx.ones((4, 3000)))
        mx.eval(params, opt_state)
    print(mx.get_peak_memory(), mx.get_cache_memory())
print(mx.get_cache_memory())
"""
    peak, kept, after = run(code)
    assert peak <= 4.1 * LARGER
    assert kept <= 3 * LARGER
    assert after <= DEFAULT
