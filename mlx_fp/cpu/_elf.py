"""Read and rewrite the functions that one loaded shared library imports (Linux, 64-bit ELF, through ctypes).

Only the library's own import slots change, so nothing else in the process is touched.

Source: System V ABI, ELF-64 chapters 4 and 5 (https://refspecs.linuxfoundation.org/elf/gabi4+/contents.html);
`dl_iterate_phdr(3)`, `dladdr(3)`, `mprotect(2)`.
"""

from __future__ import annotations

import ctypes
import os
import re
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["HERE", "KNOWN", "Image", "address", "image", "imports", "owner", "read", "write"]

HERE = f"{sys.platform} {os.uname().machine}" if hasattr(os, "uname") else sys.platform
"""What this runs on, such as "linux x86_64"; the module `platform` says it too, for 2 ms of import."""

KNOWN = frozenset({"linux x86_64", "linux aarch64"})
"""Where a library's imports can be read."""

_DYNAMIC, _RELRO = 2, 0x6474E552  # p_type
_PLTRELSZ, _STRTAB, _SYMTAB, _RELA, _RELASZ, _STRSZ, _JMPREL, _RELACOUNT = 2, 5, 6, 7, 8, 10, 23, 0x6FFFFFF9  # d_tag
_FUNCTION = frozenset({6, 7, 1025, 1026})  # GLOB_DAT and JUMP_SLOT of x86-64 and of aarch64
_READ, _READ_WRITE = 1, 3


@dataclass(frozen=True, slots=True)
class Image:
    """A loaded library: its file, the address it was loaded at, its segments as (type, address, bytes)."""

    file: str
    base: int
    segments: tuple[tuple[int, int, int], ...]


class _Phdr(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
    ]


class _PhdrInfo(ctypes.Structure):
    _fields_ = [
        ("addr", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("phdr", ctypes.POINTER(_Phdr)),
        ("phnum", ctypes.c_uint16),
    ]


_VISIT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_PhdrInfo), ctypes.c_size_t, ctypes.c_void_p)


class _DlInfo(ctypes.Structure):
    _fields_ = [
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    ]


def image(name: str) -> Image | None:
    """Return the loaded library whose file is called `name`, or None where the process has none."""
    found: list[Image] = []

    def visit(info: ctypes._Pointer[_PhdrInfo], _size: int, _data: object) -> int:
        entry = info.contents
        file = os.fsdecode(entry.name or b"")
        if os.path.basename(file) == name:
            found.append(Image(file, entry.addr, _segments(entry)))
        return len(found)

    ctypes.CDLL(None).dl_iterate_phdr(_VISIT(visit), None)
    return found[0] if found else None


def imports(lib: Image, wanted: re.Pattern[bytes]) -> dict[str, tuple[int, ...]]:
    """Return the addresses of the slots through which `lib` calls each imported function of a `wanted` name."""
    tags = _dynamic(lib)
    names, whole = ctypes.string_at(tags[_STRTAB], tags[_STRSZ]), re.compile(b"(%b)\0" % wanted.pattern)
    found: dict[str, tuple[int, ...]] = {}
    nameless = 24 * tags.get(_RELACOUNT, 0)  # bytes of the relative relocations, which a table begins with
    for table, size, skipped in ((_RELA, _RELASZ, nameless), (_JMPREL, _PLTRELSZ, 0)):
        for offset, info, _addend in _rows("<QQq", tags.get(table, 0) + skipped, tags.get(size, 0) - skipped):
            if info & 0xFFFFFFFF in _FUNCTION and (named := whole.match(names, _name(tags[_SYMTAB], info >> 32))):
                name = named[1].decode()
                found[name] = (*found.get(name, ()), lib.base + offset)
    return found


def read(slot: int) -> int:
    """Return the pointer that a slot holds."""
    return int(ctypes.c_uint64.from_address(slot).value)


def write(lib: Image, pointers: Mapping[int, int]) -> dict[int, int]:
    """Write a pointer into each slot of `lib` and return what was there: writing that back undoes it.

    OSError: a page of slots cannot be made writable; nothing was written then.
    """
    pages = {slot - slot % _page() for slot in pointers}
    before = {slot: read(slot) for slot in pointers}
    try:
        _protect(pages, _READ_WRITE)
        for slot, pointer in pointers.items():
            ctypes.c_uint64.from_address(slot).value = pointer
    finally:
        with suppress(OSError):  # a page left writable does no harm
            _protect(pages & _relro(lib), _READ)
    return before


def address(library: ctypes.CDLL, *names: str) -> int:
    """Return the address of the first of these functions that a library has, or 0."""
    found = (getattr(library, name, None) for name in names)
    return next((ctypes.cast(f, ctypes.c_void_p).value or 0 for f in found if f is not None), 0)


def owner(pointer: int) -> str:
    """Return the file of the library that an address lies in, or "" where it lies in none."""
    info = _DlInfo()
    known = ctypes.CDLL(None).dladdr(ctypes.c_void_p(pointer), ctypes.byref(info))
    return os.fsdecode(info.file) if known and info.file else ""


def _segments(entry: _PhdrInfo) -> tuple[tuple[int, int, int], ...]:
    rows = (entry.phdr[i] for i in range(entry.phnum))
    return tuple((row.type, entry.addr + row.vaddr, row.memsz) for row in rows)


def _dynamic(lib: Image) -> dict[int, int]:
    """Return the dynamic section by tag, its table addresses made absolute (glibc has done so, musl has not)."""
    where = next(((at, size) for kind, at, size in lib.segments if kind == _DYNAMIC), (0, 0))
    tags = {row[0]: row[1] for row in _rows("<qQ", *where)}
    tables = {tag: tags[tag] for tag in (_STRTAB, _SYMTAB, _RELA, _JMPREL) if tag in tags}
    return tags | {tag: at if at >= lib.base else lib.base + at for tag, at in tables.items()}


def _name(table: int, index: int) -> int:
    """Return where the name of a symbol is in the table of names: an Elf64_Sym is 24 bytes and begins with this."""
    return ctypes.c_uint32.from_address(table + 24 * index).value


def _rows(shape: str, at: int, size: int) -> Iterable[tuple[int, ...]]:
    step = struct.calcsize(shape)
    return struct.iter_unpack(shape, ctypes.string_at(at, size - size % step)) if at and size else ()


def _relro(lib: Image) -> set[int]:
    page = _page()
    spans = ((at, at + size) for kind, at, size in lib.segments if kind == _RELRO)
    return {start for low, high in spans for start in range(low - low % page, high - high % page, page)}


def _protect(pages: Iterable[int], access: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for page in pages:
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_page()), access):
            raise OSError(ctypes.get_errno(), f"mprotect: {os.strerror(ctypes.get_errno())}")


def _page() -> int:
    return os.sysconf("SC_PAGE_SIZE")
