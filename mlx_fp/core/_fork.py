"""A fork of a process in which MLX has computed: the threads of MLX are missing there, and an array waits for ever."""

from __future__ import annotations

import os

__all__ = ["check_process"]

_computed, _forked = False, False


def check_process() -> None:
    """Note that this process computes. RuntimeError in a fork of a process that had computed."""
    global _computed
    if _forked:
        raise RuntimeError(
            "this process is a fork of one in which MLX has computed, and its first array would wait for ever: start "
            "processes with multiprocessing.get_context('spawn')"
        )
    _computed = True


def _after_fork() -> None:
    global _forked
    _forked = _computed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
