"""Cross-validation: each row is held out once, and each fold is a run of its own."""

from __future__ import annotations

import mlx.core as mx
import pytest
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, nn, optim
from mlx_fp.data._folds import folds

X = mx.random.normal((30, 3), key=mx.random.key(0))
ROWS = (data.arrays(x=X, y=X.sum(axis=1)), data.shuffle(seed=1), data.batch(6))


def made(train=ROWS, *verbs):
    return fp.experiment(
        "sums",
        *verbs,
        model=nn.linear(3, 1),
        task=fp.regression(),
        optimizer=optim.sgd(0.1),
        data=data.splits(train=train),
        epochs=2,
    )


def numbers(dataset, **cursor):
    return [n for batch in dataset.open(data.Cursor(**cursor)) for n in batch.tolist()]


def test_each_row_is_held_out_once_and_the_rest_is_shuffled():
    parts = folds(pipe(data.source(range(10)), data.shuffle(seed=1), data.batch(4)), 3, seed=7)
    held = [numbers(fold) for _, fold in parts]
    assert sorted(n for fold in held for n in fold) == list(range(10))
    assert [numbers(fold, epoch=1) for _, fold in parts] == held
    for rest, fold in parts:
        assert sorted(numbers(rest) + numbers(fold)) == list(range(10))
        assert numbers(rest) != numbers(rest, epoch=1)
        assert len(rest) == 2


def test_the_folds_are_runs_of_their_own():
    found = fp.k_fold(3, quiet=True, compile=False)(made())
    rest, held = folds(data.splits(train=ROWS).train, 3, 0)[1]
    trainer = made().trainer
    alone = fp.fit(rest, validation=held, epochs=2, quiet=True, compile=False)(trainer)
    assert found.reports[1].losses == alone.losses
    assert found.values[1] == alone.best_value
    assert found.mean == pytest.approx(sum(found.values) / 3)
    assert found.spread == pytest.approx(mx.std(mx.array(found.values)).item(), rel=1e-4)
    assert found.to_dict()["monitor"] == "val_loss"
    text = str(found)
    assert [line.split()[0] for line in text.splitlines()] == ["fold", "1", "2", "3", "mean", "spread"]
    assert "<table" in found._repr_html_()


def test_each_fold_has_its_folder_and_a_complete_one_does_not_train_again(tmp_path):
    steps = []
    target = made(ROWS, fp.on("after_step", lambda e: steps.append(e.step)))
    options = {"out": tmp_path / "folds", "quiet": True, "compile": False, "resume": "latest"}
    first = fp.k_fold(2, **options)(target)
    assert sorted(path.name for path in (tmp_path / "folds").iterdir()) == ["fold-1", "fold-2"]
    count = len(steps)
    assert fp.k_fold(2, **options)(target).values == first.values
    assert len(steps) == count


def test_checkpoints_of_the_experiment_are_in_the_folders_of_the_folds(tmp_path):
    fp.k_fold(2, quiet=True, compile=False)(made(ROWS, fp.checkpoints(tmp_path / "ep-{epoch}")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fold-1", "fold-2"]


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (lambda: fp.k_fold(1), ValueError, "2 or more; got 1"),
        (lambda: fp.k_fold(2)(made().trainer), TypeError, "takes an experiment; got Trainer"),
        (lambda: fp.k_fold(40)(made()), ValueError, "needs a row for each fold"),
        (lambda: fp.k_fold(2)(made((data.stream(lambda: "ab"),))), ValueError, "gives rows without indices"),
        (lambda: fp.k_fold(2, seed=mx.random.key(0))(made()), TypeError, "seed of k_fold is an int"),
    ],
)
def test_wrong_folds(call, kind, words):
    with pytest.raises(kind, match=words):
        call()
