"""Have MLX's CPU thread share a core with the thread that feeds it: much faster for small models, on Linux.

MLX hands every operation to a thread of its own. On two cores the threads wake each other and fight over locks and
memory, which for small arrays takes longer than to compute them. On one core they take turns: the feeding thread goes
on until it waits for a result, and then what it has queued is computed in one go.

Source: `sched_setaffinity(2)`; `sched(7)` on SCHED_BATCH; `proc(5)` on /proc/thread-self/stat and status.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

__all__ = ["one_core", "restore_affinity"]

_THREADS = Path("/proc/self/task")
_masks: list[set[int]] = []
"""The cores that the threads now on one core had before."""


@contextmanager
def one_core() -> Iterator[None]:
    """Within, the calling thread and the one in which MLX computes for it share a core; afterwards all is as before.

    For models of which a step takes a few milliseconds at most, on Linux CPUs. Elsewhere, and with a GPU as MLX's
    device, it does nothing. Where the system refuses, a RuntimeWarning says why. Threads and processes that you start
    within stay on the core; prefetching and the writing of checkpoints use all.

    >>> from mlx_fp.core._mlx import mx
    >>> double = mx.compile(lambda x: x * 2)
    >>> with one_core():
    ...     double(mx.array(4)).item()
    8
    """
    from ..core._mlx import on_cpu

    with ExitStack() as undo:
        if on_cpu() and hasattr(os, "sched_setaffinity") and _THREADS.is_dir():
            try:
                undo.push(_together())
            except OSError as error:
                warnings.warn(f"one_core() has no effect: {error}", RuntimeWarning, stacklevel=3)
        yield


def restore_affinity() -> None:
    """Let the calling thread, started within `one_core`, use the cores that there were before."""
    for mask in _masks[:1]:
        with suppress(OSError):
            os.sched_setaffinity(0, mask)


def _together() -> ExitStack:
    """Put both threads on the core at hand; return what undoes it. OSError, and nothing done, where that cannot be."""
    mask, worker = os.sched_getaffinity(0), _worker()
    core = int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[36])
    with ExitStack() as undo:
        undo.callback(_place, os.getpid(), worker, os.sched_getaffinity(worker), os.sched_getscheduler(worker))
        os.sched_setaffinity(worker, {core})
        os.sched_setscheduler(worker, os.SCHED_BATCH, os.sched_param(0))  # it does not cut in as it is woken
        undo.callback(os.sched_setaffinity, 0, mask)
        os.sched_setaffinity(0, {core})
        _masks.append(mask)
        undo.callback(_masks.remove, mask)
        return undo.pop_all()


def _place(process: int, thread: int, mask: set[int], policy: int) -> None:
    """Put a thread of this process, unless this is a fork of its process or it has ended, where it was."""
    if os.getpid() == process:
        with suppress(OSError):
            os.sched_setaffinity(thread, mask)
            os.sched_setscheduler(thread, policy, os.sched_param(0))


def _worker() -> int:
    """Return the thread in which MLX computes for the calling one: it wakes for an operation, and only then."""
    from ..core._mlx import mx

    woken = Counter[int]()
    for number in range(60):
        pause = 0.001 + number * 0.0001  # on a busy machine it takes longer to go to sleep again
        before = _sleeps()
        mx.eval(mx.zeros(()) + 1)
        time.sleep(pause)
        after = _sleeps()
        time.sleep(pause)
        later = _sleeps()
        woken.update(thread for thread in after if after[thread] != before.get(thread))
        woken.subtract(thread for thread in later if later[thread] != after.get(thread))
        (thread, count), (_, next_best) = [*woken.most_common(2), (0, 0), (0, 0)][:2]
        if count >= 3 * (1 + max(next_best, 0)):
            return thread
    raise OSError("MLX's thread cannot be told from others")


def _sleeps() -> dict[int, int]:
    """Count how often each other thread of the process has gone to sleep."""
    found = {}
    for thread in map(int, os.listdir(_THREADS)):
        with suppress(OSError, IndexError):  # it has ended, or this system does not count
            status = (_THREADS / str(thread) / "status").read_text()
            found[thread] = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    found.pop(threading.get_native_id(), None)
    return found
