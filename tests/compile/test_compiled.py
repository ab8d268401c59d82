"""Compiled equals eager, whatever came before; traces are counted, and told when they keep coming."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
import pytest
from helpers import Pair, mse, python_process
from toolz import pipe

import mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.compile import _compiled as jit

needs_compiler = pytest.mark.skipif(
    not jit.available() and os.environ.get("MLX_FP_REQUIRE_MLX") != "1", reason="mx.compile compiles nothing here"
)
pytestmark = needs_compiler


class Couple(NamedTuple):
    left: object
    right: object


A, B = mx.array([1.0, 2.0]), mx.array([3.0, 4.0])

TREES = [
    A,
    [A, B],
    (A, B),
    Pair(A, B),
    Couple(A, B),
    [A, [B]],
    [[A, B]],
    [[A], B],
    [A, B, []],
    [A, B, {}],
    {"a": A, "b": B},
    {"a": [A], "b": [B]},
    {"a": [A], "b": (B,)},
    {"a": [A, B], "b": []},
    {"a": A, "b": 1},
    {"a": A, "b": True},
    {"a": A, "b": 1.0},
    {"a": A, "b": 0},
    {"a": A, "b": False},
    {"a": A, "b": 0.0},
    {"a": A, "b": None},
    {"a": A, "b": "1"},
    {"a": A, "b": {}},
]


def spelled(tree):
    if isinstance(tree, dict):
        return {key: spelled(child) for key, child in tree.items()}
    if isinstance(tree, (list, tuple)):
        return (type(tree), [spelled(child) for child in tree])
    return tree.tolist() if isinstance(tree, mx.array) else (type(tree), tree)


@pytest.mark.filterwarnings("ignore:the compiled")
@pytest.mark.parametrize("order", [1, -1], ids=["forwards", "backwards"])
def test_many_structures_through_one_function(order):
    """MLX's own cache does not tell most of these apart."""
    same = jit.compiled(lambda tree: tree, "tree")
    trees = TREES[::order]
    for _ in range(2):
        assert [spelled(same(tree)) for tree in trees] == [spelled(tree) for tree in trees]
    assert same.traces == len(TREES)


@pytest.mark.filterwarnings("ignore:the compiled")
def test_constants_that_python_calls_equal_compute_as_themselves():
    by = jit.compiled(lambda x, n: x * n, "x", "n")
    x = mx.array([1, 2])
    for _ in range(2):
        assert [by(x, n).dtype for n in (1, 1.0, True, 0.0, 0, False)] == [
            mx.int32, mx.float32, mx.int32, mx.float32, mx.int32, mx.int32
        ]  # fmt: skip
    assert by.traces == 6


def test_a_reordered_dict_does_not_retrace_and_comes_back_right():
    minus = jit.compiled(lambda tree: {"y": tree["a"] - tree["b"]["c"]}, "tree")
    assert minus({"a": B, "b": {"c": A, "d": A}})["y"].tolist() == [2.0, 2.0]
    assert minus({"b": {"d": B, "c": A}, "a": B})["y"].tolist() == [2.0, 2.0]
    assert minus.traces == 1


def test_one_trace_per_shape_and_dtype():
    double = jit.compiled(lambda x: x + x, "x")
    for shape in ((2,), (3,), (2,), (3,)):
        assert double(mx.ones(shape)).tolist() == [2.0] * shape[0]
    double(mx.ones((2,), mx.int32))
    double(mx.ones((2,), mx.int32))
    assert double.traces == 3


def test_the_layout_belongs_to_the_trace():
    """One structure of arguments, and a result whose structure depends on the shape."""
    parts = jit.compiled(lambda x: tuple(x[i] for i in range(x.shape[0])) if x.ndim else {"x": x}, "x")
    for _ in range(2):
        assert parts(mx.array(7))["x"].item() == 7
        assert [p.item() for p in parts(mx.array([1, 2]))] == [1, 2]
        assert [p.item() for p in parts(mx.array([1, 2, 3]))] == [1, 2, 3]


def each(run, values):
    for value in values:
        run(value)


