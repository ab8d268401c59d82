"""The link of a run to the same run in other processes: requests and figures that travel with messages.

All processes run the same program on the same state, so they send the same messages in the same order. A request of a
hook or a signal in one process becomes a request of the run when a message has carried it to all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Protocol

from ..across._message import Figures
from ..core._types import Batch, State
from ..data import Cursor, Dataset
from ..step._carried import Carried, Logged
from ._requests import Requests

__all__ = ["Alone", "Link"]


class Link(Protocol):
    """The port of a run to other processes."""

    def asked(self) -> str | None:
        """Return the name of the signal that asks the run to end, or None."""

    def open(self, data: Dataset, cursor: Cursor, kind: str) -> Generator[Batch, None, None]:
        """Read the batches of an epoch, or the share of this process in each."""

    def parts(self, group: tuple[Batch, ...], requests: Requests) -> tuple[Batch, ...]:
        """Return batches as the step takes them, with the requests of this process."""

    def received(self, logged: tuple[Logged, ...], group: tuple[Batch, ...]) -> tuple[Logged, ...]:
        """Take the flags out of the logs of steps, and count the rows of the whole batches."""

    def check(self, train: Carried) -> None:
        """Compare the parameters of all processes, if it is time to."""

    def agreed(self, requests: Requests) -> Requests:
        """Return the requests on which the processes have agreed, for use between two steps."""

    def agree(self, requests: Requests, *, last: bool = False) -> Requests:
        """Agree on requests in a message of its own. After the last one the run sends no message."""

    def evaluated(
        self, figures: Figures, memory: State, merge: Callable[[list[State]], State]
    ) -> tuple[Figures, State]:
        """Return the figures and the memory of metrics of an evaluation, over the rows of all processes."""

    @property
    def saves_alone(self) -> bool:
        """Whether this process can save the state of the run without the others."""

    def whole(self, opt_state: State) -> State:
        """Return a state with the memory of the optimiser of all processes, for a checkpoint."""

    def leave(self, error: BaseException) -> None:
        """Tell the other processes of an error that ends the run."""


class Alone:
    """The link of a run in one process. It sends nothing."""

    def __init__(self, signal: Callable[[], str | None] = lambda: None) -> None:
        self.asked = signal

    def open(self, data: Dataset, cursor: Cursor, kind: str) -> Generator[Batch, None, None]:
        """Read the batches."""
        return data.open(cursor, kind=kind)

    def parts(self, group: tuple[Batch, ...], requests: Requests) -> tuple[Batch, ...]:
        """Return the batches unchanged."""
        return group

    def received(self, logged: tuple[Logged, ...], group: tuple[Batch, ...]) -> tuple[Logged, ...]:
        """Return the logs unchanged."""
        return logged

    def check(self, train: Carried) -> None:
        """Do nothing."""

    def agreed(self, requests: Requests) -> Requests:
        """Return the requests unchanged."""
        return requests

    def agree(self, requests: Requests, *, last: bool = False) -> Requests:
        """Return the requests unchanged."""
        return requests

    def evaluated(
        self, figures: Figures, memory: State, merge: Callable[[list[State]], State]
    ) -> tuple[Figures, State]:
        """Return figures and memory unchanged."""
        return figures, memory

    @property
    def saves_alone(self) -> bool:
        """Return True."""
        return True

    def whole(self, opt_state: State) -> State:
        """Return the state unchanged."""
        return opt_state

    def leave(self, error: BaseException) -> None:
        """Do nothing."""
