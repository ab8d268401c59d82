"""The link of a run in one of several processes: see `_link.py` for its methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from ..across._agreement import check_replicas
from ..across._errors import PeerError, gather_texts, is_lost, peer_error
from ..across._flags import Flags
from ..across._message import Figures
from ..across._world import World
from ..core._errors import named_error, say_on
from ..core._mlx import mx, utils
from ..core._types import Array, Batch, State
from ..data import Cursor, Dataset
from ..data._share import Share, open_share
from ..optim._sharded import shard_sizes, whole_state
from ..step._across import FLAGS, Part
from ..step._carried import Carried, Logged
from ..step._rows import cut_out
from ._directive import Stop
from ._requests import Requests

if TYPE_CHECKING:
    from ..step._protocol import FullStep

__all__ = ["ProcessLink"]

_NOTHING = Flags()


class ProcessLink:
    """The link of a run in one of several processes."""

    def __init__(
        self,
        world: World,
        step: FullStep,
        train: Carried,
        signal: Callable[[], str | None],
        lag: int,
        *,
        accumulates: bool = False,
    ) -> None:
        """Make a link.

        Args:
            world: The processes.
            step: The step of the run. Its messages carry the flags.
            train: The state of training, of which the link keeps the shapes.
            signal: A function that returns the name of a signal that has come in this process, or None.
            lag: The number of steps after which flags are read, so that no step waits for the device.
            accumulates: Whether the batches of a call make one update together.
        """
        self._world, self._step, self._signal, self._lag = world, step, signal, lag
        self._accumulates = accumulates
        self._like = utils.tree_map(lambda leaf: mx.broadcast_to(mx.zeros((), leaf.dtype), leaf.shape), train.params)
        self._shards = shard_sizes(world, train.opt_state)
        self._sent: deque[Array] = deque()
        self._outbox, self._inbox = _NOTHING, _NOTHING
        self._given: Requests | None = None
        self._stop: Stop | None = None
        self._agreed_signal: str | None = None
        self._over = False
        self._steps, self._checked = 0, 0

    def asked(self) -> str | None:
        """Return the name of the signal on which the processes have agreed, or None."""
        return self._agreed_signal

    def open(self, data: Dataset, cursor: Cursor, kind: str) -> Generator[Batch, None, None]:
        """Read the share of this process in each batch."""
        return open_share(data, cursor, kind, self._world.rank, self._world.size, cut_out)

    def parts(self, group: tuple[Batch, ...], requests: Requests) -> tuple[Batch, ...]:
        """Return the shares as the step takes them, with the requests of this process.

        Of several steps the first carries them. An update that accumulates takes the mean of the flags of its batches,
        so all of these carry the same.
        """
        self._collect(requests)
        first = self._take_outbox()._replace(steps=1)
        flags = [first, *((first if self._accumulates else Flags(steps=1)) for _ in group[1:])]
        return tuple(
            Part(share.batch, mx.array(float(share.counts)), each.array())
            for share, each in zip(group, flags, strict=True)
        )

    def received(self, logged: tuple[Logged, ...], group: tuple[Share, ...]) -> tuple[Logged, ...]:
        """Queue the flags among the logs of steps, and count the rows of the whole batches."""
        self._steps += len(logged)
        for logs, _, _ in logged:
            self._sent.append(logs[FLAGS])
        totals = [share.total for share in group]
        totals = totals if len(logged) == len(group) else [sum(totals)]
        return tuple(
            (_without_flags(logs), _without_flags(weights), total)
            for (logs, weights, _), total in zip(logged, totals, strict=True)
        )

    def check(self, train: Carried) -> None:
        """Compare the parameters of all processes every `check_every` steps of this process."""
        every = self._world.check_every
        if every is not None and self._steps // every > self._checked:
            self._checked = self._steps // every
            self._send(Flags(agreements=1))  # an error of another process ends the run here
            check_replicas(self._world, train.params, "parameters")

    def agreed(self, requests: Requests) -> Requests:
        """Return the requests of all processes, from flags that are `lag` steps old."""
        self._collect(requests)
        self._read_sent(self._lag)
        return self._hand_out(requests)

    def agree(self, requests: Requests, *, last: bool = False) -> Requests:
        """Exchange requests in a message of its own."""
        self._collect(requests)
        self._read_sent(0)
        self._send(self._take_outbox()._replace(agreements=1))
        self._over = last
        return self._hand_out(requests)

    def evaluated(
        self, figures: Figures, memory: State, merge: Callable[[list[State]], State]
    ) -> tuple[Figures, State]:
        """Exchange the figures and the memory of metrics of an evaluation."""
        self._read_sent(0)
        figures, memories = self._send(self._take_outbox()._replace(evaluations=1), figures, memory)
        return figures, merge(memories)

    @property
    def saves_alone(self) -> bool:
        """Tell whether no memory of the optimiser is in other processes."""
        return not self._shards

    def whole(self, opt_state: State) -> State:
        """Put the memory of the optimiser together, where processes have parts of it."""
        if not self._shards:
            return opt_state
        self._send(Flags(agreements=1))  # an error of another process ends the run here, and not in the gathering
        whole = whole_state(self._world, opt_state)
        mx.eval(whole)  # in every process, whether it writes or not
        return whole

    def leave(self, error: BaseException) -> None:
        """Answer the messages of the other processes until all know of the error, and tell them its text.

        The text of the error of another process is put into a `PeerError`.
        """
        if self._over or isinstance(error, (KeyboardInterrupt, SystemExit)):
            return
        self._over = True
        if is_lost(error):
            say_on(error, "the connection to another process was lost: it has ended, or cannot be reached")
            return
        is_own = not isinstance(error, PeerError)
        with suppress(RuntimeError):  # the transport: another process has ended by itself
            while self._exchange(Flags(failed=int(is_own), ending=1))[0].ending < self._world.size:
                pass
            texts = gather_texts(self._world, named_error(error) if is_own else "")
            if not is_own:
                error.args = peer_error(texts).args

    def _collect(self, requests: Requests) -> None:
        """Put the new requests of hooks of this process, and its signal, into the outbox."""
        given, out = self._given, self._outbox
        if requests.stop is not None and not requests.diverged and (given is None or given.stop is None):
            self._stop = self._stop or requests.stop
            out = out._replace(stop=1, final=int(requests.stop.final))
        name = self._signal() if self._agreed_signal is None else None
        self._outbox = out._replace(
            save=int(out.save or (requests.save and not (given and given.save))),
            validate=int(out.validate or (requests.validate and not (given and given.validate))),
            sigint=int(name == "SIGINT"),
            sigterm=int(name is not None and name != "SIGINT"),
        )

    def _take_outbox(self) -> Flags:
        flags, self._outbox = self._outbox, _NOTHING
        return flags

    def _read_sent(self, leave: int) -> None:
        """Read the flags of all messages of steps but the newest."""
        while len(self._sent) > leave:
            self._receive(Flags.of(self._sent.popleft()))

    def _send(
        self, flags: Flags, figures: Figures | None = None, memory: State | None = None
    ) -> tuple[Figures, list[State]]:
        """Send a message without a step, and receive its flags, figures and memories."""
        received, figures, memories = self._exchange(flags, figures, memory)
        self._receive(received)
        return figures, memories

    def _exchange(
        self, flags: Flags, figures: Figures | None = None, memory: State | None = None
    ) -> tuple[Flags, Figures, list[State]]:
        """Send a message without a step, and after it the slices that a step of a sharded optimiser sends."""
        received = self._step.send(self._like, flags, figures, memory)
        for size, dtype in self._shards:
            mx.eval(self._world.gather(mx.zeros((size,), dtype)))
        return received

    def _receive(self, flags: Flags) -> None:
        """Put the flags of a message into the inbox. Raise PeerError where another process has failed."""
        if flags.failed or flags.ending:
            raise PeerError("another process has failed")
        kinds = {name: count for name, count in zip(_KINDS, flags, strict=False) if count}
        if list(kinds.values()) != [self._world.size]:
            raise RuntimeError(f"the processes are at different places of the run: {kinds}; do their data differ?")
        self._inbox = Flags(*(int(bool(a or b)) for a, b in zip(self._inbox, flags, strict=True)))
        if self._agreed_signal is None and (flags.sigint or flags.sigterm):
            self._agreed_signal = "SIGINT" if flags.sigint else "SIGTERM"

    def _hand_out(self, requests: Requests) -> Requests:
        """Return the requests that have arrived, and the earlier ones that the loop has not yet carried out."""
        given, arrived = self._given, self._inbox
        self._inbox = _NOTHING
        stop = given.stop if given is not None else None
        if stop is None and arrived.stop:
            stop = self._stop or Stop("a hook of another process", final=bool(arrived.final))
        if requests.diverged:  # all processes read the same loss
            stop = requests.stop
        self._given = replace(
            requests,
            stop=stop,
            save=bool(arrived.save or (requests.save and given is not None and given.save)),
            validate=bool(arrived.validate or (requests.validate and given is not None and given.validate)),
        )
        return self._given


_KINDS = Flags._fields[:3]
"""The flags that tell the kind of a message."""


def _without_flags(logs: State) -> State:
    return {name: value for name, value in logs.items() if name != FLAGS}
