"""Run a program in several processes on this machine, joined by MLX's ring on the loopback, with a limit of time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 120
"""Seconds after which the processes are killed."""


def start(program, ranks, folder, *arguments):
    """Start `program` in `ranks` processes. A list of the hosts is written into `folder`."""
    hosts = folder / f"hosts-{ranks}-{time.monotonic_ns()}.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(ranks)]))
    started = []
    for rank in range(ranks):
        launched = {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)} if ranks > 1 else {}
        environment = {**os.environ, **launched, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        command = [sys.executable, "-W", "ignore", str(program), *map(str, arguments)]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
    return started


def wait_until_ready(folder, started):
    """Wait until each process has touched its file in the folder."""
    deadline = time.monotonic() + LIMIT / 2
    while len(list(folder.glob("ready-*"))) < len(started) and time.monotonic() < deadline:
        time.sleep(0.01)


def finish(started):
    """Wait for processes, and end those that hang. Return `(exit status, output, errors)` of each."""
    deadline, results = time.monotonic() + LIMIT, []
    try:
        for process in started:
            out, err = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
            results.append((process.returncode, out.decode(), err.decode()))
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
                process.wait()
    return results


def run(program, ranks, folder, *arguments):
    """Run `program` in processes, of which each prints one JSON value. Return the values by rank."""
    results = finish(start(program, ranks, folder, *arguments))
    assert all(status == 0 for status, _, _ in results), results
    return [json.loads(out.splitlines()[-1]) for _, out, _ in results]


def _free_ports(count):
    """Return ports that are free now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
