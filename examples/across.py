"""Train one model in several processes: `mlx.launch -n 2 python examples/across.py [FOLDER]`.

By itself the program runs in one process. Rank 0 writes the checkpoints and prints. The program resumes the run of the
folder, also with another number of processes.
"""

import sys

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe


def main(folder="runs/across"):
    world = fp.world()
    x = mx.random.normal((600, 8), key=mx.random.key(0))
    y = (x[:, 0] * x[:, 1] > 0).astype(mx.int32)
    train = pipe(data.arrays(x=x[:500], y=y[:500]), data.shuffle(seed=1), data.batch(48))
    held_out = pipe(data.arrays(x=x[500:], y=y[500:]), data.batch(50))
    optimizer = pipe(optim.adamw(1e-2), optim.sharded(world), optim.clip_norm(1.0))
    trainer = pipe(
        fp.trainer(nn.sequential(nn.linear(8, 32), nn.relu, nn.linear(32, 2)), fp.classification()),
        fp.with_optimizer(optimizer),
        fp.checkpoints(f"{folder}/{{epoch}}"),
    )
    report = pipe(trainer, fp.fit(train, validation=held_out, epochs=30, across=world, resume="latest"))
    figures = pipe(trainer, fp.evaluate(held_out, params=report, across=world))
    if world.rank == 0:
        print(f"{world.size} processes, {report.rows[-1].steps} steps, accuracy {figures['accuracy']:.2f}")
    return figures


if __name__ == "__main__":
    main(*sys.argv[1:])
