"""Divide the weights of a model among processes: `mlx.launch -n 2 python examples/tensor_parallel.py`.

MLX's sharded layers do it. The first layer is divided by outputs, the second by inputs, so each process has half of
both weights, and one
message per call joins their results. Every process reads the same batch.
"""

import mlx.core as mx
import mlx.nn as mlx_nn
from mlx.nn.layers.distributed import shard_linear

import mlx_fp as fp
from mlx_fp import nn, pipe


def main():
    world = fp.world()
    mx.random.seed(3)
    first, second = mlx_nn.Linear(16, 64), mlx_nn.Linear(64, 8)
    whole = nn.sequential(first, nn.relu, second)
    divided = nn.sequential(
        shard_linear(first, "all-to-sharded", group=world.group),
        nn.relu,
        shard_linear(second, "sharded-to-all", group=world.group),
    )
    x = mx.random.normal((32, 16), key=mx.random.key(1))
    same, parts = (pipe(model, fp.predict([x], params=model.init(mx.random.key(0)))) for model in (whole, divided))
    apart = mx.abs(same - parts).max().item()
    weight = fp.flat(divided.init(mx.random.key(0)))["layers.0.weight"]
    if world.rank == 0:
        print(f"{world.size} processes, weight {weight.shape} of (64, 16), outputs at most {apart:.1e} apart")
    return apart


if __name__ == "__main__":
    main()
