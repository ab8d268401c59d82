"""The link of an evaluation that is no part of a run, in one of several processes."""

from __future__ import annotations

from collections.abc import Callable, Generator

from ..across._errors import gather_texts, peer_error, tell
from ..across._message import Figures, exchange_figures
from ..across._world import World
from ..core._mlx import mx
from ..core._types import Batch, State
from ..data import Cursor, Dataset
from ..data._share import open_share
from ..step._rows import cut_out
from ._link import Alone

__all__ = ["EvaluationLink"]


class EvaluationLink(Alone):
    """The link of an evaluation without a run."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world, self._over = world, False

    def open(self, data: Dataset, cursor: Cursor, kind: str) -> Generator[Batch, None, None]:
        """Read the share of this process in each batch."""
        return open_share(data, cursor, kind, self._world.rank, self._world.size, cut_out)

    def evaluated(
        self, figures: Figures, memory: State, merge: Callable[[list[State]], State]
    ) -> tuple[Figures, State]:
        """Exchange the figures and the memory of metrics, unless another process has failed."""
        self._over = True
        if texts := gather_texts(self._world, ""):
            raise peer_error(texts)
        _, summed, memories = exchange_figures(self._world, mx.zeros((1,)), figures, {}, memory)
        return summed, merge(memories)

    def leave(self, error: BaseException) -> None:
        """Tell the other processes of an error before the figures are exchanged."""
        if not self._over:
            tell(self._world, error)
