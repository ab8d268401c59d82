"""Fold an event through hooks, in a run or in a loop of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from ..core._errors import note
from ..core._types import Params, State
from ._directive import Directive, HookResult, Interrupt, Replace, Stop
from ._event import AfterBackward, Event
from ._event_table import name_of_event
from ._hook import Hook, HookState
from ._replacing import checked_tree
from ._run_state import RunState, TrainState, run_state

__all__ = ["emit", "emit_to"]

Carry = Callable[[Params, State], TrainState]
"""A function that puts parameters and optimiser state into the form in which a loop takes steps."""


def emit(
    hooks: Sequence[Hook], states: Sequence[HookState], event: Event
) -> tuple[tuple[HookState, ...], Event, tuple[Directive, ...]]:
    """Fold an event through the hooks that listen to it, for a loop of the user's own.

    Hooks run by priority. Each hook receives the event with every earlier `Replace` applied.

    Args:
        hooks: All hooks of the loop.
        states: Their states, from `hook_states` or an earlier call.
        event: The event, from `event(name, …)`.

    Returns:
        The new states, the event with each `Replace` applied, and the directives, which the caller carries out.

    Raises:
        ValueError: The numbers of hooks and states differ.
        TypeError: A hook returns something else than a directive or None.

    >>> from mlx_fp import event, fold, hook_states
    >>> hooks = (fold("before_epoch", 0, lambda count, event: (count + 1, Stop("third") if count == 2 else None)),)
    >>> states = hook_states(hooks)
    >>> for epoch in range(3):
    ...     states, _, directives = emit(hooks, states, event("before_epoch", {}, {}, epoch=epoch))
    >>> states[0].memory, directives
    (3, (Stop(reason='third', final=True, diverged=False),))
    """
    if len(states) != len(hooks):
        raise ValueError(f"each hook has a state, from hook_states(hooks): {len(hooks)} hooks, {len(states)} states")
    name = name_of_event(event)
    order = sorted((i for i, hook in enumerate(hooks) if hook.event == name), key=lambda i: hooks[i].priority)
    after, event, directives = emit_to(order, hooks, states, event)
    return after, event, tuple(each for each in directives if not isinstance(each, Interrupt))


def emit_to(
    numbers: Sequence[int],
    hooks: Sequence[Hook],
    states: Sequence[HookState],
    event: Event,
    carry: Carry | None = None,
    signal: Callable[[], str | None] = lambda: None,
) -> tuple[tuple[HookState, ...], Event, tuple[Directive | Interrupt, ...]]:
    """Fold an event through the hooks of these numbers.

    `carry(params, opt_state)` puts a replaced state into the form of the loop. `signal()` returns the name of a signal
    that has come, or None.
    """
    after = list(states)
    directives: list[Directive | Interrupt] = []
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
            directives.append(Interrupt(name))
        if directive is not None:
            directives.append(directive)
            if isinstance(directive, Stop) and directive.final and all(state.ended is None for state in after):
                after[i] = after[i]._replace(ended=directive.reason)
    return tuple(after), event, tuple(directives)


def _run_hook(hook: Hook, state: HookState, event: Event) -> tuple[HookState, HookResult]:
    """Run a hook if it is due; return its new state and its directive."""
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


def _apply_replace(event: Event, by: Replace, carry: Carry | None) -> Event:
    """Return an event with the parameters, state or gradients of a `Replace`, which are checked first."""
    if by.grads is not None and not isinstance(event, AfterBackward):
        raise TypeError("Replace(grads=…) is for hooks of after_backward, where gradients are")
    if by.params is not None or by.opt_state is not None:
        state = event.state
        params, opt_state = (
            present if replacement is None else checked_tree(name, present, replacement)
            for name, present, replacement in (
                ("params", state.params, by.params),
                ("opt_state", state.opt_state, by.opt_state),
            )
        )
        event = replace(
            event, state=run_state(params, opt_state) if carry is None else RunState(carry(params, opt_state))
        )
    if by.grads is None:
        return event
    assert isinstance(event, AfterBackward)
    return replace(event, grads=checked_tree("grads", event.grads, by.grads))
