"""Read and rewrite the import slots of one loaded shared library (Linux, 64-bit ELF, through ctypes).

An import slot is a pointer through which a library calls a function of another library. For example, libmlx.so calls
`cblas_sgemm` through a slot. Only the slots of that one library change; other libraries of the process keep theirs.

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
"""The system and the processor, for example "linux x86_64". The module `platform` would take 2 ms to import."""

KNOWN = frozenset({"linux x86_64", "linux aarch64"})
"""The systems on which the import slots of a library can be read."""

_DYNAMIC, _RELRO = 2, 0x6474E552  # p_type
_PLTRELSZ, _STRTAB, _SYMTAB, _RELA, _RELASZ, _STRSZ, _JMPREL, _RELACOUNT = 2, 5, 6, 7, 8, 10, 23, 0x6FFFFFF9  # d_tag
_FUNCTION = frozenset({6, 7, 1025, 1026})  # GLOB_DAT and JUMP_SLOT of x86-64 and of aarch64
_READ, _READ_WRITE = 1, 3


@dataclass(frozen=True, slots=True)
class Image:
    """A loaded library: its file, its load address, and its segments as (type, address, bytes)."""

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
    """Return the loaded library with the file name `name`, or None if the process has not loaded it."""
    images: list[Image] = []

    def visit(info: ctypes._Pointer[_PhdrInfo], _size: int, _data: object) -> int:
        entry = info.contents
        file = os.fsdecode(entry.name or b"")
        if os.path.basename(file) == name:
            images.append(Image(file, entry.addr, _segments(entry)))
        return len(images)  # a result above 0 ends the iteration

    ctypes.CDLL(None).dl_iterate_phdr(_VISIT(visit), None)
    return images[0] if images else None


def imports(lib: Image, pattern: re.Pattern[bytes]) -> dict[str, tuple[int, ...]]:
    """Return the addresses of the slots of each function that `lib` imports, by name, for names that match."""
    tags = _dynamic(lib)
    names, full_name = ctypes.string_at(tags[_STRTAB], tags[_STRSZ]), re.compile(b"(%b)\0" % pattern.pattern)
    slots: dict[str, tuple[int, ...]] = {}
    nameless = 24 * tags.get(_RELACOUNT, 0)  # bytes of the relative relocations at the start of a table
    for table, size, skipped in ((_RELA, _RELASZ, nameless), (_JMPREL, _PLTRELSZ, 0)):
        for offset, info, _addend in _rows("<QQq", tags.get(table, 0) + skipped, tags.get(size, 0) - skipped):
            if info & 0xFFFFFFFF in _FUNCTION and (match := full_name.match(names, _name(tags[_SYMTAB], info >> 32))):
                name = match[1].decode()
                slots[name] = (*slots.get(name, ()), lib.base + offset)
    return slots


def read(slot: int) -> int:
    """Return the pointer in a slot."""
    return int(ctypes.c_uint64.from_address(slot).value)


def write(lib: Image, pointers: Mapping[int, int]) -> dict[int, int]:
    """Write a pointer into each slot of `lib`; return the previous pointers. To undo it, write them back.

    OSError, and nothing is written, if a page of slots cannot be made writable.
    """
    pages = {slot - slot % _page() for slot in pointers}
    before = {slot: read(slot) for slot in pointers}
    try:
        _protect(pages, _READ_WRITE)
        for slot, pointer in pointers.items():
            ctypes.c_uint64.from_address(slot).value = pointer
    finally:
        with suppress(OSError):  # a page that stays writable does no harm
            _protect(pages & _relro(lib), _READ)
    return before


def address(library: ctypes.CDLL, *names: str) -> int:
    """Return the address of the first of these functions that a library has, or 0."""
    functions = (getattr(library, name, None) for name in names)
    return next((ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions if f is not None), 0)


def owner(pointer: int) -> str:
    """Return the file of the library that contains an address, or "" if no library contains it."""
    info = _DlInfo()
    is_known = ctypes.CDLL(None).dladdr(ctypes.c_void_p(pointer), ctypes.byref(info))
    return os.fsdecode(info.file) if is_known and info.file else ""


def _segments(entry: _PhdrInfo) -> tuple[tuple[int, int, int], ...]:
    """Return the segments of a library as (type, address, bytes)."""
    rows = (entry.phdr[i] for i in range(entry.phnum))
    return tuple((row.type, entry.addr + row.vaddr, row.memsz) for row in rows)


def _dynamic(lib: Image) -> dict[int, int]:
    """Return the dynamic section by tag, with absolute table addresses (glibc stores absolute ones, musl does not)."""
    section = next(((start, size) for kind, start, size in lib.segments if kind == _DYNAMIC), (0, 0))
    tags = {row[0]: row[1] for row in _rows("<qQ", *section)}
    tables = {tag: tags[tag] for tag in (_STRTAB, _SYMTAB, _RELA, _JMPREL) if tag in tags}
    return tags | {tag: start if start >= lib.base else lib.base + start for tag, start in tables.items()}


def _name(table: int, index: int) -> int:
    """Return the offset of a symbol's name in the table of names: the first field of an Elf64_Sym, of 24 bytes."""
    return ctypes.c_uint32.from_address(table + 24 * index).value


def _rows(layout: str, start: int, size: int) -> Iterable[tuple[int, ...]]:
    """Return the rows of a table in memory; `layout` is the format of a row for the module `struct`."""
    row_bytes = struct.calcsize(layout)
    return struct.iter_unpack(layout, ctypes.string_at(start, size - size % row_bytes)) if start and size else ()


def _relro(lib: Image) -> set[int]:
    """Return the addresses of the pages that the linker has made read-only after relocation."""
    page = _page()
    spans = ((start, start + size) for kind, start, size in lib.segments if kind == _RELRO)
    return {start for low, high in spans for start in range(low - low % page, high - high % page, page)}


def _protect(pages: Iterable[int], access: int) -> None:
    """Set the access of pages; OSError if the system refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    for page in pages:
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(_page()), access):
            raise OSError(ctypes.get_errno(), f"mprotect: {os.strerror(ctypes.get_errno())}")


def _page() -> int:
    """Return the size of a memory page in bytes."""
    return os.sysconf("SC_PAGE_SIZE")
