"""The cost of several processes: the message of a step. The suite has the cost for one process, `--cases across`."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
from paired import note, paired

import mlx_fp as fp
from mlx_fp import nn, optim

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from processes import run  # the path above leads to it

WIDTHS, ROWS = (784, 768, 512, 10), 64
"""Widths of a perceptron with 1.0 million parameters, and rows of each process."""


def loss(model, x, y):
    return nn.losses.cross_entropy(model(x), y, reduction="mean")


def stepper(world):
    """Return a function that takes a step of its own state and waits for it."""
    layers = [layer for i, o in pairwise(WIDTHS) for layer in (nn.linear(i, o), nn.relu)]
    step = fp.train_step(nn.sequential(*layers[:-1]), loss, optim.adamw(1e-3), across=world)
    batch = mx.random.normal((ROWS, WIDTHS[0]), key=mx.random.key(0)), mx.zeros((ROWS,), mx.int32)
    state = list(step.init(0))

    def take():
        state[0], state[1], logs = step(*state, batch)
        mx.eval(state, logs)

    return take


def exchange(turns=60, calls=5):
    """Within one of several processes, compare a step that sends its message with a step that sends none."""
    world = fp.world()
    alone, together = stepper(fp.World()), stepper(world)
    functions = {"alone": alone, "across": together}
    for _ in range(20):
        alone(), together()
    taken = {name: [] for name in functions}
    for _ in range(turns):
        for name, function in functions.items():
            mx.eval(world.sum(mx.zeros((1,))))  # all processes begin a turn at the same time
            taken[name] += paired({name: function}, turns=1, calls=calls, warm_up=0)[name]
    return taken


def test_message_of_a_step(benchmark, tmp_path):
    """Two processes on this machine, which share its cores."""
    taken, _ = run(Path(__file__), 2, tmp_path)
    benchmark.pedantic(lambda: None)
    note(benchmark, taken, "alone")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(json.dumps(exchange()))
