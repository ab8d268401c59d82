"""Several processes of one command: one status, each signal once, and no process that stays."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time

import pytest

from mlx_fp.command import _ranks
from mlx_fp.command._ranks import start_ranks


def ranks(code, *words, count=3):
    """Run code in processes; `rank` is the rank of each."""
    program = f"import json, os, signal, sys, time\nrank = int(os.environ['MLX_RANK'])\n{code}"
    return start_ranks(count, [sys.executable, "-c", program, *map(str, words)])


def test_each_process_knows_its_rank_and_the_addresses_of_all(tmp_path):
    code = "hosts = json.load(open(os.environ['MLX_HOSTFILE']))\n"
    code += "json.dump(hosts, open(f'{sys.argv[1]}/{rank}', 'w'))"
    assert ranks(code, tmp_path) == 0
    hosts = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert hosts[0] == hosts[1] == hosts[2]
    assert len({address for (address,) in hosts[0]}) == 3


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("sys.exit(4 if rank == 1 else 0)", 4),
        ("os.kill(os.getpid(), 9) if rank == 2 else sys.exit(1)", 137),
        ("sys.exit(143)", 143),
        ("sys.exit(2 if rank == 0 else 1)", 2),
    ],
    ids=["error", "killed", "signal", "refused"],
)
def test_the_status_is_that_of_a_process_that_failed(code, status):
    assert ranks(code) == status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_each_process_once(tmp_path, number):
    code = "seen = []\nsignal.signal(int(sys.argv[2]), lambda number, frame: seen.append(number))\n"
    code += "open(f'{sys.argv[1]}/{rank}', 'w').close()\nend = time.monotonic() + 30\n"
    code += "while not seen and time.monotonic() < end: time.sleep(0.01)\ntime.sleep(0.1)\nsys.exit(100 + len(seen))"

    def send():
        while len(list(tmp_path.iterdir())) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    sender = threading.Thread(target=send)
    sender.start()
    assert ranks(code, tmp_path, int(number)) == 101
    sender.join()
    assert signal.getsignal(number) is before


def test_a_process_that_outlives_a_failed_one_is_ended(monkeypatch):
    monkeypatch.setattr(_ranks, "_PATIENCE", 0.3)
    started = time.monotonic()
    code = "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nrank == 0 and sys.exit(3)\ntime.sleep(60)"
    assert ranks(code) == 3
    assert time.monotonic() - started < 30
