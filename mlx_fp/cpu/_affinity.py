"""Run MLX's CPU thread on the core of the thread that feeds it. Small models become much faster, on Linux.

MLX runs every operation in a thread of its own, the worker. On two cores the two threads wake each other, and compete
for locks and memory. For small arrays that takes longer than the computation. On one core the threads take turns: the
feeding thread runs until it waits for a result, and then the worker computes all queued operations at once.

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
"""The cores that each thread now in `one_core` was allowed to use before."""


@contextmanager
def one_core() -> Iterator[None]:
    """Run the calling thread and MLX's worker thread on one core, until the context ends.

    Use it for models with a step of a few milliseconds or less, on Linux CPUs. For example, on an Intel Xeon a step of
    100 layers of 8 × 8 took 0.56 of its time. On other systems, and with a GPU as MLX's device, it does nothing. If the
    system refuses, a RuntimeWarning gives the reason. Threads and processes that you start within the context stay on
    the core. Prefetching and the writing of checkpoints use all cores.

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
                undo.push(_share_core())
            except OSError as error:
                warnings.warn(f"one_core() has no effect: {error}", RuntimeWarning, stacklevel=3)
        yield


def restore_affinity() -> None:
    """Let the calling thread, which was started within `one_core`, use all cores that were allowed before it."""
    for mask in _masks[:1]:
        with suppress(OSError):
            os.sched_setaffinity(0, mask)


def _share_core() -> ExitStack:
    """Move the calling thread and the worker to the current core; return the stack that undoes it.

    OSError, and nothing is changed, if the system refuses or the worker cannot be identified.
    """
    mask, worker = os.sched_getaffinity(0), _worker()
    core = int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[36])
    with ExitStack() as undo:
        undo.callback(_place, os.getpid(), worker, os.sched_getaffinity(worker), os.sched_getscheduler(worker))
        os.sched_setaffinity(worker, {core})
        os.sched_setscheduler(worker, os.SCHED_BATCH, os.sched_param(0))  # a batch thread does not preempt at wake-up
        undo.callback(os.sched_setaffinity, 0, mask)
        os.sched_setaffinity(0, {core})
        _masks.append(mask)
        undo.callback(_masks.remove, mask)
        return undo.pop_all()


def _place(process: int, thread: int, mask: set[int], policy: int) -> None:
    """Restore the cores and the policy of a thread, unless the thread has ended or this process is a fork."""
    if os.getpid() == process:
        with suppress(OSError):
            os.sched_setaffinity(thread, mask)
            os.sched_setscheduler(thread, policy, os.sched_param(0))


def _worker() -> int:
    """Return the thread in which MLX computes for the calling thread.

    MLX does not name it. It wakes when an operation is queued, and at no other time.
    """
    from ..core._mlx import mx

    woken = Counter[int]()
    for number in range(60):
        pause = 0.001 + number * 0.0001  # on a busy machine the worker takes longer to go back to sleep
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
    raise OSError("MLX's thread cannot be told from the other threads of the process")


def _sleeps() -> dict[int, int]:
    """Count how often each other thread of the process has gone to sleep."""
    counts = {}
    for thread in map(int, os.listdir(_THREADS)):
        with suppress(OSError, IndexError):  # the thread has ended, or this system does not count
            status = (_THREADS / str(thread) / "status").read_text()
            counts[thread] = int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    counts.pop(threading.get_native_id(), None)
    return counts
