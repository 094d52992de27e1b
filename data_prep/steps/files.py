"""Records of local files: JSON, JSON lines, CSV and Parquet, bad ones as drops."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_prep.errors import DataError, explain
from data_prep.rows import decode, read_lines
from data_prep.step import Drop

Record = dict[str, Any]
MAX_JSON_BYTES = 4_000_000_000  # a .json file is held in memory as a whole


def read_records(path: Path) -> Iterator[Record | Drop]:
    """Records of a file, by its suffix. Raises DataError when the file as a whole cannot be read."""
    try:
        yield from SUFFIXES[path.suffix](path)
    except OSError as error:
        raise explain(error, path) from error


def _jsonl(path: Path) -> Iterator[Record | Drop]:
    for number, line in read_lines(path):
        if line is None:
            yield Drop("line too long", f"line {number}", bad=True)
            continue
        found = decode(line)
        yield (Drop(found.reason, f"line {number}", found.detail, bad=True) if isinstance(found, Drop) else found)


def _json(path: Path) -> Iterator[Record | Drop]:
    """A list of objects; or JSON lines under the wrong suffix, which is common."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{path}: too large to be read at once; write it as JSON lines (.jsonl)")
    text = path.read_bytes()
    if not text.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"["):
        yield from _jsonl(path)
        return
    try:
        values = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON: {error}") from error
    for index, value in enumerate(values):
        if isinstance(value, dict):
            yield value
        else:
            yield Drop("not an object", f"item {index}", f"a JSON {type(value).__name__}", bad=True)


def _csv(path: Path) -> Iterator[Record | Drop]:
    csv.field_size_limit(2**31 - 1)
    # Bytes that are no UTF-8 survive as lone surrogates, so that they cost their row and not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file)
        for number, record in enumerate(reader, 1):
            if None in record or None in record.values():
                yield Drop("wrong number of columns", f"record {number}", bad=True)
            elif any("\udc80" <= char <= "\udcff" for text in record.values() for char in text if char > "\ud7ff"):
                yield Drop("not UTF-8", f"record {number}", bad=True)
            else:
                yield dict(record)


def _parquet(path: Path) -> Iterator[Record | Drop]:
    from pyarrow.lib import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    try:
        for batch in ParquetFile(path).iter_batches(1000):  # type: ignore[no-untyped-call]  # pyarrow has none
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise DataError(f"{path}: not Parquet: {' '.join(str(error).split())}") from error


SUFFIXES: dict[str, Callable[[Path], Iterator[Record | Drop]]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
