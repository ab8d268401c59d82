"""Train for long in constant memory: an endless stream, no losses in memory, and a line per epoch in a file."""

import json
import resource
import tempfile
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

EPOCHS, STEPS = 20, 1_000


def readings(epoch: int):
    """Yield rows without end: eight values of a sine with noise, and the next value to predict."""
    draw = np.random.default_rng(epoch)
    for block in count():
        values = np.sin(np.arange(1_000 * block, 1_000 * block + 1_008) * 0.1) + 0.1 * draw.normal(size=1_008)
        values = values.astype(np.float32)
        yield from ((values[i : i + 8], values[i + 8]) for i in range(1_000))


def megabytes() -> float:
    """Return the peak memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> tuple[float, list[dict[str, Any]]]:
    train = pipe(data.stream(readings), data.batch(16), data.take(STEPS), data.prefetch(2))
    log, memory = Path(tempfile.mkdtemp()) / "rows.jsonl", list[float]()

    def write(event) -> None:
        memory.append(megabytes())
        with log.open("a") as file:
            print(json.dumps(event.row.to_dict()), file=file)

    report = pipe(
        fp.trainer(nn.sequential(nn.linear(8, 16), nn.tanh, nn.linear(16, 1)), fp.regression()),
        fp.with_optimizer(optim.adam(1e-3)),
        fp.on("after_epoch", write),
        fp.stop_on_divergence(every=500),
        fp.fit(train, epochs=EPOCHS, keep_losses=False, quiet=True),
    )
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    growth = memory[-1] - memory[1]
    print(f"{rows[-1]['steps']} steps, R² {report.rows[-1].r2:.3f}, {len(report.losses)} losses kept")
    print(f"memory grew by {growth:.1f} MB from epoch 1 to epoch {EPOCHS - 1}; rows are in {log}")
    return growth, rows


if __name__ == "__main__":
    main()
