"""Hooks: folds over the events of a run, which ask for things that the loop then does."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from .. import call
from .event import Event, event_name

__all__ = ["Directive", "Hook", "Hooks", "Replace", "Stop", "fold", "hook"]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run after the step at hand."""

    reason: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Go on with other parameters, optimiser state or, from `after_backward`, gradients."""

    params: Any = None
    opt_state: Any = None
    grads: Any = None


Directive = Stop | Replace | None
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
    if isinstance(every, bool) or not isinstance(every, int) or every < 1:
        raise ValueError(f"every is a count of emissions, 1 or more; got {every!r}")
    return Hook(event_name(event), fn, init, priority, every, once, when, call.name_of(fn))


def hook(event: str, fn: Callable[[Any], Directive], **schedule: Any) -> Hook:
    """Make a hook of a plain function of the event, which may return a directive; `schedule` as for `fold`.

    >>> hook("after_epoch", print, every=2)
    on('after_epoch', print)
    """
    if not callable(fn):
        raise TypeError(f"a hook for {event!r} is a function of the event; got {fn!r}")
    made = fold(event, None, lambda memory, event: (memory, fn(event)), **schedule)
    return replace(made, name=call.name_of(fn))


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

    def emit(self, name: str, event: Event, obey: Callable[[Event, Stop | Replace], Event]) -> Event:
        """Run the hooks of an event; each sees what `obey` made of it for the ones before. Returns the last."""
        for running in self._by_event.get(name, ()):
            directive = running(event)
            if directive is not None:
                event = obey(event, directive)
        return event


class _Running:
    """A hook during a run."""

    def __init__(self, hook: Hook) -> None:
        self.hook, self.memory = hook, hook.init
        self.seen, self.spent = 0, False

    def __call__(self, event: Event) -> Directive:
        hook = self.hook
        self.seen += 1
        if self.spent or (self.seen - 1) % hook.every or (hook.when is not None and not hook.when(event)):
            return None
        self.memory, directive = hook.fn(self.memory, event)
        self.spent = hook.once
        if directive is not None and not isinstance(directive, (Stop, Replace)):
            raise TypeError(f"{hook!r} returned {directive!r}; a hook returns None, Stop(reason) or Replace(…)")
        return directive
