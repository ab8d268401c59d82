"""A fork of a process that has computed is told so; it would wait for ever at its first array."""

import os
import sys

import pytest
from helpers import run_python

CODE = """
import os, sys
import mlx.core as mx
import mlx_fp as fp
from mlx_fp import nn

def made():
    return fp.trainer(nn.linear(3, 1), lambda model, x: model(x).mean())

def fit():
    return fp.fit([mx.ones((2, 3))], quiet=True)(trainer or made())

trainer = None
if sys.argv[1:] == ["computed"]:
    trainer = made()
child = os.fork()
if not child:
    try:
        fit()
        print("trained", flush=True)
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="no fork, or one that MLX refuses")
@pytest.mark.parametrize(("before", "words"), [("computed", "get_context('spawn')"), ("", "trained")])
@pytest.mark.usual("-trained")
def test_a_fork_after_the_first_run_is_refused(before, words):
    assert words in run_python(CODE, *filter(None, [before]), timeout=60)
