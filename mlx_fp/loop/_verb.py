"""A verb of a trainer as a record, which prints as the call that made it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from reprlib import Repr
from types import BuiltinFunctionType, FunctionType, MethodType

from ..core._frozen import FrozenDict, freeze_field
from ..core._pickling import Picklable
from ..core._signature import name_of
from ._trainer_record import Trainer, checked_trainer

__all__ = ["TrainerVerb", "as_verb"]

_MISSING = object()


@dataclass(frozen=True, slots=True, repr=False, eq=False)
class TrainerVerb(Picklable):
    """A function from a trainer to a changed copy of it.

    It prints as the call that made it, and goes through pickle where its arguments do.

    >>> from mlx_fp import early_stop, monitor
    >>> early_stop(patience=3), monitor("val_loss", min_delta=0.1)
    (early_stop(patience=3), monitor('val_loss', min_delta=0.1))
    """

    name: str
    change: Callable[[Trainer], Trainer]
    args: tuple[object, ...] = ()
    """The positional arguments of the call, for the repr."""
    options: Mapping[str, object] = field(default_factory=FrozenDict)
    """The keyword arguments of the call, for the repr."""

    def __post_init__(self) -> None:
        freeze_field(self, "options")

    def __call__(self, target: Trainer) -> Trainer:
        """Return a changed copy of a trainer. Raise TypeError for anything but a trainer."""
        return self.change(checked_trainer(target, self.name))

    def __repr__(self) -> str:
        given = [*map(_SHORT.repr, self.args), *(f"{name}={_SHORT.repr(one)}" for name, one in self.options.items())]
        return f"{self.name}({', '.join(given)})"


def as_verb(
    fn: Callable[..., TrainerVerb], change: Callable[[Trainer], Trainer], /, *args: object, **options: object
) -> TrainerVerb:
    """Return the verb that a call of `fn` with these arguments makes.

    Args:
        fn: The public function. Its name, and the defaults of its keyword-only parameters, are for the repr.
        change: The function from a trainer to a changed copy. It may be another verb.
        args: The positional arguments of the call.
        options: The keyword arguments of the call. The repr leaves out those that have the default value.

    >>> from mlx_fp import plateau
    >>> as_verb(plateau, lambda target: target, 0.5, patience=2, least=0.0)
    plateau(0.5, patience=2)
    """
    defaults = fn.__kwdefaults__ or {} if isinstance(fn, FunctionType) else {}
    shown = {name: value for name, value in options.items() if not _is_same(value, defaults.get(name, _MISSING))}
    return TrainerVerb(fn.__name__, change, args, FrozenDict(shown))


def _is_same(value: object, default: object) -> bool:
    """Tell whether an argument is a default: the same object, or an equal plain value."""
    plain = isinstance(value, (bool, int, float, str)) and type(value) is type(default)
    return value is default or (plain and value == default)


class _Short(Repr):
    """Reprs of arguments: functions by their names, arrays without their values, long containers cut."""

    def repr1(self, x: object, level: int) -> str:
        """Return the repr of a value."""
        if isinstance(x, (FunctionType, BuiltinFunctionType, MethodType, type, partial)):
            return name_of(x)
        if type(x).__name__ in ("array", "ndarray"):
            return "array(…)"
        if isinstance(x, FrozenDict):
            return self.repr_dict(dict(x), level)
        return super().repr1(x, level)


_SHORT = _Short()
_SHORT.maxother = _SHORT.maxstring = _SHORT.maxlong = 200
