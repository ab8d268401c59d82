"""Mistakes that a type checker must find, each in a line with the mark `# wrong`; and nothing here is run."""

# ruff: noqa
import mlx.core as mx

import mlx_fp as fp
from mlx_fp import data, nn, optim


def mistakes() -> None:
    train = fp.pipe(data.arrays(x=mx.ones((8, 4)), y=mx.zeros((8,), mx.int32)), data.batch(4))
    trainer = fp.trainer(nn.linear(4, 2), fp.classification())

    report = fp.pipe(trainer, fp.early_stop(patience=3), fp.fit(train, epochs=2))
    report.rows[0].epoch_loss + 1.0
    report.stop_reazon  # wrong
    report.rows[0].epoch_loss.upper()  # wrong

    fp.nothere  # wrong
    nn.linear(4)  # wrong
    nn.linear("4", 2)  # wrong
    nn.nothere  # wrong
    optim.adam(1e-3, betas="x")  # wrong
    fp.fit(train, epoch=3)  # wrong
    fp.fit(train, epochs="3")  # wrong
    fp.pipe(trainer, fp.fit(train), fp.early_stop(3))  # wrong
    fp.pipe(nn.linear(4, 2), fp.fit(train))  # wrong
    fp.checkpoints(3)  # wrong
    fp.on("after_epoch", lambda event: event.row.epoch_loss.upper())  # wrong
    fp.on("after_epoch", lambda event: fp.Stop("low") if event.row.epoch_loss < 0.1 else None)
    fp.on("after_step", lambda event: event.row)  # wrong
    fp.on("after_epok", lambda event: None)  # wrong
    fp.train_step(nn.linear(4, 2), lambda model, x: model(x).mean(), optim.sgd(0.1), part=2)  # wrong
