"""Hooks: folds over the events of a run, which ask for things that the loop then does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ..core._errors import note
from ..core._options import FLAG, FUNCTION, check_options, count, number, optional
from ..core._pickling import Picklable
from ..core._signature import name_of
from ._event import AfterBackward, Event, event_name, name_of_event
from ._replacing import checked_tree
from ._run_state import RunState, run_state

__all__ = [
    "Directive",
    "Hook",
    "HookResult",
    "HookState",
    "Interrupt",
    "Replace",
    "Save",
    "Stop",
    "Validate",
    "emit",
    "emit_to",
    "fold",
    "hook",
    "hook_keys",
    "hook_states",
]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run after the step at hand, and for good: resumed with the hook that said so, it has nothing left to do.

    With `final=False` it pauses, as for a limit of time, and goes on when it is resumed. `diverged` says that the
    reason is a loss that is not finite, so that the run does not raise for it.
    """

    reason: str
    final: bool = True
    diverged: bool = False


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


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A signal that came while hooks ran. No hook returns it: `emit_to` puts it among what hooks ask, in order."""

    signal: str


_SCHEDULE = {"priority": number(), "every": count(1), "once": FLAG, "when": optional(FUNCTION)}
"""The rules of when a hook runs."""

Directive = Stop | Replace | Save | Validate
"""What a hook can ask of the loop."""
HookResult = Directive | None
"""What a hook may return."""


@dataclass(frozen=True, slots=True)
class Hook(Picklable):
    """A fold over one kind of event, `fn(memory, event) -> (memory, directive)`, and when it runs.

    Hooks run by `priority`, low ones first, then in the order they were added; on emissions 1, n+1, 2n+1, … for
    `every=n`, counted before `when(event)` is asked; at most one time for `once`.
    """

    event: str
    fn: Callable[[Any, Any], tuple[Any, HookResult]]
    init: Any = None
    priority: int = 0
    every: int = 1
    once: bool = False
    when: Callable[[Any], bool] | None = None
    name: str = "hook"

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"a fold for {self.event!r} is a function (memory, event) -> ...; got {self.fn!r}")
        check_options(f"a hook for {self.event!r}", {name: getattr(self, name) for name in _SCHEDULE}, _SCHEDULE)

    def __repr__(self) -> str:
        return f"on({self.event!r}, {self.name})"


def fold(
    event: str,
    init: Any,
    fn: Callable[[Any, Any], tuple[Any, HookResult]],
    *,
    priority: int = 0,
    every: int = 1,
    once: bool = False,
    when: Callable[[Any], bool] | None = None,
    name: str | None = None,
) -> Hook:
    """Make a hook with memory of its own: `fn(memory, event) -> (memory, directive)`, from `init` on in each run.

    `name` is what messages and checkpoints call it, the function's own name unless one is given.

    >>> fold("after_epoch", 0, lambda count, event: (count + 1, Stop("two epochs") if count == 1 else None))
    on('after_epoch', <lambda>)
    """
    return Hook(event_name(event), fn, init, priority, every, once, when, name or name_of(fn))


def hook(event: str, fn: Callable[[Any], HookResult], **schedule: Any) -> Hook:
    """Make a hook of a plain function of the event, which may return a directive; `schedule` as for `fold`.

    >>> hook("after_epoch", print, every=2)
    on('after_epoch', print)
    """
    if not callable(fn):
        raise TypeError(f"a hook for {event!r} is a function of the event; got {fn!r}")
    return fold(event, None, lambda memory, event: (memory, fn(event)), **{"name": name_of(fn), **schedule})


class HookState(NamedTuple):
    """Where a hook stands in a run: its memory, the emissions it has seen, and its final word."""

    memory: Any = None
    seen: int = 0
    spent: bool = False
    """Whether a hook with `once` has run."""
    ended: str | None = None
    """The reason for which it has ended the run for good."""


def hook_states(hooks: Sequence[Hook]) -> tuple[HookState, ...]:
    """Return the state of each hook before a run, for `emit`."""
    return tuple(HookState(deepcopy(hook.init)) for hook in hooks)


def emit(
    hooks: Sequence[Hook], states: Sequence[HookState], event: Event
) -> tuple[tuple[HookState, ...], Event, tuple[Directive, ...]]:
    """Fold an event through the hooks that listen to it: `(states, event, directives)`.

    Hooks run by priority. Each sees the event with each `Replace` before it applied. The directives are for the caller.

    >>> from mlx_fp import event
    >>> hooks = (fold("before_epoch", 0, lambda count, event: (count + 1, Stop("third") if count == 2 else None)),)
    >>> states = hook_states(hooks)
    >>> for epoch in range(3):
    ...     states, _, asked = emit(hooks, states, event("before_epoch", {}, {}, epoch=epoch))
    >>> states[0].memory, asked
    (3, (Stop(reason='third', final=True, diverged=False),))
    """
    if len(states) != len(hooks):
        raise ValueError(f"each hook has a state, from hook_states(hooks): {len(hooks)} hooks, {len(states)} states")
    name = name_of_event(event)
    order = sorted((i for i, hook in enumerate(hooks) if hook.event == name), key=lambda i: hooks[i].priority)
    after, event, asked = emit_to(order, hooks, states, event)
    return after, event, tuple(directive for directive in asked if not isinstance(directive, Interrupt))


def emit_to(
    numbers: Sequence[int],
    hooks: Sequence[Hook],
    states: Sequence[HookState],
    event: Event,
    carry: Callable[[Any, Any], Any] | None = None,
    signal: Callable[[], str | None] = lambda: None,
) -> tuple[tuple[HookState, ...], Event, tuple[Directive | Interrupt, ...]]:
    """Fold an event through the hooks of these numbers, for a loop.

    `carry(params, opt_state)` gives a replaced state its form; `signal()` names a signal that has come.
    """
    after = list(states)
    asked: list[Directive | Interrupt] = []
    for i in numbers:
        hook = hooks[i]
        try:
            after[i], directive = _run_hook(hook, states[i], event)
            if isinstance(directive, Replace):
                event = _apply_replace(event, directive, carry)
        except Exception as error:
            note(error, {"hook": hook})
            raise
        if (name := signal()) is not None:
            asked.append(Interrupt(name))
        if directive is not None:
            asked.append(directive)
            if isinstance(directive, Stop) and directive.final and all(state.ended is None for state in after):
                after[i] = after[i]._replace(ended=directive.reason)
    return tuple(after), event, tuple(asked)


def hook_keys(hooks: Sequence[Hook]) -> list[str]:
    """Name each hook for a file: by its event, its name, and its number among those of that name.

    >>> hook_keys([hook("after_epoch", print), hook("after_epoch", print)])
    ['after_epoch print 1', 'after_epoch print 2']
    """
    counts: dict[str, int] = {}
    keys = []
    for one in hooks:
        key = f"{one.event} {one.name}"
        counts[key] = counts.get(key, 0) + 1
        keys.append(f"{key} {counts[key]}")
    return keys


def _run_hook(hook: Hook, state: HookState, event: Event) -> tuple[HookState, HookResult]:
    """Run a hook if it is due; return where it stands then and what it asks."""
    memory, seen, spent, ended = state
    if spent or seen % hook.every or not (hook.when is None or hook.when(event)):
        return HookState(memory, seen + 1, spent, ended), None
    result = hook.fn(memory, event)
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(f"{hook!r}, a fold, returns (memory, directive); this is {result!r}")
    memory, directive = result
    if directive is not None and not isinstance(directive, Directive):
        kinds = "None, Stop(reason), Replace(…), Validate() or Save()"
        raise TypeError(f"{hook!r} returned {directive!r}; a hook returns {kinds}")
    return HookState(memory, seen + 1, hook.once, ended), directive


def _apply_replace(event: Event, by: Replace, carry: Callable[[Any, Any], Any] | None) -> Event:
    """Return an event with the parameters, state or gradients that a hook gives in their place, checked."""
    if by.grads is not None and not isinstance(event, AfterBackward):
        raise TypeError("Replace(grads=…) is for hooks of after_backward, where gradients are")
    if by.params is not None or by.opt_state is not None:
        state = event.state
        params, opt_state = (
            own if given is None else checked_tree(name, own, given)
            for name, own, given in (("params", state.params, by.params), ("opt_state", state.opt_state, by.opt_state))
        )
        event = replace(
            event, state=run_state(params, opt_state) if carry is None else RunState(carry(params, opt_state))
        )
    if by.grads is None:
        return event
    assert isinstance(event, AfterBackward)
    return replace(event, grads=checked_tree("grads", event.grads, by.grads))
