"""Drive the loop yourself: read a run as a stream of events, and leave it when you like."""

from typing import Any

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

x = mx.random.normal((1_024, 8), key=mx.random.key(0))
y = (x[:, 0] * x[:, 1] > 0).astype(mx.int32)
train = pipe(data.arrays(x=x, y=y), data.shuffle(seed=1), data.batch(64))


def count(memory: int, event) -> tuple[int, fp.Stop | None]:
    """Count events. A fold passes its memory from event to event, and may return a directive such as `Stop`."""
    return memory + 1, fp.Stop("a hundred steps") if memory == 99 else None


def main() -> tuple[int, float]:
    trainer = pipe(
        fp.trainer(nn.sequential(nn.linear(8, 32), nn.relu, nn.linear(32, 2)), fp.classification()),
        fp.with_optimizer(pipe(optim.adam(1e-2), optim.clip_norm(1.0))),
        fp.with_hooks(fp.fold("after_step", 0, count)),
    )
    steps, loss = 0, float("inf")
    event: Any  # each kind of event has fields of its own
    for event in fp.events(train, epochs=50, only=("after_step", "after_epoch", "after_fit"))(trainer):
        if hasattr(event, "loss_value"):  # after a step
            steps, loss = event.step + 1, event.loss_value  # to read the loss waits for the device
        elif hasattr(event, "row"):  # after an epoch
            row = event.row
            print(f"epoch {row.epoch}: {row.steps} steps, loss {row.epoch_loss:.3f}, accuracy {row.accuracy:.3f}")
        else:  # after the run
            print(f"ended after {steps} steps: {event.report.stop_reason}")
    return steps, loss


if __name__ == "__main__":
    main()
