"""Hooks: folds over the events of a run. A hook returns a directive, and the loop carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol

from ..core._options import FLAG, FUNCTION, check_options, count, number, optional
from ..core._pickling import Picklable
from ..core._signature import name_of
from ._directive import HookResult
from ._event_table import event_name

__all__ = ["Hook", "HookFold", "HookState", "RunHooks", "fold", "hook", "hook_keys", "hook_states", "opened_hooks"]

_SCHEDULE = {"priority": number(), "every": count(1), "once": FLAG, "when": optional(FUNCTION)}
"""The rules of the options that say when a hook runs."""


class HookFold(Protocol):
    """The function of a hook with a memory: `fn(memory, event) -> (memory, directive)`."""

    def __call__(self, memory: Any, event: Any, /) -> tuple[Any, HookResult]:
        """Return the new memory, and a directive or None."""


@dataclass(frozen=True, slots=True)
class Hook(Picklable):
    """A fold over one kind of event, and the options that say when it runs; `fold` and `hook` describe them."""

    event: str
    fn: HookFold
    init: object = None
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


@dataclass(frozen=True, slots=True)
class RunHooks(Picklable):
    """Hooks that exist within a run only, for example those with an open file.

    `open()` is called before each run. It returns a context that yields the hooks, and ends after the run.
    """

    open: Callable[[], AbstractContextManager[Sequence[Hook]]]
    name: str = "hooks"

    def __repr__(self) -> str:
        return self.name


@contextmanager
def opened_hooks(hooks: Sequence[Hook | RunHooks]) -> Iterator[tuple[Hook, ...]]:
    """Within, yield the hooks of a run, in the same order.

    >>> with opened_hooks([hook("after_fit", print)]) as hooks:
    ...     hooks
    (on('after_fit', print),)
    """
    with ExitStack() as opened:
        groups = [[each] if isinstance(each, Hook) else opened.enter_context(each.open()) for each in hooks]
        yield tuple(chain.from_iterable(groups))


def fold(
    event: str,
    init: object,
    fn: HookFold,
    *,
    priority: int = 0,
    every: int = 1,
    once: bool = False,
    when: Callable[[Any], bool] | None = None,
    name: str | None = None,
) -> Hook:
    """Make a hook with a memory.

    The memory is part of the state of a run: a checkpoint holds it.

    Args:
        event: The name of the event, for example `"after_epoch"`.
        init: The memory at the start of each run: plain values, arrays, or containers of these.
        fn: `fn(memory, event) -> (memory, directive)`. The directive is None, `Stop`, `Replace`, `Save` or `Validate`.
        priority: Hooks run in the order of their priorities, low ones first, then in the order of their addition.
        every: With `every=n` the hook runs on emissions 1, n+1, 2n+1, …, counted before `when` is asked.
        once: Whether the hook runs at most one time in a run.
        when: `when(event)` tells whether the hook runs. None: always.
        name: The name in messages and checkpoints. None: the name of the function.

    Returns:
        A hook, for `with_hooks`.

    Raises:
        ValueError: There is no such event, or an option is out of range.
        TypeError: `fn` or `when` is no function.

    >>> from mlx_fp import Stop
    >>> fold("after_epoch", 0, lambda count, event: (count + 1, Stop("two epochs") if count == 1 else None))
    on('after_epoch', <lambda>)
    """
    return Hook(event_name(event), fn, init, priority, every, once, when, name or name_of(fn))


def hook(event: str, fn: Callable[[Any], HookResult], **schedule: Any) -> Hook:
    """Make a hook of a function of the event.

    Args:
        event: The name of the event, for example `"after_epoch"`.
        fn: `fn(event)` returns a directive, or None.
        schedule: `priority`, `every`, `once`, `when` and `name`, as for `fold`.

    Returns:
        A hook, for `with_hooks`.

    Raises:
        ValueError: There is no such event, or an option is out of range.
        TypeError: `fn` is no function.

    >>> hook("after_epoch", print, every=2)
    on('after_epoch', print)
    """
    if not callable(fn):
        raise TypeError(f"a hook for {event!r} is a function of the event; got {fn!r}")
    return fold(event, None, lambda memory, event: (memory, fn(event)), **{"name": name_of(fn), **schedule})


class HookState(NamedTuple):
    """The state of a hook in a run: its memory, and the number of events that it has seen."""

    memory: object = None
    seen: int = 0
    spent: bool = False
    """Whether a hook with `once` has run."""
    ended: str | None = None
    """The reason of its final `Stop`."""


def hook_states(hooks: Sequence[Hook]) -> tuple[HookState, ...]:
    """Return the state of each hook before a run, for `emit`.

    Args:
        hooks: Hooks that `fold` or `hook` has made.

    Returns:
        A state for each hook, in the same order.

    >>> hook_states([fold("after_step", 0, lambda count, event: (count + 1, None))])[0].memory
    0
    """
    return tuple(HookState(deepcopy(hook.init)) for hook in hooks)


def hook_keys(hooks: Sequence[Hook]) -> list[str]:
    """Return the key of each hook in a file: its event, its name, and its number among the hooks of that name.

    >>> hook_keys([hook("after_epoch", print), hook("after_epoch", print)])
    ['after_epoch print 1', 'after_epoch print 2']
    """
    counts: dict[str, int] = {}
    keys = []
    for each in hooks:
        key = f"{each.event} {each.name}"
        counts[key] = counts.get(key, 0) + 1
        keys.append(f"{key} {counts[key]}")
    return keys
