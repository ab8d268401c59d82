"""A key is a stream: the same key, the same draws, in every way to run; and the caller's stream never moves."""

from __future__ import annotations

import inspect
import sys
import threading

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_fp import nn, rng


def draw():
    return mx.random.uniform(shape=(3,)), mx.random.bernoulli(0.5, (4,)), mx.random.normal((2,))


def seen(tree):
    return [x.tolist() for x in tree]


def position():
    return mx.random.state[0].tolist()


def by_mlx(seed):
    mx.random.seed(seed)
    return seen(draw())


@given(st.integers(0, 2**64 - 1))
def test_the_draws_are_mlx_s_own_after_a_seed(seed):
    assert rng.key(seed).tolist() == [seed >> 32, seed & 0xFFFFFFFF]
    assert seen(rng.run(seed, draw)[0]) == by_mlx(seed)


def test_same_key_same_draws_eager_compiled_and_mapped():
    keys = mx.random.split(rng.key(3), 4)
    compiled = mx.compile(lambda key: rng.run(key, draw))
    mapped, after = mx.vmap(lambda key: rng.run(key, draw))(keys)
    for i in range(4):
        eager, end = rng.run(keys[i], draw)
        traced, traced_end = compiled(keys[i])
        assert seen(eager) == seen(traced) == [x[i].tolist() for x in mapped]
        assert end.tolist() == traced_end.tolist() == after[i].tolist()


def test_a_run_goes_on_where_the_last_one_ended():
    first, after = rng.run(5, draw)
    second, _ = rng.run(after, draw)
    whole, _ = rng.run(5, lambda: (*draw(), *draw()))
    assert seen(first) + seen(second) == seen(whole)


def test_the_stream_of_the_caller_is_left_where_it_was():
    mx.random.seed(11)
    before = position()
    rng.run(5, lambda: rng.run(6, draw))
    assert position() == before
    assert seen(draw()) == by_mlx(11)


def test_a_run_inside_a_run_does_not_move_the_outer_one():
    with_inner, _ = rng.run(1, lambda: (rng.run(2, draw), draw())[1])
    assert seen(with_inner) == seen(rng.run(1, draw)[0])


@pytest.mark.parametrize("compiled", [False, True])
def test_an_exception_leaves_the_stream_usable_and_in_its_place(compiled):
    def broken(key):
        def body():
            draw()
            raise ZeroDivisionError("inside")

        return rng.run(key, body)

    mx.random.seed(12)
    with pytest.raises(ZeroDivisionError, match="inside"):
        (mx.compile(broken) if compiled else broken)(rng.key(4))
    assert seen(draw()) == by_mlx(12)
    with pytest.raises(ValueError, match="no key"):  # the depth is back as well
        rng.undrawn(draw)


def test_without_a_draw_the_key_itself_comes_back():
    mine = rng.key(9)
    assert rng.run(mine, lambda: 1)[1] is mine
    assert rng.run(mine, draw)[1] is not mine
    assert rng.run(mine, draw)[1].tolist() != mine.tolist()


def test_the_key_handed_in_is_not_changed():
    mine = rng.key(9)
    rng.run(mine, draw)
    assert mine.tolist() == [0, 9]


def test_a_draw_without_a_key_is_an_error_that_says_what_to_do_and_takes_nothing():
    mx.random.seed(13)
    with pytest.raises(ValueError, match=r"train=True and no key: pass key=mlx_fp.rng.key\(seed\)"):
        rng.undrawn(draw)
    assert seen(draw()) == by_mlx(13)
    assert rng.undrawn(lambda: 4) == 4


def test_an_exception_where_no_draw_is_allowed_comes_out_as_itself():
    mx.random.seed(14)

    def body():
        draw()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        rng.undrawn(body)
    assert seen(draw()) == by_mlx(14)


def test_a_draw_is_allowed_inside_a_run_and_on_the_ambient_stream():
    assert seen(rng.run(1, lambda: rng.undrawn(draw))[0]) == seen(rng.run(1, draw)[0])
    mx.random.seed(15)
    assert seen(rng.ambient(lambda: rng.undrawn(draw))) == by_mlx(15)


def test_ambient_ends_after_an_exception():
    with pytest.raises(ZeroDivisionError):
        rng.ambient(lambda: 1 / 0)
    with pytest.raises(ValueError, match="no key"):
        rng.undrawn(draw)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True, "7", None])
def test_what_is_no_seed(seed):
    with pytest.raises(TypeError, match=r"a seed is an int in .* or a random key; got"):
        rng.key(seed)


@pytest.mark.parametrize("array", [mx.array([0, 7]), mx.array(7, mx.uint32), mx.zeros((3,), mx.uint32)])
def test_what_is_no_key(array):
    with pytest.raises(ValueError, match=r"a random key is a uint32 array of shape \(2,\); got"):
        rng.key(array)


def test_a_key_of_one_thread_is_no_leave_for_another_to_draw():
    told = []

    def other():
        try:
            rng.undrawn(draw)
        except ValueError as error:
            told.append(str(error))

    def body():
        worker = threading.Thread(target=other)
        worker.start()
        worker.join()

    rng.run(1, body)
    assert "no key" in told[0]


def test_threads_have_streams_of_their_own():
    mx.random.seed(16)
    found = {}

    def work(seed):
        found[seed] = [seen(rng.run(seed, draw)[0]) for _ in range(20)]

    workers = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for seed in (1, 2):
        assert found[seed] == [seen(rng.run(seed, draw)[0])] * 20
    assert seen(draw()) == by_mlx(16)


def test_dropout_differs_from_call_to_call_under_compile_and_repeats_by_key():
    layer = nn.dropout(0.5)
    step = mx.compile(lambda key, x: rng.run(key, lambda: layer.apply({}, x, train=True)[0]))
    x = mx.ones((64,))
    one, after = step(rng.key(1), x)
    two, _ = step(after, x)
    again, _ = step(rng.key(1), x)
    assert mx.array_equal(one, again)
    assert not mx.array_equal(one, two)
    assert mx.array_equal(one, layer.apply({}, x, train=True, key=1)[0])


@pytest.mark.parametrize("line", range(1, 12))
def test_an_interrupt_at_any_line_of_run_leaves_the_stream_usable(line):
    """A KeyboardInterrupt raised as the n-th line of `rng.run` starts, while a step is traced."""
    seen = []

    def tracer(frame, event, arg):
        if frame.f_code is rng.run.__code__ and event == "line":
            seen.append(frame.f_lineno)
            if len(seen) == line and source[frame.f_lineno - first].strip() not in cleaning:
                raise KeyboardInterrupt
        return tracer if frame.f_code is rng.run.__code__ else None

    source, first = inspect.getsourcelines(rng.run)
    cleaning = ("_move(outer)", "_installed.depth = depth")  # a signal inside the cleaning up itself stays possible
    mx.random.seed(3)
    before = mx.random.state[0].tolist()
    step = mx.compile(lambda key, x: rng.run(key, lambda: mx.random.uniform() + x))
    sys.settrace(lambda frame, event, arg: tracer(frame, event, arg) if frame.f_code is rng.run.__code__ else None)
    try:
        step(rng.key(1), mx.array(1.0))
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(None)
    assert mx.random.state[0].tolist() == before
    with pytest.raises(ValueError, match="no key"):
        rng.undrawn(mx.random.uniform)
