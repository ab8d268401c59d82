"""Use a training step without a trainer: a pure compiled function, in a loop of your own."""

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

model = nn.sequential(nn.linear(16, 64), nn.gelu, nn.dropout(0.1), nn.linear(64, 1))


def loss(model, x, y):
    """Return the loss and a figure to log. `model` is bound to the parameters, random stream and mode of the step."""
    error = model(x) - y
    return error.square().mean(), {"mae": error.abs().mean()}


optimizer = pipe(
    optim.adamw(optim.join_schedules([optim.linear_schedule(0, 1e-2, 20), optim.cosine_decay(1e-2, 180)], [20])),
    optim.clip_norm(1.0),
    optim.skip_nonfinite(),
)


def main() -> float:
    x = mx.random.normal((1024, 16), key=mx.random.key(0))
    y = mx.sin(x[:, :2].sum(axis=1, keepdims=True))
    batches = pipe(data.arrays(x=x, y=y), data.shuffle(seed=0), data.batch(64))

    step = fp.train_step(model, loss, optimizer)
    params, opt_state = step.init(0)
    losses = []
    for epoch in range(12):
        for batch in batches.open(data.Cursor(epoch)):
            params, opt_state, logs = step(params, opt_state, batch)
            losses.append(logs["loss"])
        rate, norm = (optim.reading(name)(opt_state) for name in ("learning_rate", "grad_norm"))
        print(f"epoch {epoch:2}  loss {losses[-1].item():.4f}  rate {rate.item():.5f}  norm {norm.item():.3f}")
    print(f"{step.traces} trace, {optim.reading('skipped')(opt_state).item()} steps skipped")
    return losses[-1].item()


if __name__ == "__main__":
    main()
