"""Checkpoints: to MLX's own modules and back, a run cut within an epoch and resumed, which files stay, and a bundle."""

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
    """Return 400 points on two arms of a spiral, and the arm of each."""
    draw = np.random.default_rng(0)
    arm, turn = np.arange(400) % 2, draw.uniform(0.3, 2.2, 400)
    angle = np.pi * (turn + arm)
    x = np.stack([turn * np.cos(angle), turn * np.sin(angle)], axis=1) + draw.normal(0, 0.05, (400, 2))
    return data.arrays(x=x.astype(np.float32), y=arm.astype(np.int32))


def trained(folder: Path, *verbs, resume=None) -> fp.Report:
    """Train with a checkpoint after each epoch: the last two stay, and the best."""
    train, held_out = pipe(spirals(), data.split((0.75, 0.25), seed=1))
    return pipe(
        fp.trainer(MODEL, fp.classification()),
        fp.with_optimizer(pipe(optim.adamw(1e-1), optim.clip_norm(1.0))),
        fp.monitor("val_loss"),
        fp.checkpoints(folder / "epoch-{epoch:02}", best=True, keep_last=2),
        *verbs,
        fp.fit(
            pipe(train, data.shuffle(seed=2), data.batch(32)),
            validation=data.batch(100)(held_out),
            epochs=EPOCHS,
            quiet=True,
            resume=resume,
        ),
    )


def same(one, other) -> bool:
    """Whether two trees have the same bits."""
    a, b = fp.flat(one), fp.flat(other)
    return list(a) == list(b) and all(mx.array_equal(a[name], b[name]).item() for name in a)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def round_trip(report: fp.Report, folder: Path) -> bool:
    """Parameters go by file into a module of mlx.nn, and come back."""
    path = fp.save(folder / "weights")(report.params)
    module = mlx.nn.Sequential(mlx.nn.Linear(2, 16), mlx.nn.Tanh(), mlx.nn.Dropout(0.1), mlx.nn.Linear(16, 2))
    module.load_weights(str(path))
    params = module.parameters()
    path = fp.save(folder / "from_module")(params)
    back = fp.restore_like(report.params, fp.flat(fp.load(path).params))
    equal = same(back, report.params)
    print(f"{', '.join(fp.flat(back))} through a file, mlx.nn.Sequential and a file: the same bits: {equal}")
    return equal


def cut_and_resumed(alone: fp.Report, folder: Path) -> bool:
    """A run stopped in the middle of an epoch saves, and goes on in what could be another process."""
    stop = fp.on("after_step", lambda event: fp.Stop("enough", final=False) if event.step == 33 else None)
    cut = trained(folder, stop)
    again = trained(folder, stop, resume="latest")
    equal = same(again.params, alone.params) and again.losses == alone.losses
    print(
        f"cut after step {cut.rows[-1].steps}, in epoch {again.start_epoch} of 10 steps each; resumed to the same end:",
        equal,
    )
    return equal


def kept(report: fp.Report, folder: Path) -> bool:
    """Two last files and the best one stay; any process finds the best, and the latest, in the folder."""
    left = files(folder)
    print(f"of {EPOCHS} epochs stay {', '.join(left)}")
    found = {which: Path(trained(folder, resume=which).resume_from).name for which in ("latest", "best")}
    print("found by reading the folder:", found)
    best, last = (f"epoch-{epoch:02}.safetensors" for epoch in (report.best_epoch, EPOCHS - 1))
    return found == {"latest": last, "best": best} and {best, last} <= set(left) and len(left) <= 3


def bundled(report: fp.Report, folder: Path) -> bool:
    """Everything about a run in one JSON file, which names its checkpoint by path and digest."""
    path = fp.save_bundle(folder / "run.json", checkpoint=report.checkpoints[-1], settings={"seed": 0})(report)
    read = fp.read_bundle(path)
    again = trained(folder, resume=path)
    print(f"{path.name} has {len(read['report']['rows'])} rows and names {read['checkpoint']['path']};", end=" ")
    print("resumed from it to the same end:", same(again.params, report.params))
    return same(again.params, report.params) and read["report"]["rows"] == report.to_dict()["rows"]


def main() -> dict[str, bool]:
    folder = Path(tempfile.mkdtemp())
    alone = trained(folder / "alone")
    print(f"validation accuracy {alone.rows[-1].val_accuracy:.3f} after {alone.rows[-1].steps} steps")
    return {
        "round trip": round_trip(alone, folder),
        "resume": cut_and_resumed(alone, folder / "cut"),
        "bundle": bundled(alone, folder / "alone"),
        "policy": kept(alone, folder / "alone"),
    }


if __name__ == "__main__":
    main()
