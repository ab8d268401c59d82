"""The fingerprint of a pipeline, by which a file of its items is recognised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from ._dataset import Dataset, Operation, Source

__all__ = ["fingerprint", "varying_stage"]


def fingerprint(dataset: Dataset) -> str:
    """Return one line for each stage of a pipeline: its label, and the fingerprint of its content where it has one.

    >>> from mlx_fp import data
    >>> print(fingerprint(data.take(2)(data.source("abc"))))
    source(str of 3)
    take(2)
    2 items
    """
    lines = [line for stage in _stages(dataset) for line in _lines(stage)]
    return "\n".join([*lines, f"{'unknown' if dataset.size is None else dataset.size} items"])


def varying_stage(dataset: Dataset) -> str | None:
    """Return the label of the first stage whose items depend on the epoch or the kind, None where there is none.

    >>> from mlx_fp import data
    >>> varying_stage(pipe(data.source("abc"), data.shuffle(seed=7), data.take(2)))
    'shuffle(seed=7)'
    """
    return next((stage.label for stage in _stages(dataset) if stage.varies), None)


def _stages(dataset: Dataset) -> Iterator[Source | Operation]:
    """Yield the stages of a pipeline and of the datasets that it combines, each input before its source."""
    for part in cast(tuple[Dataset, ...], dataset.source.inputs):
        yield from _stages(part)
    yield dataset.source
    yield from dataset.operations


def _lines(stage: Source | Operation) -> list[str]:
    return [stage.label] if stage.fingerprint is None else [stage.label, f"  {stage.fingerprint()}"]
