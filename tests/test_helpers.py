"""The helpers see what they are there to see: leaves that changed places, other dtypes, lost numbers, failures."""

from __future__ import annotations

from types import SimpleNamespace

import mlx.core as mx
import numpy as np
import pytest
from helpers import assert_close, assert_same_bits, assert_same_run, bits, changed, python_process, run_call, run_python

ONE, TWO = mx.array([1.0, 2.0]), mx.array([2.0, 1.0])
OTHER = {
    "leaves that changed places": ({"a": ONE, "b": TWO}, {"a": TWO, "b": ONE}),
    "leaves in another order": ({"a": ONE, "b": TWO}, {"b": TWO, "a": ONE}),
    "another name": ({"a": ONE}, {"b": ONE}),
    "a leaf too many": ([ONE], [ONE, TWO]),
    "another dtype": ([ONE], [ONE.astype(mx.float16)]),
    "another shape": ([ONE], [ONE.reshape(2, 1)]),
    "one number for several": ([mx.ones((2,))], [mx.array(1.0)]),
    "NumPy's array": ([ONE], [np.array(ONE)]),
    "NaN": ([mx.array(mx.nan)], [mx.array(mx.nan)]),
    "an integer next to it": ([mx.array(10**8)], [mx.array(10**8 + 1)]),
}


@pytest.mark.parametrize("name", OTHER)
def test_trees_that_differ_are_neither_same_nor_close(name):
    for check in (assert_same_bits, assert_close):
        with pytest.raises(AssertionError):
            check(*OTHER[name])


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16, mx.int8, mx.bool_, mx.complex64, mx.uint32])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_a_tree_is_the_same_as_its_like(dtype, shape):
    one, other = ({"a": [mx.ones(shape, dtype)], "b": (mx.zeros(shape, dtype),)} for _ in range(2))
    assert_same_bits(one, other)
    assert_close(one, other)
    assert bits(one) == bits(other)
    assert changed(one, other) == set()


def test_bits_are_those_of_the_numbers_and_the_path_is_told():
    assert bits({"a": mx.array([1, 258], mx.int16).reshape(1, 2)}) == {"a": ("mlx.core.int16", (1, 2), b"\1\0\2\1")}
    assert bits(mx.arange(6).reshape(2, 3).T)[""][2] == np.array([0, 3, 1, 4, 2, 5], np.int32).tobytes()
    assert bits([mx.array(0.0)]) != bits([mx.array(-0.0)])
    assert changed({"a": ONE, "b": TWO}, {"a": ONE, "b": ONE}) == {"b"}
    for check in (assert_same_bits, assert_close):
        with pytest.raises(AssertionError, match="body.1"):
            check({"body": [ONE, TWO]}, {"body": [ONE, ONE]})


def test_rounding_is_close_and_not_the_same():
    one, other = [mx.array(1.0), mx.array(1.0, mx.bfloat16)], [mx.array(1.000001), mx.array(1.0, mx.bfloat16)]
    assert_close(one, other)
    with pytest.raises(AssertionError):
        assert_same_bits(one, other)
    with pytest.raises(AssertionError):
        assert_close(one, other, rtol=1e-8, atol=0)
    assert_same_bits([mx.array(mx.nan)], [mx.array(mx.nan)], nan=True)


RUN = {
    "params": {"w": ONE},
    "opt_state": {"step": mx.array(1)},
    "rows": (),
    "losses": (1.0,),
    "best_value": 1.0,
    "best_epoch": 0,
    "epochs_completed": 1,
    "stopped_early": False,
    "stop_reason": None,
}
ANOTHER = {"params": {"w": TWO}, "opt_state": {}, "losses": (2.0,), "best_epoch": 1, "stop_reason": "no"}


@pytest.mark.parametrize("name", ANOTHER)
def test_runs_that_differ_are_not_the_same(name):
    one, other = SimpleNamespace(**RUN), SimpleNamespace(**{**RUN, name: ANOTHER[name]})
    assert_same_run(one, SimpleNamespace(**RUN))
    with pytest.raises(AssertionError, match=name.removeprefix("opt_")):
        assert_same_run(one, other)


def printed(word):
    """What the test below calls in another process."""
    print(word, __name__)


def test_a_process_has_package_helpers_arguments_and_environment():
    code = "import os, sys, helpers, mlx_fp; print(sys.argv[1:], os.environ.get('ONE'), os.environ.get('HOME'))"
    assert run_python(code, "a", "b", ONE="1", HOME=None) == "['a', 'b'] 1 None\n"
    assert run_call(__file__, "printed('this')") == "this test_helpers\n"
    assert run_python("import os; print(os.environ['TWO'])", within=("env", "TWO=2")) == "2\n"
    assert python_process("import sys; print('told', file=sys.stderr)").stderr == "told\n"


def test_a_process_that_fails_is_an_error_with_what_it_wrote():
    with pytest.raises(AssertionError, match=r"ended with 1:\nbefore\n(.|\n)*ZeroDivisionError"):
        run_python("print('before'); 1 / 0")
