"""Worker processes, as their parent sees them: start them, ask them, and report why a worker did not answer."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
PATIENCE = 600.0
"""Seconds that a worker has to prepare a model, compilers included."""


class Failed(Exception):
    """A worker that did not answer, or answered with an error; the message is the reason."""


class Worker:
    """A process of a variant. `send` and `receive` are apart, so that several can prepare at the same time."""

    def __init__(self, variant, folder, threads, module="worker"):
        self.variant, self._errors = variant, tempfile.TemporaryFile("w+")  # noqa: SIM115  closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"suite.{module}", variant.module, variant.way, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
            env=environment(threads, variant.env),
            preexec_fn=pin(threads),
        )

    def send(self, **order):
        """Give an order. Raise Failed if the process has ended."""
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise Failed(self._reason()) from None

    def receive(self, patience=PATIENCE):
        """Wait for an answer. Raise Failed with the reason if there is none, or it is an error."""
        ready, _, _ = select.select([self._process.stdout], [], [], patience)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            if not ready:
                self._process.kill()
            raise Failed(self._reason() if ready else f"no answer within {patience:.0f} s")
        answer = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer

    def ask(self, **order):
        """Give an order and wait for its answer."""
        self.send(**order)
        return self.receive()

    @property
    def alive(self):
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self):
        """End the process: close its orders, and send a signal if it does not end by itself."""
        with suppress(OSError):  # an order that the process has not read
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _reason(self):
        """Return the last line of the process, or its exit status."""
        status = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        missing = next((line for line in reversed(lines) if line.startswith("ModuleNotFoundError")), None)
        if missing:
            return "not installed: " + missing.rpartition("named ")[2].strip("'\"")
        return f"ended with status {status}: {lines[-1] if lines else 'without a word'}"


class Pool:
    """The workers of a run, one for each variant: started when they are needed, and started again after an end."""

    def __init__(self, variants, folder, threads):
        self.variants, self.versions = tuple(variants), {}
        self.named = {variant.name: variant for variant in variants}
        self._folder, self._threads = folder, threads
        self._workers, self._absent = {}, {}

    def worker(self, variant):
        """The worker of a variant. Raise Failed with the reason if it cannot be started."""
        if variant.name in self._absent:
            raise Failed(self._absent[variant.name])
        found = self._workers.get(variant.name)
        if found is None or not found.alive:
            found = self._workers[variant.name] = Worker(variant, self._folder, self._threads)
            try:
                self.versions |= found.receive()["versions"]
            except Failed as failed:
                self._absent[variant.name] = str(failed)
                raise
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for worker in self._workers.values():
            worker.stop()


def environment(threads, more=()):
    """The environment of a worker: the same number of threads for every framework."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCH), str(BENCH.parent)])}
    for name in ("MLX_FP_JIT", "OPENBLAS_THREAD_TIMEOUT"):
        env.pop(name, None)
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NPROC")
    return env | dict.fromkeys(counts, str(threads)) | dict(more)


def pin(threads):
    """Return a function that binds its process to so many CPUs, or None if the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    return lambda: os.sched_setaffinity(0, cpus)


def usual_threads():
    """Two threads, or one where there is one CPU."""
    return min(2, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
