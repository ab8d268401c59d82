"""Functions with a derivative of their own, and the context in which they are plain functions."""

import mlx.core as mx
import pytest
from helpers import ROOT

from mlx_fp.core._exporting import custom_function, exporting, is_exporting
from mlx_fp.core.backend import PLAIN, device_backend

wrong = custom_function(lambda x: x * x, lambda primals, cotangents, outputs: 0 * cotangents)
"""A square whose derivative is zero."""


def test_a_custom_derivative_steps_aside_within_an_export():
    derivative = mx.grad(wrong)
    assert [fn(mx.array(3.0)).item() for fn in (derivative, exporting(derivative), derivative)] == [0, 6, 0]


def test_a_plain_function_replaces_the_forward_one():
    function = custom_function(lambda x: x, lambda primals, cotangents, outputs: cotangents, plain=lambda x: 2 * x)
    assert [fn(mx.array(3.0)).item() for fn in (function, exporting(function))] == [3, 6]


def test_the_context_ends_with_the_call_also_after_an_error():
    def fail():
        assert is_exporting()
        assert device_backend() is PLAIN
        raise KeyError("x")

    with pytest.raises(KeyError):
        exporting(fail)()
    assert not is_exporting()


def test_custom_functions_are_made_in_one_place():
    made = ("mx.custom_function(", "mx.checkpoint(")
    files = [path for path in (ROOT / "mlx_fp").rglob("*.py") if any(f"{call}" in path.read_text() for call in made)]
    assert [path.name for path in files] == ["_exporting.py"]
