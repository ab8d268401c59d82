"""Add noise to gradients by a hook of a trainer, and in a loop without a trainer: both give the same bits."""

import mlx.core as mx
from mlx.utils import tree_map

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

x = mx.random.normal((512, 8), key=mx.random.key(0))
y = (x.sum(axis=1) > 0).astype(mx.int32)
train = pipe(data.arrays(x=x, y=y), data.shuffle(seed=1), data.batch(64))
model = nn.sequential(nn.linear(8, 32), nn.relu, nn.dropout(0.1), nn.linear(32, 2))
optimizer = pipe(optim.adam(1e-2), optim.clip_norm(1.0))


def noisy(grads, step: int):
    """Add small noise to gradients, new at each step. See Neelakantan et al., https://arxiv.org/abs/1511.06807."""
    key = mx.random.key(step)
    return tree_map(lambda g: g + 1e-3 * mx.random.normal(g.shape, key=key), grads)


def in_a_trainer():
    """Train with hooks; return the parameters and some gradient norms."""
    norms = []
    report = pipe(
        fp.trainer(model, fp.classification(metrics=[])),
        fp.with_optimizer(optimizer),
        fp.on("after_backward", lambda e: fp.Replace(grads=noisy(e.grads, e.step))),
        fp.on("after_step", lambda e: norms.append(e.grad_norm), every=8),
        fp.fit(train, epochs=3, quiet=True),
    )
    return report.params, norms


def in_a_loop():
    """Train in a loop with the two halves of a step; return the parameters and the same gradient norms."""
    norms = []
    step = fp.train_step(model, fp.classification().loss, optimizer)
    params, opt_state = step.init(0)
    steps = 0
    for epoch in range(3):
        for batch in train.open(data.Cursor(epoch)):
            grads, rest, opt_state, *_ = step.gradients(params, opt_state, batch)
            params, opt_state = step.update(params, opt_state, noisy(grads, steps), rest)
            if steps % 8 == 0:
                norms.append(optim.reading("grad_norm")(opt_state).item())
            steps += 1
    return params, norms


def main() -> bool:
    (params, norms), (loop_params, loop_norms) = in_a_trainer(), in_a_loop()
    pairs = zip(fp.flat(params).values(), fp.flat(loop_params).values(), strict=True)
    same = all(mx.array_equal(a, b).item() for a, b in pairs) and norms == loop_norms
    print("gradient norms at every eighth step:", ", ".join(f"{norm:.3f}" for norm in norms))
    print("in a trainer and in a loop:", "the same bits" if same else "not the same")
    return same


if __name__ == "__main__":
    main()
