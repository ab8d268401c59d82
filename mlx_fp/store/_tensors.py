"""Arrays as raw bytes and back, bit for bit, whatever their dtype and strides."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ..core._mlx import mx
from ..core._types import Array

__all__ = ["DTYPES", "WIDTHS", "Tensor", "as_array", "as_tensor"]

DTYPES = {
    "BOOL": mx.bool_,
    "U8": mx.uint8,
    "U16": mx.uint16,
    "U32": mx.uint32,
    "U64": mx.uint64,
    "I8": mx.int8,
    "I16": mx.int16,
    "I32": mx.int32,
    "I64": mx.int64,
    "F16": mx.float16,
    "BF16": mx.bfloat16,
    "F32": mx.float32,
    "F64": mx.float64,
    "C64": mx.complex64,
}
"""MLX's dtypes by the names that safetensors has for them."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}

WIDTHS = {name: int(name.lstrip("BFCIU") or 8) // 8 if name != "BOOL" else 1 for name in DTYPES}
"""Bytes of an element, by dtype."""

_WORDS = {1: ("B", mx.uint8), 2: ("H", mx.uint16), 4: ("I", mx.uint32), 8: ("Q", mx.uint64)}


@dataclass(frozen=True, slots=True)
class Tensor:
    """The dtype, shape and bytes of an array, in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    sha256: str | None = None
    """The SHA-256 of the bytes in hexadecimal, where it is known."""

    @property
    def fits(self) -> bool:
        """Whether there are as many bytes as dtype and shape say."""
        return prod(self.shape) * WIDTHS[self.dtype] == len(self.data)


def as_tensor(array: Array) -> Tensor:
    """Return an array's bytes; they are the array's own memory, so hold no writer to it.

    >>> bytes(as_tensor(mx.array([[1, 2], [3, 4]], mx.uint8).T).data)
    b'\\x01\\x03\\x02\\x04'
    """
    name = NAMES[array.dtype]
    if not array.size:
        return Tensor(name, tuple(array.shape), memoryview(b""))
    flat = mx.contiguous(array.reshape(-1))
    if name == "C64":
        flat = mx.view(flat, mx.float32)
    words = mx.view(flat, _WORDS[min(WIDTHS[name], 4 if name == "C64" else 8)][1])
    mx.eval(words)
    return Tensor(name, tuple(array.shape), memoryview(words).cast("B"))  # type: ignore[arg-type]


def as_array(tensor: Tensor) -> Array:
    """Return an evaluated array with a tensor's bytes, in memory of its own.

    >>> as_array(as_tensor(mx.array([1.5, -0.0], mx.bfloat16))).tolist()
    [1.5, -0.0]
    """
    dtype, width = DTYPES[tensor.dtype], WIDTHS[tensor.dtype]
    if not len(tensor.data):
        return mx.zeros(tensor.shape, dtype)
    letter: Any
    letter, word = _WORDS[4 if tensor.dtype == "C64" else width]
    words: Any = memoryview(tensor.data).cast(letter)
    made = mx.array(words, word)
    with mx.stream(mx.cpu):
        array = mx.view(mx.view(made, mx.float32) if tensor.dtype == "C64" else made, dtype).reshape(tensor.shape)
        mx.eval(array)
    return array
