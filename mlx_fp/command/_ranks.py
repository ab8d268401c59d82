"""Run a command in several processes of this machine, which MLX's ring joins on the loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

__all__ = ["start_ranks"]

_PATIENCE = 30.0
"""The seconds after which processes that outlive a failed one are ended."""

_POLL = 0.02

Process = subprocess.Popen[bytes]


def start_ranks(count: int, command: Sequence[str]) -> int:
    """Run a command in several processes, and return one exit status.

    Ctrl-C and SIGTERM reach each process once. `mlx.launch` returns 0 when a process fails, and this function does not.

    Args:
        count: The number of processes.
        command: The program and its words.

    Returns:
        0 where no process failed. 128 + n for a process that signal n killed, else the status of one that failed.
    """
    with TemporaryDirectory(prefix="mlx-fp-") as folder:
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(count)]), encoding="utf-8")
        processes: list[Process] = []
        with _signals_passed_to(processes):
            try:
                for rank in range(count):
                    environment = {**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)}
                    processes.append(_started(command, environment))
                return _status_of_all(processes)
            finally:
                for process in processes:
                    _end(process)


def _started(command: Sequence[str], environment: dict[str, str]) -> Process:
    """Start a process in a session of its own: the terminal would send it Ctrl-C a second time."""
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)


def _status_of_all(processes: Sequence[Process]) -> int:
    """Wait for all processes, and return one status. After a failure the others get some time to end."""
    deadline = float("inf")
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        if deadline == float("inf") and _failure(processes):
            deadline = time.monotonic() + _PATIENCE
        time.sleep(_POLL)
    return _failure(processes)


def _failure(processes: Sequence[Process]) -> int:
    """Return the status of a process that has failed, 0 where none has.

    A process that was killed made the others fail. One that another made fail has status 1, the least.
    """
    statuses = [process.returncode for process in processes if process.returncode]
    least = min(statuses, default=0)
    return 128 - least if least < 0 else max(statuses, default=0)


def _end(process: Process) -> None:
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE / 3)
    if process.poll() is None:
        process.kill()
    process.wait()


@contextmanager
def _signals_passed_to(processes: Sequence[Process]) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM go to the processes, which end after the same step."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _free_ports(count: int) -> list[int]:
    """Return ports of the loopback that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
