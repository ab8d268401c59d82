"""A traceback that leaves the library keeps the frames of users, and its first and last frame."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from traceback import extract_tb

import pytest

from mlx_fp.core import _traceback
from mlx_fp.core._traceback import ShortTraceback, shorten

FILES = {
    "library": f"{_traceback._PACKAGE}loop/_made.py",
    "user": "/home/user/train.py",
    "toolz": "/site-packages/toolz/functoolz.py",
    "mlx.nn.layers.linear": "/site-packages/mlx/nn/layers/linear.py",
}


def calling(module, fn=None):
    """Return a function of a module that calls another, or raises KeyError."""
    body = "return fn()" if fn else "raise KeyError('x')"
    code = compile(f"def {module.replace('.', '_')}():\n    {body}\n", FILES[module], "exec")
    scope = {"fn": fn, "__name__": module}
    exec(code, scope)
    return scope[module.replace(".", "_")]


def names_after(*modules):
    """Return the names of the frames that stay where modules call one another and the last raises."""
    fn = None
    for module in reversed(modules):
        fn = calling(module, fn)
    with pytest.raises(KeyError) as caught:
        fn()
    error = caught.value.with_traceback(caught.value.__traceback__.tb_next)  # without the frame of this test
    shorten(error)
    return [frame.name for frame in extract_tb(error.__traceback__)]


@pytest.mark.parametrize(
    ("frames", "stay"),
    [
        ("library library library library", "library library"),
        ("library library user library library user library", "library user user library"),
        ("library library user", "library user"),
        ("library toolz library user user", "library user user"),
        ("library user toolz user library", "library user toolz user library"),
        ("user toolz library library user", "user toolz user"),
        ("library user mlx.nn.layers.linear", "library user mlx_nn_layers_linear"),
        ("library library", "library library"),
        ("library", "library"),
    ],
)
def test_the_first_frame_the_last_and_every_frame_of_a_user_stay(frames, stay):
    assert names_after(*frames.split()) == stay.split()


def test_the_variable_keeps_all_frames(monkeypatch):
    monkeypatch.setenv("MLX_FP_TRACEBACK", "full")
    assert names_after("library", "library", "user", "library") == ["library", "library", "user", "library"]


def test_an_error_keeps_class_message_notes_and_line():
    error = None
    try:
        with ShortTraceback():
            calling("library", calling("library", calling("user")))()
    except KeyError as caught:
        error = caught
        error.add_note("at batch=3")
        shorten(error)
    assert (str(error), error.__notes__) == ("'x'", ["at batch=3"])
    frames = extract_tb(error.__traceback__)
    assert [frame.name for frame in frames] == ["test_an_error_keeps_class_message_notes_and_line", "user"]
    assert frames[-1].lineno == 2


def test_the_errors_that_led_to_an_error_are_shortened_too():
    def wraps():
        try:
            calling("library", calling("library", calling("library", calling("user"))))()
        except KeyError as error:
            raise ValueError("y") from error

    with pytest.raises(ValueError, match="y") as caught, ShortTraceback():
        wraps()
    assert [frame.name for frame in extract_tb(caught.value.__cause__.__traceback__)] == ["wraps", "user"]


def test_an_error_that_is_its_own_context_ends():
    error, other = KeyError("x"), ValueError("y")
    error.__context__, other.__context__ = other, error
    shorten(error)
    assert error.__context__ is other


def test_context_managers_around_do_not_bring_frames_back():
    @contextmanager
    def around():
        yield

    with pytest.raises(KeyError) as caught, ShortTraceback(), around():
        calling("library", calling("library", calling("library", calling("user"))))()
    assert [frame.name for frame in extract_tb(caught.value.__traceback__)][-1] == "user"
    assert len(extract_tb(caught.value.__traceback__)) == 2


def test_without_an_error_nothing_happens():
    with ShortTraceback():
        pass
    assert sys.exc_info() == (None, None, None)
