"""Sweeps, evaluations and starts in several processes: `edges.py MODE FOLDER` prints its results as JSON."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim, pipe

MODE, FOLDER = sys.argv[1:] if __name__ == "__main__" else ("", "")
world = fp.world()
LAST = world.rank == world.size - 1

x = mx.random.normal((30, 4), key=mx.random.key(0))


def batches(seed=1):
    return data.splits(train=(data.arrays(x=x, y=x.sum(axis=1, keepdims=True)), data.shuffle(seed=seed), data.batch(7)))


def failing(batch):
    if LAST:
        raise ValueError("a bad row")
    return batch


def width(width=1):
    if width == 3 and LAST:
        raise ValueError("too wide")
    return nn.sequential(nn.linear(4, 4 * width), nn.linear(4 * width, 1))


target = fp.experiment(
    "sums",
    model=width,
    task=fp.regression(),
    optimizer=partial(optim.sgd, 0.05),
    data=batches,
    artifacts=partial(fp.checkpoints, f"{FOLDER}/{{epoch}}"),
    epochs=2,
)
trainer = fp.trainer(nn.linear(4, 1), fp.regression(), optimizer=optim.sgd(0.05))


def sweep():
    """A sweep of which the second trial fails while it runs in one process."""
    rates = [0.01, 0.02, 0.05]
    found = fp.sweep({"optimizer.learning_rate": rates, "seed": [0]}, quiet=False, across=world)(target)
    return [(dict(trial.settings), trial.error, trial.report.best_value) for trial in found.trials]


def sweep_that_fails():
    spoiled = fp.Experiment(**{**{name: getattr(target, name) for name in target.__slots__}, "verbs": (spoil,)})
    found = fp.sweep({"optimizer.learning_rate": [0.01, 0.02, 0.05]}, quiet=True, across=world)(spoiled)
    return [trial.error for trial in found.trials]


def spoil(trainer, runs=[0]):  # noqa: B006  # a count over all trials of this process
    def after_step(event):
        runs[0] += event.step == 1
        if runs[0] == 2 and event.step == 1 and LAST:
            raise ValueError("a bad trial")

    return fp.on("after_step", after_step)(trainer)


def evaluate():
    held_out = pipe(data.arrays(x=x, y=x[:, :1]), data.batch(7), data.map(failing))
    return fp.evaluate(held_out, params=nn.linear(4, 1).init(mx.random.key(0)), across=world)(trainer)


def start():
    path = f"{FOLDER}/none.safetensors" if LAST else None
    return fp.fit(batches(), epochs=1, quiet=True, across=world, resume=path)(trainer).stop_reason


def locked():
    """A folder that another run of the first process has locked."""
    saved = fp.checkpoints(f"{FOLDER}/{{epoch}}")(trainer)
    stream = fp.events(batches())(saved) if world.rank == 0 else iter(range(1))
    next(stream)
    return fp.fit(batches(), epochs=1, quiet=True, across=world)(saved).stop_reason


def other_seed():
    return fp.fit(batches(1 + LAST), epochs=1, quiet=True, across=world)(trainer).stop_reason


def other_rate():
    target = fp.with_optimizer(optim.sgd(0.1 + LAST))(trainer)
    return fp.fit(batches(), epochs=1, quiet=True, across=world)(target).stop_reason


def other_params():
    params = trainer.model.init(mx.random.key(int(LAST)))
    return fp.fit(batches(), epochs=1, quiet=True, across=world, params=params)(trainer).stop_reason


def stream():
    """The steps and losses that a stream of events yields."""
    seen = fp.events(batches(), only=("after_step",), epochs=2, across=world)(trainer)
    return [(event.step, event.loss.item()) for event in seen]


def checked():
    """A hook of one process changes its parameters, and all are compared every 2 steps."""
    own = fp.world(check_every=2)

    def after_step(event):
        if LAST and event.step == 4:
            return fp.Replace(params={**event.state.params, "bias": event.state.params["bias"] + 1})
        return None

    changed = fp.on("after_step", after_step)(trainer)
    return fp.fit(batches(), epochs=2, quiet=True, across=own)(changed).stop_reason


def outcome():
    try:
        return globals()[MODE]()
    except Exception as error:
        return {"error": type(error).__name__, "text": str(error)}


if __name__ == "__main__":
    result = outcome()
    files = sorted(str(path.relative_to(FOLDER)) for path in Path(FOLDER).rglob("*.safetensors"))
    print(json.dumps({"result": result, "files": files}))
