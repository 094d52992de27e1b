"""Parquet files that are written so many records at a time, whole or absent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from data_prep.core.files import whole_file
from data_prep.core.step import Row

if TYPE_CHECKING:
    from pyarrow.lib import Schema
    from pyarrow.parquet import ParquetWriter

ROW_GROUP = 10_000  # rows that are written at once


@contextmanager
def parquet(
    path: Path, record: Callable[[Row], dict[str, Any]], schema: Schema | None = None
) -> Iterator[Callable[[Row], None]]:
    """Writes rows to a file; without a schema the first records decide its columns. Raises DataError."""
    with whole_file(path) as file, closing(_Table(file, schema)) as table:
        yield lambda row: table.add(record(row))


class _Table:
    def __init__(self, file: BinaryIO, schema: Schema | None) -> None:
        self._file, self._schema, self._records = file, schema, list[dict[str, Any]]()
        self._writer: ParquetWriter | None = None

    def add(self, record: dict[str, Any]) -> None:
        self._records.append(record)
        if len(self._records) == ROW_GROUP:
            self._write()

    def close(self) -> None:
        if self._records or not self._writer:
            self._write()
        assert self._writer
        self._writer.close()  # type: ignore[no-untyped-call]  # pyarrow has none

    def _write(self) -> None:
        from pyarrow.lib import Table
        from pyarrow.parquet import ParquetWriter

        records, self._records = self._records, []
        table = Table.from_pylist(records, self._schema)
        self._schema = table.schema
        self._writer = self._writer or ParquetWriter(self._file, table.schema)  # type: ignore[no-untyped-call]
        self._writer.write_table(table)  # type: ignore[no-untyped-call]
