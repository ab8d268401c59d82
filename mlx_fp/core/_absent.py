"""Stand-ins for MLX where it is not installed, so that code without arrays works."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["REMEDY", "Absent", "AbsentModule"]

REMEDY = (
    "this part of mlx_fp needs MLX: pip install 'mlx-fp[cpu]' on a Linux CPU, 'mlx-fp[cuda12]' or "
    "'mlx-fp[cuda13]' with an NVIDIA GPU, 'mlx-fp' on macOS"
)
"""The packages to install where MLX is missing."""


class Absent:
    """Stand in for a module of MLX, or for a name in such a module.

    A program may name an absent object. The first use of the object raises ImportError with the remedy. No value is
    an instance of an absent class. For example, `isinstance(1.0, mx.array)` is False.

    >>> mx = Absent("mlx.core", ModuleNotFoundError("No module named 'mlx'"))
    >>> mx.float32, isinstance(1.0, mx.array)
    (<mlx.core.float32, not installed>, False)
    >>> mx.zeros((2, 3))
    Traceback (most recent call last):
    ImportError: mlx.core.zeros is not there; this part of mlx_fp needs MLX: pip install ...
    """

    __slots__ = ("_cause", "_name")

    def __init__(self, name: str, cause: ImportError) -> None:
        self._name, self._cause = name, cause

    def __getattr__(self, name: str) -> Any:
        if name in ("__name__", "__qualname__"):
            return self._name.rpartition(".")[2]
        if name.startswith("__"):  # Python itself looks up special names
            raise AttributeError(name)
        return Absent(f"{self._name}.{name}", self._cause)

    def __repr__(self) -> str:
        return f"<{self._name}, not installed>"

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type, ...]:
        return (AbsentModule,)

    def __instancecheck__(self, instance: object) -> bool:
        return False

    def __subclasscheck__(self, subclass: type) -> bool:
        return False

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        """Raise ImportError, because every use needs MLX."""
        raise ImportError(f"{self._name} is not there; {REMEDY}") from self._cause

    __call__ = __bool__ = __int__ = __iter__ = __len__ = __getitem__ = __contains__ = _refuse
    __eq__ = __ne__ = __lt__ = __neg__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = _refuse
    __hash__ = object.__hash__


class AbsentModule:
    """Serve as the base of a class whose own base is absent; such a class has no instances."""

    def __new__(cls, *args: object, **kwargs: object) -> NoReturn:
        """Raise ImportError with the remedy."""
        raise ImportError(f"{cls.__name__} is made of a class of MLX; {REMEDY}")
