"""The law of a run's state: what is recorded of it is restored to it, and recording does nothing else."""

from __future__ import annotations

import ast
from itertools import islice
from pathlib import Path

import mlx.core as mx
import pytest
from drawn import examples
from hypothesis import given
from hypothesis import strategies as st
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.loop import _record
from mlx_fp.loop._hook import HookState
from mlx_fp.loop._plan import plan
from mlx_fp.loop._record import record, restore
from mlx_fp.loop._run import run
from mlx_fp.loop._starting import start_run
from mlx_fp.loop._state import Ports
from mlx_fp.loop._totals import Sums, queue_of
from mlx_fp.store._packed import Encoder

X = mx.random.normal((22, 3), key=mx.random.key(0))
TRAIN = pipe(data.arrays(x=X, y=X.sum(axis=1)), data.shuffle(seed=3), data.batch(4))
HELD = pipe(data.arrays(x=X[:8], y=X[:8].sum(axis=1)), data.batch(4))


def count(memory, event):
    return {"seen": memory["seen"] + 1, "sum": memory["sum"] + event.loss, "pair": (1, [event.epoch])}, None


HOOKS = {
    "fold": fp.with_hooks(fp.fold("after_step", {"seen": 0, "sum": mx.array(0.0), "pair": None}, count)),
    "stop": fp.on("after_step", lambda event: fp.Stop("enough") if event.step == 7 else None),
    "pause": fp.on("after_epoch", lambda event: fp.Stop("later", final=False) if event.epoch == 1 else None),
    "validate": fp.on("after_step", lambda event: fp.Validate(), every=4),
    "once": fp.on("before_step", lambda event: None, once=True),
    "halves": fp.on("after_backward", lambda event: None, every=3),
    "replace": fp.on("after_epoch", lambda event: fp.Replace(params=event.state.params)),
}

RUNS = st.fixed_dictionaries(
    {
        "hooks": st.sets(st.sampled_from(sorted(HOOKS)), max_size=4),
        "moments": st.integers(0, 60),
        "options": st.fixed_dictionaries(
            {
                "epochs": st.integers(1, 3),
                "accumulate": st.sampled_from([1, 2]),
                "validate_every": st.sampled_from([None, 2]),
                "log_every": st.sampled_from([None, 1]),
                "keep_best": st.booleans(),
                "keep_losses": st.booleans(),
                "sync": st.sampled_from(["async", "step", "none"]),
                "reduce": st.sampled_from(["mean", "last", max]),
                "seed": st.integers(0, 3),
            }
        ),
    }
)


def begun(*given):
    """What a run begins with; without checkpoints there is no folder to give back."""
    with start_run(*given) as found:
        return found


def reached(drawn):
    """The loop, and the state that a random run has after so many moments."""
    verbs = [HOOKS[name] for name in sorted(drawn["hooks"])]
    model = nn.sequential(nn.linear(3, 4), nn.dropout(0.2), nn.linear(4, 1))
    trainer = pipe(fp.trainer(model, fp.regression(metrics=[])), fp.with_optimizer(optim.adam(1e-2)), *verbs)
    loop, state, _ = begun(trainer, plan(TRAIN, (), {"validation": HELD, **drawn["options"]}))
    for moment in islice(run(loop, state, Ports()), drawn["moments"]):
        state = moment.state
    return loop, state


def plain(value):
    """A value with its arrays as lists, for comparison; NaN is equal to NaN."""
    if isinstance(value, mx.array):
        return ("array", str(value.dtype), value.tolist())
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return repr(value)


def everything(state):
    """All of a state, the trees by their bits."""
    moving = state.moving
    trees = {path: leaf.tolist() for path, leaf in fp.flat([moving.train.params, moving.train.opt_state]).items()}
    counted = (state.epoch, state.epoch_start_step, state.completed, state.best, state.lineage)
    rest = (*counted, state.rows, state.evaluations, state.best_params)
    return trees, plain(moving.sums), plain(moving.hooks), plain(moving.requests), plain(rest)


@examples(40)
@given(RUNS)
def test_a_recorded_state_is_restored(drawn):
    loop, state = reached(drawn)
    before = everything(state)
    train = state.moving.train
    again = restore(loop, record(loop, state), train.params, train.opt_state)
    assert everything(again) == before
    assert everything(state) == before, "recording has changed the state"
    assert plain(record(loop, again)) == plain(record(loop, state))


