"""Runs of a tiny model with a tracker."""

import struct

import mlx.core as mx

import mlx_fp as fp
from mlx_fp import nn, show

BATCHES = [(mx.ones((4, 3)), mx.zeros((4,), mx.int32))] * 4


def tracked(tracker, *verbs, **options):
    """Return a trainer with verbs and a tracker."""
    return fp.pipe(fp.trainer(nn.linear(3, 2), fp.classification()), *verbs, show.track(tracker, **options))


def fit(trainer, train=BATCHES, **options):
    """Train for two epochs of four steps; every third step is logged."""
    return fp.fit(train, **{"validation": BATCHES[:1], "epochs": 2, "log_every": 3, "quiet": True, **options})(trainer)


def log_records(path):
    """Yield the records of a file in the log format of LevelDB, in which wandb and SwanLab write their runs."""
    content, start, parts = path.read_bytes(), 7, b""
    while start < len(content):
        if 32768 - start % 32768 < 7:  # no record begins in the last bytes of a block
            start += 32768 - start % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", content, start)
        parts += content[start + 7 : start + 7 + size]
        start += 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield parts
            parts = b""
