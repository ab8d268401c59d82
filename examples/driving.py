"""Own the loop: take the run as a stream of events, look at each, go on or leave."""

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

x = mx.random.normal((1_024, 8), key=mx.random.key(0))
y = (x[:, 0] * x[:, 1] > 0).astype(mx.int32)
train = pipe(data.arrays(x=x, y=y), data.shuffle(seed=1), data.batch(64))


def count(memory: int, event) -> tuple[int, fp.Stop | None]:
    """A fold: its memory goes from event to event, and it may ask for things."""
    return memory + 1, fp.Stop("a hundred steps") if memory == 99 else None


def main() -> tuple[int, float]:
    trainer = pipe(
        fp.trainer(nn.sequential(nn.linear(8, 32), nn.relu, nn.linear(32, 2)), fp.classification()),
        fp.with_optimizer(pipe(optim.adam(1e-2), optim.clip_norm(1.0))),
        fp.with_hooks(fp.fold("after_step", 0, count)),
    )
    steps, loss = 0, float("inf")
    for event in fp.events(train, epochs=50, only=("after_step", "after_epoch", "after_fit"))(trainer):
        match event:
            case fp.Event(step=step) if hasattr(event, "loss_value"):
                steps, loss = step + 1, event.loss_value  # reading waits for the device
            case fp.Event(row=row):
                print(f"epoch {row.epoch}: {row.steps} steps, loss {row.epoch_loss:.3f}, accuracy {row.accuracy:.3f}")
            case fp.Event(report=report):
                print(f"ended after {steps} steps: {report.stop_reason}")
    return steps, loss


if __name__ == "__main__":
    main()
