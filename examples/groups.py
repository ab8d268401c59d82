"""Different optimisers for different parts, frozen parts, and a learning rate that changes during the run."""

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import nn, optim, pipe

model = nn.sequential(
    embed=nn.embedding(32, 16),
    body=nn.stack(2, lambda i: nn.residual(nn.linear(16, 16), nn.layer_norm(16), nn.gelu)),
    head=nn.linear(16, 4),
)

optimizer = optim.groups(
    (fp.matching(r"norm|bias$"), optim.adamw(1e-3, weight_decay=0.0)),  # the first match wins
    (fp.under("body"), pipe(optim.adamw(1e-3), optim.clip_value(0.5))),
    (fp.everything, optim.sgd(1e-1)),
)


def loss(model, tokens, labels):
    return nn.losses.cross_entropy(model(tokens).mean(axis=1), labels, reduction="mean")


def main() -> dict[str, bool]:
    tokens = mx.random.randint(0, 32, (64, 8), key=mx.random.key(0))
    batch = {"tokens": tokens, "labels": tokens[:, 0] % 4}

    partly = pipe(model, fp.freeze("embed", strict=True), fp.freeze(fp.matching("layers.0.layers.0")))
    print(nn.summary(partly), end="\n\n")

    step = fp.train_step(partly, loss, optimizer)
    start, opt_state = step.init(0)
    params = start
    losses = []
    for n in range(60):
        if n == 40:  # hyper-parameters are arrays in the state: you change them by path, without a new trace
            opt_state = fp.swap("optimizer.groups.2.learning_rate", 1e-2)(opt_state)
        params, opt_state, logs = step(params, opt_state, batch)
        losses.append(logs["loss"])
    print(f"loss {losses[-1].item():.4f} after 60 steps, {step.traces} trace")

    moved = {path: not mx.array_equal(fp.flat(start)[path], leaf).item() for path, leaf in fp.flat(params).items()}
    for path, has_moved in moved.items():
        print(f"{'trained' if has_moved else 'frozen ':8} {path}")
    return moved


if __name__ == "__main__":
    main()
