"""The controls of a run: what compiles, when the loop waits for the device, what an epoch's loss is."""

import time

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe
from mlx_fp.core._text import table

x = mx.random.normal((2_048, 16), key=mx.random.key(0))
y = (x.sum(axis=1) > 0).astype(mx.int32)
train = pipe(data.arrays(x=x, y=y), data.shuffle(seed=1), data.batch(32))
trainer = pipe(
    fp.trainer(nn.sequential(nn.linear(16, 32), nn.gelu, nn.linear(32, 2)), fp.classification()),
    fp.with_optimizer(optim.adamw(1e-3)),
)
WAYS = {
    "as it is": {},
    "not compiled": {"compile": False},
    "wait for each step": {"sync": "step"},
    "wait for each epoch": {"sync": "epoch"},
    "wait for what is read": {"sync": "none"},
    "loss of the last batch": {"reduce": "last"},
    "median of the losses": {"reduce": lambda losses: sorted(losses)[len(losses) // 2]},
}


def main() -> dict[str, fp.Report]:
    reports, rows = {}, [("", "loss", "accuracy", "us a step")]
    for name, options in WAYS.items():
        start = time.perf_counter()
        report = reports[name] = fp.fit(train, epochs=4, quiet=True, **options)(trainer)
        last, taken = report.rows[-1], time.perf_counter() - start
        rows.append((name, f"{last.epoch_loss:.4f}", f"{last.accuracy:.3f}", f"{taken / last.steps * 1e6:.0f}"))
    print(table(rows))
    return reports


if __name__ == "__main__":
    main()
