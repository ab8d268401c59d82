"""An evaluation continues after a kernel that was not built, and every other error is raised at once."""

import mlx.core as mx
import pytest

from mlx_fp.compile._evaluation import queue, wait_for

UNBUILT = "[Compile::eval_cpu] Failed to compile function Abs: Failed to execute command with return code 130"
UNLOADED = "Could not load C++ shared library kernel.so"


@pytest.fixture(params=[(wait_for, "eval"), (queue, "async_eval")], ids=["wait_for", "queue"])
def failing(request, monkeypatch):
    """Let the evaluations of MLX raise errors, each once; return the function under test and the calls so far."""
    function, name = request.param
    evaluate, calls, errors = getattr(mx, name), [], []

    def fails(*trees):
        calls.append(trees)
        if errors:
            raise RuntimeError(errors.pop(0))
        evaluate(*trees)

    monkeypatch.setattr(mx, name, fails)
    return function, calls, errors


@pytest.mark.parametrize("message", [UNBUILT, UNLOADED])
def test_an_evaluation_continues_after_a_kernel_that_was_not_built(failing, message):
    function, calls, errors = failing
    errors.append(message)
    x = mx.array(1.0) + 1
    function({"x": x})
    assert (len(calls), x.item()) == (2, 2.0)


@pytest.mark.parametrize("messages", [[UNBUILT, UNBUILT], ["[matmul] shapes do not fit"]], ids=str)
def test_another_error_and_a_second_one_are_raised(failing, messages):
    function, calls, errors = failing
    errors += messages
    with pytest.raises(RuntimeError) as raised:
        function(mx.array(1.0) + 1)
    assert str(raised.value) == messages[-1]
    assert len(calls) == len(messages)
