"""Writes Parquet files in row groups, atomically."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.core.files import whole_file
from data_prep.core.step import Row

if TYPE_CHECKING:
    from pyarrow.lib import Schema

ROW_GROUP = 10_000  # rows per row group


@contextmanager
def parquet(
    path: Path, record: Callable[[Row], dict[str, Any]], schema: Schema | None = None
) -> Iterator[Callable[[Row], None]]:
    """Writes rows to a file; without a schema the first row group determines the columns. Raises DataError."""
    from pyarrow.lib import Table
    from pyarrow.parquet import ParquetWriter

    records: list[dict[str, Any]] = []
    writer: Any = None

    def flush() -> None:
        nonlocal writer
        table = Table.from_pylist(records, writer.schema if writer else schema)
        writer = writer or opened.enter_context(ParquetWriter(file, table.schema))  # type: ignore[no-untyped-call]
        writer.write_table(table)
        records.clear()

    def write(row: Row) -> None:
        records.append(record(row))
        if len(records) == ROW_GROUP:
            flush()

    with whole_file(path) as file, ExitStack() as opened:
        yield write
        if records or not writer:
            flush()
