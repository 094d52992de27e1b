"""Rows of files, read from disk on access: a million rows take 13 MB of memory, whatever their size."""

import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, overload

from data_prep.core.rows import parse
from data_prep.core.step import Drop, Row


class StoredRow(dict[str, Any]):
    """A read-only row with its line, which is written unchanged. Copies (`{**row}`) have no line."""

    __slots__ = ("line",)
    line: bytes

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a step with `passes` changes no row in place: yield a copy, {**row, field: value}")

    __setitem__ = __delitem__ = update = pop = popitem = clear = setdefault = __ior__ = _refuse


def stored(line: bytes) -> StoredRow:
    """The row of a line that a step wrote."""
    row = StoredRow(parse(line))
    row.line = line
    return row


class StoredRows(Sequence[Row]):
    """The rows of files that steps wrote, concatenated. Each access reads and parses again: do not change rows."""

    def __init__(self, files: Sequence[Path], read: Callable[[bytes], Row] = parse) -> None:
        self._files, self._read = tuple(files), read
        self._file, self._start, self._size = array("I"), array("Q"), array("I")

    def admit(self, fault: Callable[[Row], Drop | None] | None) -> list[Drop]:
        """Keep the rows without a fault (without `fault`: all); returns the faults in order. Reads every file once."""
        drops: list[Drop] = []
        for number, path in enumerate(self._files):
            start = 0
            with path.open("rb") as file:
                for line in file:
                    if fault and (drop := fault(parse(line))):
                        drops.append(drop)
                    else:
                        self._file.append(number)
                        self._start.append(start)
                        self._size.append(len(line))
                    start += len(line)
        return drops

    def __len__(self) -> int:
        return len(self._start)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        if isinstance(at, slice):
            return [self[index] for index in range(*at.indices(len(self)))]
        descriptor = os.open(self._files[self._file[at]], os.O_RDONLY)
        try:
            return self._read(os.pread(descriptor, self._size[at], self._start[at]))
        finally:
            os.close(descriptor)

    def __iter__(self) -> Iterator[Row]:
        first = 0
        for number, path in enumerate(self._files):
            after = bisect_right(self._file, number, first)
            with path.open("rb") as file:
                for at in range(first, after):
                    file.seek(self._start[at])
                    yield self._read(file.read(self._size[at]))
            first = after
