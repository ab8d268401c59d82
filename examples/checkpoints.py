"""Checkpoints: to MLX's own modules and back, an interrupted run resumed, the files that stay, and a bundle."""

import tempfile
from pathlib import Path

import mlx.core as mx
import mlx.nn
import numpy as np

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

EPOCHS = 13
MODEL = nn.sequential(nn.linear(2, 16), nn.tanh, nn.dropout(0.1), nn.linear(16, 2))


def spirals() -> data.Dataset:
    """Return 400 points on the two arms of a spiral, and the arm of each point."""
    draw = np.random.default_rng(0)
    arm, turn = np.arange(400) % 2, draw.uniform(0.3, 2.2, 400)
    angle = np.pi * (turn + arm)
    x = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) + draw.normal(0, 0.05, (400, 2))
    return data.arrays(x=x.astype(np.float32), y=arm.astype(np.int32))


def trained(folder: Path, *hooks, resume: str | Path | None = None) -> fp.Report:
    """Train with a checkpoint after each epoch. The last two files and the best one stay."""
    train, held_out = pipe(spirals(), data.split((0.75, 0.25), seed=1))
    return pipe(
        fp.trainer(MODEL, fp.classification()),
        fp.with_optimizer(pipe(optim.adamw(1e-1), optim.clip_norm(1.0))),
        fp.monitor("val_loss"),
        fp.checkpoints(folder / "epoch-{epoch:02}", best=True, keep_last=2),
        fp.with_hooks(*hooks),
        fp.fit(
            pipe(train, data.shuffle(seed=2), data.batch(32)),
            validation=data.batch(100)(held_out),
            epochs=EPOCHS,
            quiet=True,
            resume=resume,
        ),
    )


def same(left, right) -> bool:
    """Tell whether two trees have the same bits."""
    a, b = fp.flat(left), fp.flat(right)
    return list(a) == list(b) and all(mx.array_equal(a[name], b[name]).item() for name in a)


def files(folder: Path) -> list[str]:
    """List the names of the checkpoints in a folder."""
    return sorted(path.name for path in folder.glob("*.safetensors"))


def round_trip(report: fp.Report, folder: Path) -> bool:
    """Move parameters through a file into a module of mlx.nn, and through another file back."""
    path = fp.save(folder / "weights")(report.params)
    module = mlx.nn.Sequential(mlx.nn.Linear(2, 16), mlx.nn.Tanh(), mlx.nn.Dropout(0.1), mlx.nn.Linear(16, 2))
    module.load_weights(str(path))
    params = module.parameters()
    path = fp.save(folder / "from_module")(params)
    restored = fp.restore_like(report.params, fp.flat(fp.load(path).params))
    equal = same(restored, report.params)
    print(f"{', '.join(fp.flat(restored))} through a file, mlx.nn.Sequential and a file: the same bits: {equal}")
    return equal


def interrupted_and_resumed(whole: fp.Report, folder: Path) -> bool:
    """Stop a run in the middle of an epoch, which saves a checkpoint, and resume it, as another process could."""
    stop = fp.hook("after_step", lambda event: fp.Stop("enough", final=False) if event.step == 33 else None)
    stopped = trained(folder, stop)
    resumed = trained(folder, stop, resume="latest")
    equal = same(resumed.params, whole.params) and resumed.losses == whole.losses
    print(f"stopped after step {stopped.rows[-1].steps}, in epoch {resumed.start_epoch}, each of 10 steps;", end=" ")
    print("resumed to the same end:", equal)
    return equal


def right_files_stay(report: fp.Report, folder: Path) -> bool:
    """Check that the last two files and the best one stay, and that a run can resume from "latest" and "best"."""
    names = files(folder)
    print(f"the files of {EPOCHS} epochs that stay: {', '.join(names)}")
    starts = {which: Path(trained(folder, resume=which).resume_from or "").name for which in ("latest", "best")}
    print("the files that a run resumes from:", starts)
    best, last = (f"epoch-{epoch:02}.safetensors" for epoch in (report.best_epoch, EPOCHS - 1))
    return starts == {"latest": last, "best": best} and {best, last} <= set(names) and len(names) <= 3


def bundled(report: fp.Report, folder: Path) -> bool:
    """Write all facts of a run into one JSON file, which names the checkpoint by path and digest; resume from it."""
    path = fp.save_bundle(folder / "run.json", checkpoint=report.checkpoints[-1], settings={"seed": 0})(report)
    read = fp.read_bundle(path)
    resumed = trained(folder, resume=path)
    print(f"{path.name} has {len(read['report']['rows'])} rows and names {read['checkpoint']['path']};", end=" ")
    print("resumed from it to the same end:", same(resumed.params, report.params))
    return same(resumed.params, report.params) and read["report"]["rows"] == report.to_dict()["rows"]


def main() -> dict[str, bool]:
    folder = Path(tempfile.mkdtemp())
    whole = trained(folder / "whole")
    print(f"validation accuracy {whole.rows[-1].val_accuracy:.3f} after {whole.rows[-1].steps} steps")
    return {
        "round trip": round_trip(whole, folder),
        "resume": interrupted_and_resumed(whole, folder / "stopped"),
        "bundle": bundled(whole, folder / "whole"),
        "policy": right_files_stay(whole, folder / "whole"),
    }


if __name__ == "__main__":
    main()