CHANGES = {
    "shape": ([mx.zeros((n,)) for n in range(1, 7)], r"tree.x was float32\(4,\), is float32\(5,\)"),
    "dtype": (
        [mx.zeros((2,), d) for d in (mx.int8, mx.int16, mx.int32, mx.float16, mx.bfloat16, mx.float32)],
        r"tree.x was float16\(2,\), is bfloat16\(2,\)",
    ),
    "constant": (list(range(6)), "tree.x was 3, is 4"),
    "structure": (
        [[A], (A,), [A, A], (A, A), [A, A, A], {}],
        "tree.x was tuple of 2, is list of 3; tree.x.2 was absent",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_the_fifth_trace_warns_once_and_names_what_changed(what):
    values, words = CHANGES[what]
    run = jit.compiled(lambda tree: tree["one"], "tree", title="thing")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        each(run, [{"one": A, "x": value} for value in values[:4] * 2])
    with pytest.warns(RuntimeWarning, match=f"compiled thing was traced for the 5th time.*{words}.*[Pp]ad") as told:
        each(run, [{"one": A, "x": value} for value in values * 2])
    assert len(told) == 1
    assert run.traces == 6


def test_the_warning_points_at_the_call():
    run = jit.compiled(lambda x: x, "x")
    with pytest.warns(RuntimeWarning, match="5th") as told:
        each(run, [mx.zeros((n,)) for n in range(1, 6)])
    assert Path(told[0].filename).name == "test_compiled.py"


def test_a_numpy_leaf_is_named_first_or_later():
    run = jit.compiled(lambda params, batch: params, "params", "batch")
    for _ in range(2):
        with pytest.raises(TypeError, match=r"got ndarray at 'batch.x'"):
            run(A, {"x": np.zeros(2)})
        assert run(A, {"x": A}) is not None
    assert run.traces == 1


def test_a_result_that_is_no_tree_is_named():
    with pytest.raises(TypeError, match=r"got ndarray at 'result.y'"):
        jit.compiled(lambda x: {"y": np.zeros(2)}, "x")(A)


def test_an_exception_inside_leaves_function_arguments_and_results_usable():
    def picky(tree):
        tree["x"] = tree["x"] * 2
        if tree["x"].shape == (3,):
            raise ZeroDivisionError("three")
        return tree["x"]

    run = jit.compiled(picky, "tree")
    bad, good = {"x": mx.ones((3,))}, {"x": A}
    assert run(good).tolist() == [2.0, 4.0]
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="three"):
            run(bad)
    assert bad["x"].tolist() == [1.0] * 3
    assert good["x"].tolist() == [1.0, 2.0]
    assert run(good).tolist() == [2.0, 4.0]
    assert run.traces == 3


def test_arguments_are_not_changed_by_the_function():
    def grow(tree):
        tree["y"] = tree["x"]
        tree["x"] += 1
        return tree

    tree = {"x": mx.array(1)}
    assert {k: v.item() for k, v in jit.compiled(grow, "tree")(tree).items()}["x"] == 2
    assert list(tree) == ["x"]
    assert tree["x"].item() == 1


def test_uncompiled_and_with_options():
    calls = []
    plain = jit.compiled(lambda x: calls.append(1) or x, "x", compile=False)
    plain(A), plain(A)
    assert len(calls) == 2
    shapeless = jit.compiled(lambda x: x + x, "x", compile={"shapeless": True})
    assert [shapeless(mx.ones((n,))).shape for n in (2, 3)] == [(2,), (3,)]
    assert shapeless.traces == 1
    with pytest.raises(TypeError, match=r"compile is True, False or a mapping.*got 'yes'"):
        jit.compiled(lambda x: x, "x", compile="yes")


def test_gradients_and_maps_through_a_compiled_function():
    cube = jit.compiled(lambda tree: (tree["x"] ** 3).sum(), "tree")
    assert mx.grad(lambda x: cube({"x": x}))(A).tolist() == [3.0, 12.0]
    assert mx.vmap(lambda x: cube({"x": x}))(mx.stack([A, B])).tolist() == [9.0, 91.0]


def test_threads_share_a_compiled_function():
    add = jit.compiled(lambda tree: {"y": tree["x"] + 1, "n": 3}, "tree")
    found = []

    def work():
        found.extend(add({"x": mx.array(float(i))})["y"].item() for i in range(20))

    workers = [threading.Thread(target=work) for _ in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the arguments do not change: threads are no reason to warn
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert sorted(found) == sorted([i + 1.0 for i in range(20)] * 3)
    assert add.traces <= 6  # MLX caches by thread, and traces up to twice in one


def test_threads_that_start_together_make_one_variant():
    run = jit.compiled(lambda tree: tree["0"], "tree")
    tree, start = {str(i): [A] for i in range(300)}, threading.Barrier(4)

    def work():
        start.wait()
        run(tree)

    workers = [threading.Thread(target=work) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    sys.setswitchinterval(before)
    assert len(run._variants) == 1


def test_two_kinds_of_batch_and_a_loaded_state_through_one_training_step():
    """A list, a tuple and another key order: right each, and no trace for the order."""
    step = fp.train_step(nn.linear(2, 1), mse, optim.adam(0.1))
    eager = fp.train_step(nn.linear(2, 1), mse, optim.adam(0.1), compile=False)
    params, state = step.init(0)
    x, y = mx.ones((4, 2)), mx.zeros((4, 1))
    expected = eager(params, state, (x, y))[0]["weight"]
    turned = {"bias": params["bias"], "weight": params["weight"]}
    for batch in ((x, y), [x, y], {"x": x, "y": y}, {"y": y, "x": x}):
        for given in (params, turned):
            new, _, _ = step(given, dict(reversed(state.items())), batch)
            assert mx.allclose(new["weight"], expected, rtol=1e-6)
    assert step.traces == 3


def without_compiler(code, **environment):
    done = python_process(code, PYTHONWARNINGS="always", **environment)
    return done.stdout, done.stderr


PROGRAM = """
import mlx.core as mx, mlx_fp as fp
from mlx_fp import nn, optim
from mlx_fp.compile import _compiled as jit
model = nn.sequential(nn.linear(2, 4), nn.dropout(0.5), nn.linear(4, 1))
loss = lambda m, x: (m(x) ** 2).mean()
steps = [fp.train_step(model, loss, optim.adam(0.1), compile=c) for c in (True, {}, False)]
fp.eval_step(model, loss)
ends = []
for step in steps:
    params, state = step.init(0)
    for _ in range(3):
        params, state, logs = step(params, state, mx.ones((3, 2)))
    ends.append([logs["loss"].item(), state["key"].tolist()])
print(jit.available(), ends[0] == ends[1] == ends[2], ends[0])
"""


@pytest.mark.parametrize("how", ["MLX_DISABLE_COMPILE", "PATH"])
@pytest.mark.usual("PATH")
def test_without_a_compiler_there_is_one_warning_and_the_results_are_right(how):
    if how == "PATH" and mx.default_device().type != mx.DeviceType.cpu:
        pytest.skip("g++ is MLX's compiler on CPUs only")
    out, err = without_compiler(PROGRAM, **{how: {"PATH": "/nonexistent"}.get(how, "1")})
    assert out.startswith("False True"), out
    assert err.count("RuntimeWarning") == 1, err
    assert "needs g++ on PATH" in err
    with_compiler, silence = without_compiler(PROGRAM)
    assert "RuntimeWarning" not in silence
    ours, theirs = (eval(text.split(" ", 2)[2]) for text in (out, with_compiler))
    assert ours[0] == pytest.approx(theirs[0], rel=1e-5)
    assert ours[1] == theirs[1]


@pytest.mark.filterwarnings("ignore:the compiled")
def test_swapping_constants_in_the_state_of_a_step_is_told_apart():
    counted = jit.compiled(lambda state: {"x": state["x"] * state["by"], "by": state["by"]}, "state")
    states = [{"x": A, "by": by} for by in (2, 2.0, mx.array(2.0), True)]
    for state in states * 2:
        new = pipe(state, counted)
        assert type(new["by"]) is type(state["by"])
        assert new["x"].tolist() == [1.0 * float(state["by"]), 2.0 * float(state["by"])]
