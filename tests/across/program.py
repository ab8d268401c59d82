"""A run that a test starts in one or several processes: `program.py '{"option": value}'` prints its results as JSON."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe
from mlx_fp.across._agreement import checksums
from mlx_fp.core.backend import device_backend
from mlx_fp.step import _across

OPTIONS = {"steps": 24, "batch": 23, **(json.loads(sys.argv[1]) if __name__ == "__main__" else {})}
world = fp.world()
LAST = world.size - 1

if OPTIONS.get("apart"):  # as on a GPU
    BACKEND = replace(device_backend(), sums_apart=True)
    _across.device_backend = lambda: BACKEND

x = mx.random.normal((70, 16), key=mx.random.key(0))
y = mx.argmax(x[:, :5], axis=1)


def model():
    """A classifier, with batch norm and dropout where the options say so."""
    inner = (nn.batch_norm(32), nn.relu, nn.dropout(0.2)) if OPTIONS.get("noisy") else (nn.relu,)
    return nn.sequential(nn.linear(16, 32), *inner, nn.linear(32, 5))


def spoiled(seen=[0]):  # noqa: B006  # a count over all batches of this process
    """Return an operation that fails, or makes a row infinite, in the last process at a batch of the options."""

    def change(batch):
        seen[0] += 1
        if world.rank == LAST and seen[0] == OPTIONS.get("data_fails_at"):
            raise ValueError("a bad row")
        if world.rank == LAST and seen[0] == OPTIONS.get("infinite_at"):
            return {**batch, "x": batch["x"] * mx.inf}
        return batch

    return data.map(change)


def loss(forward, x, y):
    """Cross entropy over the rows whose number is no multiple of three, and the error of the last process's hook."""
    if world.rank == LAST and OPTIONS.get("loss_fails"):
        raise ValueError("a bad loss")
    logits = forward(x)
    counts = x[:, 0] > -1.0
    return fp.mean(nn.losses.cross_entropy(logits, y), where=counts), {"size": fp.mean(mx.abs(logits))}


def after_step(event):
    """Do as the options say, in the last process."""
    time.sleep(OPTIONS.get("pause", 0.0))
    if "ready" in OPTIONS and event.step >= OPTIONS.get("ready_at", 4):
        Path(OPTIONS["ready"], f"ready-{world.rank}").touch()
    if world.rank != LAST or event.step != OPTIONS.get("at", -1):
        return None
    if OPTIONS.get("hook") == "raise":
        raise ValueError("a bad hook")
    return {"stop": fp.Stop("enough"), "save": fp.Save(), "validate": fp.Validate()}[OPTIONS["hook"]]


def trainer():
    """The trainer of the options."""
    task = fp.Task("masked", loss, (fp.metrics.accuracy(),), "val_loss", collate={"x": "x", "y": "y"})
    inner = optim.sharded(world)(optim.adamw(1e-2)) if OPTIONS.get("sharded") else optim.adamw(1e-2)
    optimizer = pipe(inner, optim.clip_norm(1.0))
    verbs = [fp.with_optimizer(optimizer), fp.on("after_step", after_step)]
    if OPTIONS.get("halves"):
        verbs.append(fp.on("after_backward", lambda event: None))
    if "folder" in OPTIONS:
        verbs.append(fp.checkpoints(f"{OPTIONS['folder']}/{{step}}", every=None, every_steps=5))
    if "patience" in OPTIONS:
        verbs.append(fp.early_stop(patience=OPTIONS["patience"]))
    return pipe(fp.trainer(model(), task), *verbs)


def main():
    train = pipe(data.arrays(x=x, y=y), data.shuffle(seed=1), data.batch(OPTIONS["batch"]))
    train = spoiled()(train)
    held_out = pipe(data.arrays(x=x[:13], y=y[:13]), data.batch(6))
    options = {
        name: OPTIONS[name] for name in ("accumulate", "steps_per_call", "nonfinite", "resume") if name in OPTIONS
    }
    try:
        report = pipe(
            trainer(),
            fp.fit(
                train,
                validation=held_out,
                steps=OPTIONS["steps"],
                validate_every=8,
                across=world,
                quiet=True,
                **options,
            ),
        )
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}
    row = report.rows[-1]
    return {
        "losses": [float(loss) for loss in report.losses],
        "row": {name: getattr(row, name) for name in ("loss", "size", "accuracy", "examples", "steps")},
        "evaluations": [[each.step, each.val_loss, each.val_metrics["accuracy"]] for each in report.evaluations],
        "stop": report.stop_reason,
        "checksums": {path: total.item() for path, total in checksums(report.params).items()},
        "params": {path: leaf.reshape(-1).tolist() for path, leaf in fp.flat(report.params).items()},
        "memory": sum(leaf.size for leaf in fp.flat(report.opt_state["optimizer"]).values()),
        "tested": fp.evaluate(held_out, params=report, across=world)(trainer()),
    }


if __name__ == "__main__":
    print(json.dumps(main()))
