"""Convert arrays of any dtype and strides to raw bytes and back, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from ._mlx import mx
from ._types import Array

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
"""The dtypes of MLX by their names in safetensors."""

NAMES = {dtype: name for name, dtype in DTYPES.items()}

WIDTHS = {name: int(name.lstrip("BFCIU") or 8) // 8 if name != "BOOL" else 1 for name in DTYPES}
"""The number of bytes of an element, by dtype name."""

_WORDS = {1: ("B", mx.uint8), 2: ("H", mx.uint16), 4: ("I", mx.uint32), 8: ("Q", mx.uint64)}


@dataclass(frozen=True, slots=True)
class Tensor:
    """Hold the dtype, the shape and the bytes of an array in row-major order."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    sha256: str | None = None
    """The SHA-256 of the bytes in hexadecimal, or None if it is not computed yet."""

    @property
    def fits(self) -> bool:
        """Whether the number of bytes agrees with dtype and shape."""
        return prod(self.shape) * WIDTHS[self.dtype] == len(self.data)


def as_tensor(array: Array) -> Tensor:
    """Return the bytes of an array without a copy. They are the memory of the array, so nobody may write to them.

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
    return Tensor(name, tuple(array.shape), memoryview(words).cast("B"))  # type: ignore[arg-type]  # arrays have buffers


def as_array(tensor: Tensor) -> Array:
    """Copy the bytes of a tensor into a new, evaluated array.

    >>> as_array(as_tensor(mx.array([1.5, -0.0], mx.bfloat16))).tolist()
    [1.5, -0.0]
    """
    dtype, width = DTYPES[tensor.dtype], WIDTHS[tensor.dtype]
    if not len(tensor.data):
        return mx.zeros(tensor.shape, dtype)
    letter: Any
    letter, word = _WORDS[4 if tensor.dtype == "C64" else width]
    words: Any = memoryview(tensor.data).cast(letter)
    integers = mx.array(words, word)
    with mx.stream(mx.cpu):
        array = mx.view(mx.view(integers, mx.float32) if tensor.dtype == "C64" else integers, dtype).reshape(
            tensor.shape
        )
        mx.eval(array)
    return array
