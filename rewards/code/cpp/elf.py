"""Reads ELF files (64-bit, little-endian): which symbols an object defines and needs, what a program runs first.

The files come out of a linker that was fed hostile objects: every offset is checked by the slices and unpacks
themselves, and whatever does not fit is an ElfError.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# From elf.h.
_SYMTAB, _DYNSYM = 2, 11
_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
_BIND_LOCAL = 0
_DT_NEEDED, _DT_STRTAB, _DT_RELA, _DT_RELASZ, _DT_PLTRELSZ, _DT_JMPREL, _DT_PREINIT = 1, 5, 7, 8, 2, 23, 32
_DT_AUDIT, _DT_DEPAUDIT, _DT_RPATH, _DT_RUNPATH, _DT_RELR = 0x6FFFFEFC, 0x6FFFFEFB, 15, 29, 36
_IRELATIVE = {62: 37, 183: 1032}  # by machine: x86-64, aarch64


class ElfError(ValueError):
    """Not an ELF file that a compiler of ours writes."""


@dataclass(frozen=True)
class Symbols:
    """Names that other objects can see (`defined`) and that other objects must bring (`undefined`)."""

    defined: frozenset[str]
    undefined: frozenset[str]


def symbols(data: bytes, dynamic: bool = False) -> Symbols:
    """The global and weak symbols of an object file, or of a shared library (`dynamic`). Raises ElfError."""
    try:
        return _symbols(data, _DYNSYM if dynamic else _SYMTAB)
    except (struct.error, IndexError) as problem:
        raise ElfError(f"broken symbol table: {problem}") from None


def _symbols(data: bytes, kind: int) -> Symbols:
    sections = _sections(data)
    found: dict[bool, set[str]] = {True: set(), False: set()}
    for entry_type, offset, size, link in sections:
        if entry_type != kind:
            continue
        names = data[sections[link][1] : sections[link][1] + sections[link][2]]
        for name, info, _, section, _, _ in struct.iter_unpack("<IBBHQQ", data[offset : offset + size]):
            if info >> 4 != _BIND_LOCAL:
                found[section != 0].add(_text(names, name))
    return Symbols(frozenset(found[True]), frozenset(found[False]))


def _sections(data: bytes) -> list[tuple[int, int, int, int]]:
    """(type, offset, size, link) of every section."""
    _check_header(data)
    start, count = _at("<Q", data, 40)[0], _at("<H", data, 60)[0]
    if count == 0 and start:  # more than 65,279: the number stands in the first section's size
        count = _at("<Q", data, start + 32)[0]
    if start + 64 * count > len(data):
        raise ElfError("section table past the end")
    return [_at("<4xI16xQQI", data, start + 64 * i) for i in range(count)]


def _at(shape: str, data: bytes, start: int) -> Any:
    """struct.unpack_from, which has another exception for numbers of more than 63 bits."""
    if start > len(data):
        raise ElfError("an offset past the end")
    return struct.unpack_from(shape, data, start)


def _check_header(data: bytes) -> None:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ElfError("not a 64-bit little-endian ELF file")


def _text(names: bytes, start: int) -> str:
    end = names.find(b"\0", start)
    if end < 0:
        raise ElfError("name without end")
    return names[start:end].decode("utf-8", "replace")


def interpreter(data: bytes) -> str:
    """The dynamic loader that a program names. Raises ElfError."""
    for kind, offset, _, size, _ in _segments(data):
        if kind == _INTERP:
            return data[offset : offset + size].rstrip(b"\0").decode("utf-8", "replace")
    raise ElfError("no dynamic loader")


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(type, offset, address, size in file, size in memory) of every program header."""
    _check_header(data)
    try:
        start, count = _at("<Q", data, 32)[0], _at("<H", data, 56)[0]
        for i in range(count):
            yield _at("<I4xQQ8xQQ", data, start + 56 * i)
    except struct.error as problem:
        raise ElfError(f"broken program headers: {problem}") from None


def runs_early(data: bytes, loader: str, libraries: frozenset[str]) -> str:
    """Why code of this program might run before its entry point, "" if none can.

    The dynamic loader calls indirect functions (IRELATIVE relocations) and the pre-initialisers, and loads
    libraries and auditors, before it jumps to the entry point. loader, libraries: what honest programs name.
    """
    try:
        if interpreter(data) != loader:
            return f"another dynamic loader: {interpreter(data)[:80]}"
        return _dynamic_problem(data, libraries)
    except (struct.error, IndexError, KeyError, ElfError) as problem:
        return f"no program that a linker writes: {problem}"


def _dynamic_problem(data: bytes, libraries: frozenset[str]) -> str:
    segments = list(_segments(data))
    tables = [(offset, size) for kind, offset, _, size, _ in segments if kind == _DYNAMIC]
    if len(tables) != 1:
        return f"{len(tables)} dynamic sections"
    entries = _dynamic_entries(data, *tables[0])
    values = dict(entries)
    single = [tag for tag, _ in entries if tag != _DT_NEEDED]
    if len(single) != len(set(single)):
        return "a dynamic entry that is given twice"
    for tag in (_DT_PREINIT, _DT_AUDIT, _DT_DEPAUDIT, _DT_RPATH, _DT_RUNPATH, _DT_RELR):
        if tag in values:
            return f"dynamic entry {tag} (e.g. a pre-initialiser)"
    names = data[_offset(segments, values[_DT_STRTAB]) :]
    for tag, value in entries:
        if tag == _DT_NEEDED and _text(names, value) not in libraries:
            return f"the library {_text(names, value)[:80]}"
    return _relocation_problem(data, segments, values)


def _dynamic_entries(data: bytes, offset: int, size: int) -> list[tuple[int, int]]:
    entries = []
    for tag, value in struct.iter_unpack("<QQ", data[offset : offset + size - size % 16]):
        if tag == 0:
            break
        entries.append((tag, value))
    return entries


def _relocation_problem(data: bytes, segments: list[tuple[int, int, int, int, int]], values: dict[int, int]) -> str:
    indirect = _IRELATIVE.get(_at("<H", data, 18)[0])
    for table, size in ((_DT_RELA, _DT_RELASZ), (_DT_JMPREL, _DT_PLTRELSZ)):
        if table in values:
            start = _offset(segments, values[table])
            for _, info, _ in struct.iter_unpack("<QQq", data[start : start + values[size]]):
                if info & 0xFFFFFFFF == indirect:
                    return "an indirect function (ifunc)"
    return ""


def _offset(segments: list[tuple[int, int, int, int, int]], address: int) -> int:
    for kind, offset, start, size, _ in segments:
        if kind == _LOAD and start <= address < start + size:
            return offset + address - start
    raise ElfError("an address outside of the file")