@pytest.mark.slow
def test_an_encoder_that_knows_the_run_records_what_a_new_one_does(tmp_path):
    """Names of files come and go in old rows as others are kept, and a file holds the same as a run without them."""
    encoder, wrong, best = Encoder(), [], lambda row: abs(row.epoch - 40)
    policy = fp.checkpoints(tmp_path / "{epoch}", keep_last=2, every=1)
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression(metrics=[])), fp.monitor("odd", metric=best), policy)
    with start_run(target, plan(TRAIN, (), {"epochs": 80, "reduce": max})) as (loop, state, writer):
        for moment in run(loop, state, Ports(writer)):
            state = moment.state
            again, alone = record(loop, state, encoder=encoder), record(loop, state)
            wrong += [state.steps for name in ("rows", "evaluations") if again[name] != alone[name]]
    assert not wrong
    assert [row.epoch for row in state.rows if row.checkpoint] == [40, 77, 78, 79], "77 goes after the last moment"
    found = fp.load(tmp_path / "79").metadata
    assert plain(found["rows"]) == plain(list(again["rows"]))
    assert [row["checkpoint"] and Path(row["checkpoint"]).stem for row in found["rows"]][-2:] == ["78", "79"]
    assert found["sums"]["counted"] == []


def test_the_losses_that_a_function_reduces_go_on_from_a_checkpoint_within_the_epoch(tmp_path):
    given, cut = [], fp.on("after_step", lambda event: fp.Stop("enough", final=False) if event.step == 2 else None)
    target = pipe(fp.trainer(nn.linear(3, 1), fp.regression(metrics=[])), fp.checkpoints(tmp_path / "{step}"))
    options = {"reduce": lambda losses: given.append(list(losses)) or max(losses), "quiet": True}
    fp.fit(TRAIN, **options)(cut(target))
    assert fp.load(tmp_path / "3").metadata["sums"]["counted"] == given.pop()
    report = fp.fit(TRAIN, resume="latest", **options)(target)
    assert given == [list(report.losses)]
    assert len(report.losses) == 6


class Unread:
    """A log that must not be read."""

    def item(self):
        raise AssertionError("recording has read a value of the device")

    __float__ = item


@pytest.mark.parametrize("nonfinite", ["raise", "stop", "skip", "keep"])
def test_recording_reads_nothing_and_decides_nothing(nonfinite):
    """A queued loss that is NaN once stopped a run, or raised, as its state was recorded."""
    trainer = fp.trainer(nn.linear(3, 1), fp.regression(metrics=[]))
    loop, state, _ = begun(trainer, plan(TRAIN, (), {"nonfinite": nonfinite}))
    logs = {"loss": Unread()}
    queue = queue_of([(logs, {"loss": 4}, 0, 0), ({"loss": mx.array(mx.nan)}, {"loss": Unread()}, 1, 1)])
    sums = Sums(batches=2, updates=2, examples=8, queued=2, queue=queue)
    queued = state.with_requests(validate=True)
    queued = type(queued)(queued.moving._replace(sums=sums), 0, 0)
    metadata = record(loop, queued)
    first, second = metadata["sums"]["queue"]
    assert first[0]["loss"] is logs["loss"]
    assert second[2:] == [1, 1]
    assert queued.stop is None
    assert metadata["requests"]["stop"] is None


def test_hooks_that_were_not_there_begin_anew():
    trainer = fp.trainer(nn.linear(3, 1), fp.regression(metrics=[]))
    loop, state, _ = begun(HOOKS["once"](trainer), plan(TRAIN, (), {}))
    train = state.moving.train
    more, *_ = begun(HOOKS["fold"](HOOKS["once"](trainer)), plan(TRAIN, (), {}))
    again = restore(more, record(loop, state), train.params, train.opt_state)
    assert again.moving.hooks[0] == state.moving.hooks[0]
    assert isinstance(again.moving.hooks[1], HookState)
    assert again.moving.hooks[1].seen == 0


FOLDER = Path(_record.__file__).parent
EFFECTS = {"_evaluation_link.py", "_process_link.py", "_progress.py", "_signals.py"}
"""The ports of the loop; another, the writer, has a folder of its own."""
CLASS_BODIES = {("_copies.py", "decorated")}
"""Functions that finish a class as it is defined."""


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_no_attribute_is_assigned_outside_a_constructor(path):
    if path.name in EFFECTS:
        return
    found = []
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, (ast.FunctionDef, ast.Lambda)) or getattr(function, "name", "") == "__init__":
            continue
        if (path.name, getattr(function, "name", "")) in CLASS_BODIES or getattr(
            function, "name", ""
        ) == "copy_on_read":
            continue
        for node in ast.walk(function):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            if isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
                names = [one for target in targets for one in ast.walk(target) if isinstance(one, ast.Attribute)]
                found += [f"line {node.lineno}: {ast.unparse(one)}" for one in names if isinstance(one.ctx, ast.Store)]
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setattr":
                found.append(f"line {node.lineno}: setattr")
    assert not found
