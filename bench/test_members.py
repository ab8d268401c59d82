"""Compare one step of K members with K separate steps of this library, over models and numbers of members.

The suite compares one of them with compiled steps of MLX: `python -m suite --cases members`.
"""

import mlx.core as mx
import mlx.nn as mlx_nn
import pytest
from models import MLP, cross_entropy
from paired import note, paired
from suite.pairs import stepping

import mlx_fp as fp
from mlx_fp import nn, optim

SIZES = (2, 8, 32)


class Encoder(mlx_nn.Module):
    """A transformer of width 32 with 2 layers, on sequences of 16."""

    def __init__(self):
        super().__init__()
        self.blocks = mlx_nn.TransformerEncoder(2, 32, 4, mlp_dims=64)
        self.head = mlx_nn.Linear(32, 8)

    def __call__(self, x):
        return self.head(self.blocks(x, None).mean(axis=1))


class Recurrent(mlx_nn.Module):
    """An LSTM of width 16, on sequences of 16."""

    def __init__(self):
        super().__init__()
        self.cells, self.head = mlx_nn.LSTM(8, 16), mlx_nn.Linear(16, 8)

    def __call__(self, x):
        return self.head(self.cells(x)[0][:, -1])


def _labelled(*shape):
    x = mx.random.normal(shape, key=mx.random.key(0))
    return x, mx.random.randint(0, 8, (shape[0],), key=mx.random.key(1))


CASES = {
    "tiny_mlp": (lambda: MLP(8, 8, 8, 8, 8), _labelled(32, 8), 20),
    "transformer_32": (Encoder, _labelled(4, 16, 32), 2),
    "transformer_32_large": (Encoder, _labelled(16, 16, 32), 2),
    "lstm_16": (Recurrent, _labelled(16, 16, 8), 2),
    "mlp_784_256_10": (lambda: MLP(784, 256, 10), _labelled(64, 784), 2),
}


def _carried(step, params, opt_state, batch):
    """Return a function that takes a step in the form of the device, as `fit` does."""
    state = [step.carry(params, opt_state)]

    def run():
        state[0], logged = step.advance(state[0], (batch,))
        mx.eval(state[0].arrays, logged[0][0])

    return run


def _in_turn(functions):
    def run():
        for each in functions:
            each()

    return run


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_members(benchmark, name, size):
    make, batch, calls = CASES[name]
    step = fp.train_step(nn.lift(make), lambda model, x, y: cross_entropy(model(x), y), optim.adamw(1e-3))
    many = fp.members(size)(step)
    functions = {
        "separate": _in_turn([stepping(step, *step.init(seed), batch) for seed in range(size)]),
        "packed": _in_turn([_carried(step, *step.init(seed), batch) for seed in range(size)]),
        "members": stepping(many, *many.init(0), batch),
    }
    note(benchmark, paired(functions, turns=30, calls=max(1, calls // size), warm_up=3), "separate")
    benchmark.pedantic(functions["members"], rounds=5, iterations=calls)
