"""Records through pickle: to processes of the same program, with the functions that they hold."""

from __future__ import annotations

import copy
import pickle
import re
from functools import partial

import mlx.core as mx
import mlx.nn
import mlx.optimizers
import pytest
from helpers import assert_same_bits, assert_same_run, mse, plain, read, spawned, trained
from toolz import pipe

import mlx_fp as fp
from mlx_fp import data, metrics, nn, optim

X = mx.random.normal((12, 4), key=mx.random.key(1))
Y = mx.random.normal((12, 1), key=mx.random.key(2))
ROWS = data.arrays(x=X, y=Y)


def through(value):
    return pickle.loads(pickle.dumps(value))


def twice(row):
    return {**row, "x": row["x"] * 2}


def is_large(row):
    return row["x"][0].item() > 0


def keep(row):
    return None


def both(row):
    return [row, row]


def length(row):
    return 1.0


def epochs_rows(epoch):
    return range(epoch + 1, epoch + 4)


def stopping(event):
    return fp.Stop("enough") if event.epoch == 1 else None


def counting(count, event):
    return count + 1, None


def always(event):
    return True


class Net(mlx.nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.layers = [mlx.nn.Linear(4, width), mlx.nn.BatchNorm(width)]

    def __call__(self, x):
        return self.layers[1](self.layers[0](x))

    def encode(self, x):
        return self.layers[0](x)


class Functions(mlx.nn.Module):
    """A module with functions of MLX's, and a method of its own, among its attributes."""

    def __init__(self):
        super().__init__()
        self.proj, self.activation, self.outer = mlx.nn.Linear(4, 4), mlx.nn.gelu, mx.exp
        self.run = self.project

    def project(self, x):
        return self.activation(self.proj(x))

    def __call__(self, x):
        return self.outer(self.run(x))


def with_mask(x):
    return x, None


def first_column(x):
    return (x[:, 0] > 0).astype(mx.int32)


def forward(m, x):
    return m.proj(x) * m.scale


LAYERS = {
    "linear": nn.linear(4, 2),
    "sequential": nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.5), head=nn.linear(8, 2)),
    "activation": nn.sequential(nn.leaky_relu(negative_slope=0.2), nn.softmax, nn.prelu, nn.glu(axis=-1)),
    "residual": nn.residual(nn.linear(4, 4), nn.tanh),
    "branch": nn.branch(nn.linear(4, 3), nn.linear(4, 1)),
    "concat": nn.concat(nn.linear(4, 3), nn.linear(4, 1)),
    "stack": nn.stack(2, nn.linear, 4, 4),
    "share": nn.share(2, nn.linear(4, 4)),
    "define": nn.define(forward, proj=nn.linear(4, 2), scale=nn.param(2, init=0.5)),
    "remat": nn.remat(nn.linear(4, 2)),
    "wide": nn.sequential(nn.linear(4, 4), nn.wide(nn.layer_norm(4))),
    "frozen": fp.freeze("layers.0")(nn.sequential(nn.linear(4, 4), nn.linear(4, 2))),
    "lifted": nn.lift(Net),
    "split": nn.split(Net())[0],
    "method": nn.method(nn.lift(Net, width=5), "encode"),
    "function": nn.fn(mx.tanh),
    "lstm": nn.lstm(4, 3),
    "transformer": nn.sequential(with_mask, nn.transformer_encoder(1, 4, 2)),
    "embedding": nn.sequential(first_column, nn.embedding(5, 3)),
    "pool": nn.max_pool1d(2),
    "functions": nn.lift(Functions),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_makes_the_same_parameters_and_outputs(kind):
    layer = LAYERS[kind]
    again = through(layer)
    assert repr(again) == repr(layer)
    params = nn.init(3)(layer)
    assert_same_bits(nn.init(3)(again), params)
    x = X[:, None] if kind in ("lstm", "transformer", "pool") else X
    run = {"train": True, "key": 5}
    assert_same_bits(list(again.apply(params, x, **run)), list(layer.apply(params, x, **run)))
    assert fp.paths(again.trainable(params))(params) == fp.paths(layer.trainable(params))(params)


def schedule(rate):
    return optim.step_decay(rate, 0.5, 2)


