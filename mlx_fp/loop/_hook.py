"""Hooks: folds over the events of a run, which ask for things that the loop then does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

from ..core._errors import is_count, note
from ..core._signature import name_of
from ._event import Event, event_name

__all__ = ["Directive", "Hook", "Hooks", "Replace", "Save", "Stop", "Validate", "fold", "hook"]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run after the step at hand, and for good: resumed with the hook that said so, it has nothing left to do.

    With `final=False` it pauses, as for a limit of time, and goes on when it is resumed.
    """

    reason: str
    final: bool = True


@dataclass(frozen=True, slots=True)
class Replace:
    """Go on with other parameters, optimiser state or, from `after_backward`, gradients."""

    params: Any = None
    opt_state: Any = None
    grads: Any = None


@dataclass(frozen=True, slots=True)
class Save:
    """Write a checkpoint after the step at hand."""


@dataclass(frozen=True, slots=True)
class Validate:
    """Validate after the step at hand, beside what is done at the end of each epoch."""


Asked = Stop | Replace | Save | Validate

Directive = Asked | None
"""What a hook may return."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A fold over one kind of event, `fn(memory, event) -> (memory, directive)`, and when it runs.

    Hooks run by `priority`, low ones first, then in the order they were added; on emissions 1, n+1, 2n+1, … for
    `every=n`, counted before `when(event)` is asked; at most one time for `once`.
    """

    event: str
    fn: Callable[[Any, Any], tuple[Any, Directive]]
    init: Any = None
    priority: int = 0
    every: int = 1
    once: bool = False
    when: Callable[[Any], bool] | None = None
    name: str = "hook"

    def __repr__(self) -> str:
        return f"on({self.event!r}, {self.name})"


def fold(
    event: str,
    init: Any,
    fn: Callable[[Any, Any], tuple[Any, Directive]],
    *,
    priority: int = 0,
    every: int = 1,
    once: bool = False,
    when: Callable[[Any], bool] | None = None,
) -> Hook:
    """Make a hook with memory of its own: `fn(memory, event) -> (memory, directive)`, from `init` on in each run.

    >>> fold("after_epoch", 0, lambda count, event: (count + 1, Stop("two epochs") if count == 1 else None))
    on('after_epoch', <lambda>)
    """
    if not is_count(every, least=1):
        raise ValueError(f"every is a count of emissions, 1 or more; got {every!r}")
    return Hook(event_name(event), fn, init, priority, every, once, when, name_of(fn))


def hook(event: str, fn: Callable[[Any], Directive], **schedule: Any) -> Hook:
    """Make a hook of a plain function of the event, which may return a directive; `schedule` as for `fold`.

    >>> hook("after_epoch", print, every=2)
    on('after_epoch', print)
    """
    if not callable(fn):
        raise TypeError(f"a hook for {event!r} is a function of the event; got {fn!r}")
    made = fold(event, None, lambda memory, event: (memory, fn(event)), **schedule)
    return replace(made, name=name_of(fn))


_KEPT = ("memory", "seen", "spent", "ended")
"""What a hook has from one process of a run to the next."""


class Hooks:
    """The hooks of one run, in order, with their memories and counts."""

    def __init__(self, hooks: Iterable[Hook]) -> None:
        self._by_event: dict[str, list[_Running]] = {}
        for one in sorted(hooks, key=lambda h: h.priority):
            self._by_event.setdefault(one.event, []).append(_Running(one))

    @property
    def events(self) -> frozenset[str]:
        """The names of the events that a hook listens to."""
        return frozenset(self._by_event)

    @property
    def ended(self) -> str | None:
        """Why a hook has ended the run for good, None while none has."""
        return next((r.ended for _, r in self._named() if r.ended is not None), None)

    def state(self) -> dict[str, Any]:
        """Return the memory, counts and final word of each hook, by event, name and number among those alike."""
        return {key: {name: getattr(running, name) for name in _KEPT} for key, running in self._named()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Give the hooks that were there the memory, counts and final word that they had."""
        for key, running in self._named():
            for name in _KEPT:
                setattr(running, name, deepcopy(state.get(key, {}).get(name, getattr(running, name))))

    def _named(self) -> Iterator[tuple[str, _Running]]:
        counts: dict[str, int] = {}
        for event, hooks in self._by_event.items():
            for running in hooks:
                key = f"{event} {running.hook.name}"
                counts[key] = counts.get(key, 0) + 1
                yield f"{key} {counts[key]}", running

    def emit(self, name: str, event: Event, obey: Callable[[Event, Asked], Event]) -> Event:
        """Run the hooks of an event; each sees what `obey` made of it for the ones before. Returns the last."""
        for running in self._by_event.get(name, ()):
            try:
                directive = running(event)
            except Exception as error:
                note(error, {"hook": running.hook})
                raise
            if directive is not None:
                if isinstance(directive, Stop) and directive.final and self.ended is None:
                    running.ended = directive.reason
                event = obey(event, directive)
        return event


class _Running:
    """A hook during a run."""

    __slots__ = ("always", "fn", "hook", *_KEPT)

    def __init__(self, hook: Hook) -> None:
        self.hook, self.fn, self.memory = hook, hook.fn, deepcopy(hook.init)
        self.seen, self.spent = 0, False
        self.ended: str | None = None
        self.always = hook.every == 1 and not hook.once and hook.when is None

    def __call__(self, event: Event) -> Directive:
        self.seen += 1
        if not (self.always or self._due(event)):
            return None
        result = self.fn(self.memory, event)
        if not isinstance(result, tuple) or len(result) != 2:
            raise TypeError(f"{self.hook!r}, a fold, returns (memory, directive); this is {result!r}")
        self.memory, directive = result
        self.spent = self.hook.once
        if directive is None or isinstance(directive, Asked):
            return directive
        raise TypeError(
            f"{self.hook!r} returned {directive!r}; a hook returns None, Stop(reason), Replace(…), Validate() or Save()"
        )

    def _due(self, event: Event) -> bool:
        hook = self.hook
        if self.spent or (self.seen - 1) % hook.every:
            return False
        return hook.when is None or bool(hook.when(event))
