"""Options of a run: compilation, when the loop waits for the device, and how the loss of an epoch is computed."""

import time
from typing import Any

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

x = mx.random.normal((2_048, 16), key=mx.random.key(0))
y = (x.sum(axis=1) > 0).astype(mx.int32)
train = pipe(data.arrays(x=x, y=y), data.shuffle(seed=1), data.batch(32))
trainer = pipe(
    fp.trainer(nn.sequential(nn.linear(16, 32), nn.gelu, nn.linear(32, 2)), fp.classification()),
    fp.with_optimizer(optim.adamw(1e-3)),
)
WAYS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "not compiled": {"compile": False},
    "wait for each step": {"sync": "step"},
    "wait for each epoch": {"sync": "epoch"},
    "wait only for values that are read": {"sync": "none"},
    "loss of the last batch": {"reduce": "last"},
    "median of the losses": {"reduce": lambda losses: sorted(losses)[len(losses) // 2]},
}


def main() -> dict[str, fp.Report]:
    reports = {}
    print(f"{'':34}  loss    accuracy  us a step")
    for name, options in WAYS.items():
        start = time.perf_counter()
        report = reports[name] = fp.fit(train, epochs=4, quiet=True, **options)(trainer)
        last, seconds = report.rows[-1], time.perf_counter() - start
        print(f"{name:34}  {last.epoch_loss:.4f}  {last.accuracy:8.3f}  {seconds / last.steps * 1e6:9.0f}")
    return reports


if __name__ == "__main__":
    main()