OPTIMIZERS = {
    "adam": optim.adam(1e-2),
    "sgd": optim.sgd(optim.cosine_decay(0.1, 10), momentum=0.9),
    "adamw": pipe(optim.adamw(optim.warmup_cosine(1e-2, 10, warmup=2)), optim.clip_norm(1.0), optim.ema(0.9)),
    "joined": optim.lion(
        optim.join_schedules([optim.linear_schedule(0.1, 0.2, 3), optim.step_decay(0.2, 0.5, 2)], [3])
    ),
    "skip": pipe(optim.rmsprop(1e-2), optim.clip_value(0.1), optim.skip_nonfinite()),
    "muon": optim.muon(1e-2),
    "groups": optim.groups(("weight", optim.adam(1e-2)), (re.compile("bias"), optim.sgd(0.1))),
    "lifted": optim.lift(mlx.optimizers.AdaDelta(1e-2)),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_an_optimizer_makes_the_same_updates(kind):
    params = {"weight": X, "bias": Y}
    states = []
    for optimizer in (OPTIMIZERS[kind], through(OPTIMIZERS[kind])):
        now, state = params, optimizer.init(params)
        for step in range(3):
            now, state = optimizer.update({"weight": X * (step + 1), "bias": Y}, state, now)
        states.append([now, state])
    assert_same_bits(*states)


DATASETS = {
    "arrays": ROWS,
    "batches": pipe(ROWS, data.shuffle(seed=3), data.batch(5)),
    "rows": pipe(ROWS, data.map(twice), data.filter(is_large), data.tap(keep), data.take(4), data.batch(2)),
    "source": pipe(data.source([{"x": [1.0, 2.0], "y": i} for i in range(6)]), data.batch(2)),
    "stream": pipe(data.stream(epochs_rows), data.shuffle(seed=1, window=2), data.prefetch(2)),
    "window": pipe(data.source(range(9)), data.window(3, step=2), data.flat_map(list), data.enumerate()),
    "zip": data.zip(a=data.source(range(12)), b=ROWS),
    "concat": data.concat(ROWS, ROWS),
    "mix": pipe(data.mix(data.source(range(5)), data.source(range(9, 14)), weights=[1, 3], seed=2), data.take(6)),
    "interleave": data.interleave(data.source(range(3)), data.source(range(5))),
    "sample": pipe(ROWS, data.sample([1.0] * 12, seed=1), data.shard(0, 2), data.repeat(2), data.skip(1)),
    "ragged": pipe(
        data.source([{"x": [1] * n, "y": n} for n in (3, 1, 4, 2)]),
        data.bucket(length, boundaries=[2], batch_size=2),
        data.pad(multiple_of=2),
    ),
    "shaped": pipe(
        ROWS, data.batch(4), data.schema(x=(mx.float32, 2), y=mx.float32), data.collate({"a": "x"}), data.collate("x")
    ),
    "split": data.split([0.5, 0.5], seed=0)(ROWS)[1],
    "unbatched": pipe(ROWS, data.batch(4), data.unbatch()),
    "bound": pipe(ROWS, data.batch(4), data.bind(mse)),
}


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_gives_the_same_rows_from_any_place(kind):
    dataset = DATASETS[kind]
    again = through(dataset)
    assert repr(again) == repr(dataset)
    for epoch, index in ((0, 0), (2, 1)):
        assert plain(read(again, epoch, index)) == plain(read(dataset, epoch, index))


def test_splits_are_read_alike():
    plan = data.splits(train=ROWS, validation=ROWS, test=ROWS, shared=[data.map(twice), data.batch(4)])
    assert plain(read(through(plan).test)) == plain(read(plan.test))


TRAIN = pipe(ROWS, data.shuffle(seed=3), data.batch(4))


def whole_trainer():
    model = nn.sequential(nn.linear(4, 8), nn.batch_norm(8), nn.relu, nn.dropout(0.2), nn.linear(8, 1))
    return pipe(
        fp.trainer(model, fp.regression()),
        fp.with_optimizer(pipe(optim.adam(optim.cosine_decay(1e-2, 20)), optim.clip_norm(1.0))),
        fp.with_hooks(fp.fold("after_step", 0, counting, every=2, when=always)),
        fp.on("after_epoch", stopping),
        fp.early_stop(patience=3),
        fp.stop_on_divergence(),
        fp.monitor("val_loss", min_delta=0.01),
        fp.with_options(validation=TRAIN),
    )


def test_a_trainer_trains_to_the_same_bits_in_a_process_of_its_own_and_its_report_comes_back():
    trainer = whole_trainer()
    here = trained(trainer, TRAIN)
    (there,) = spawned(trained, (trainer, TRAIN))
    assert_same_bits([there.params, there.opt_state], [here.params, here.opt_state])
    assert there.losses == here.losses
    assert_same_run(there, here)
    assert there.stop_reason == "enough"


def test_a_report_comes_back_with_the_same_bits():
    report = trained(whole_trainer(), TRAIN)
    for again in (through(report), copy.deepcopy(report)):
        assert_same_bits([again.params, again.opt_state], [report.params, report.opt_state])
        assert again.to_dict() == report.to_dict()
        assert again.rows[0].val_mse == report.rows[0].val_mse
        with pytest.raises(TypeError, match="read-only"):
            again.rows[0].metrics["mse"] = 0.0


def made_model(width=8):
    return nn.sequential(nn.linear(4, width), nn.relu, nn.linear(width, 1))


def made_data(size=4):
    return pipe(ROWS, data.batch(size))


def test_an_experiment_and_its_settings():
    first = fp.experiment(
        "small", model=made_model, optimizer=partial(optim.adam, 1e-2), task=fp.regression(), data=made_data
    )
    again = through(first)
    assert fp.settings(again) == fp.settings(first)
    changed = fp.override({"model.width": 6})(again)
    assert_same_run(fp.run(quiet=True)(changed), fp.run(quiet=True)(fp.override({"model.width": 6})(first)))


RECORDS = {
    "everything": fp.everything,
    "select": fp.select([re.compile("a"), "b"]) & ~fp.ndim(2),
    "metric": metrics.top_k(2),
    "task": fp.language_modeling(ignore=0),
    "hook": fp.hook("after_epoch", stopping),
    "monitor": fp.Monitor("val_loss", "max", 0.5, length),
    "registry": fp.Registry("flow").add("a", twice).add("b", twice, extends="a"),
    "activation": nn.relu,
    "policy": pipe(whole_trainer(), fp.checkpoints("runs/ep-{epoch}", keep_last=2)).policy,
}


@pytest.mark.parametrize("kind", RECORDS)
def test_the_other_records_come_back(kind):
    assert repr(through(RECORDS[kind])) == repr(RECORDS[kind])


def test_constants_stay_the_ones_of_the_library():
    assert through(fp.everything) is fp.everything
    assert through(nn.relu) is nn.relu
    assert through(nn.linear(2, 2)).wide is nn.linear(2, 2).wide


def local():
    def loss(model, x, y):
        return mse(model, x, y)

    return loss


def local_module():
    class Inner(mlx.nn.Module):
        pass

    return Inner


UNNAMED = {
    "Trainer.task.loss is local.<locals>.loss": lambda: fp.trainer(nn.linear(4, 1), local()),
    "Trainer.hooks[4].fn.fn is <lambda>": lambda: fp.on("after_epoch", lambda event: None)(whole_trainer()),
    "Layer.apply.run.function is <lambda>": lambda: nn.fn(lambda x: x),
    "Dataset.operations[0].on_rows": lambda: pipe(ROWS, data.map(lambda row: row)),
    "Experiment.model is <lambda>": lambda: fp.experiment("a", model=lambda: nn.relu, loss=mse, data=made_data),
    "Layer.init.make.target is local_module.<locals>.Inner": lambda: nn.lift(local_module()),
    "Task.metrics[0].value is <lambda>": lambda: fp.regression(
        metrics=[fp.Metric("m", init=local(), update=counting, value=lambda memory: memory)]
    ),
}


@pytest.mark.parametrize("part", UNNAMED)
def test_a_function_without_a_name_is_told_with_its_place_in_the_record(part):
    with pytest.raises(pickle.PicklingError) as caught:
        pickle.dumps(UNNAMED[part]())
    told = str(caught.value)
    assert part in told or part.startswith("Task")
    assert "which pickle does not find by its name" in told
    assert "test_pickling" in told
    assert "define it at the top level of a module, a function by `def`" in told


def test_copies_need_no_names():
    trainer = fp.trainer(nn.fn(lambda x: x), lambda model, x: model(x).mean())
    assert copy.copy(trainer) is trainer
    again = copy.deepcopy(pipe(TRAIN, data.map(lambda batch: batch)))
    assert plain(read(again)) == plain(read(TRAIN))
    assert copy.deepcopy(trainer).task.loss is trainer.task.loss


def test_records_that_share_an_array_share_it_in_the_pickle_too():
    one = pickle.dumps(ROWS)
    assert len(pickle.dumps(data.zip(ROWS, ROWS))) < 2 * len(one) + 4 * X.nbytes
