"""Records of local files and folders: JSON lines, JSON, CSV, TSV and Parquet, compressed or not; bad ones as drops.

JSON lines are read by our own reader, where a bad line costs that line. Files that are something else than their name
says (a Git LFS pointer, a web page, UTF-16) are named for what they are.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from data_prep.core.rows import decode, lines_of
from data_prep.core.step import Drop
from data_prep.errors import DataError, explain

Record = dict[str, Any]
Records = Iterator[Record | Drop]
MAX_JSON_BYTES = 4_000_000_000  # a .json file is held in memory as a whole
COMPRESSED = (".gz", ".zst")
GLOB = frozenset("*?[")
_CHATS = ("messages", "conversations", "prompt", "chosen", "rejected")  # lists of objects that are part of one record


def read_records(path: Path) -> Records:
    """Records of a file, a folder of files, or a folder that `datasets` saved. Raises DataError."""
    try:
        if path.is_dir() and (path / "dataset_info.json").is_file():
            yield from _saved(path)
            return
        for file in files_of(path):
            yield from _READERS[suffix(file)](file)
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: not a whole compressed file: {error}") from error
    except OSError as error:
        raise explain(error, path) from error


def files_of(path: Path) -> list[Path]:
    """The data files that a path means: itself, those of a folder, or those that a glob matches. Raises DataError."""
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            splits = ", ".join(json.loads((path / "dataset_dict.json").read_text())["splits"])
            raise DataError(f"{path}: a saved dataset of several splits: name one of its folders ({splits})")
        found = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file) in _READERS)
        if not found:
            raise DataError(f"{path}: no data file in this folder ({', '.join(SUFFIXES)})")
        return found
    if not path.exists() and GLOB & set(str(path)):
        base = next(parent for parent in path.parents if not GLOB & set(str(parent)))
        found = sorted(file for file in base.glob(str(path.relative_to(base))) if file.is_file())
        if not found:
            raise DataError(f"{path}: no file matches")
        return found
    return [path]


def suffix(path: Path) -> str:
    """The kind of a file by its name, whatever its case and compression. Raises DataError for another kind."""
    kind = _kind(path)
    if kind not in _READERS:
        raise DataError(f"{path}: rows are read from {', '.join(SUFFIXES)}, not {kind or 'this'!r}")
    return kind


def _kind(path: Path) -> str:
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def _opened(path: Path) -> BinaryIO:
    """The file's bytes, decompressed. Raises DataError for a file that is no data."""
    ending = path.suffix.lower()
    if ending == ".gz":
        file: BinaryIO = cast(BinaryIO, gzip.GzipFile(path))
    elif ending == ".zst":
        from pyarrow.lib import CompressedInputStream, OSFile

        file = io.BufferedReader(CompressedInputStream(OSFile(str(path)), "zstd"))
    else:
        file = path.open("rb")
    reader = file if isinstance(file, io.BufferedReader) else io.BufferedReader(cast(io.RawIOBase, file))
    _refuse_foreign(reader.peek(200)[:200], path)
    return reader


def _refuse_foreign(start: bytes, path: Path) -> None:
    if start.startswith(b"version https://git-lfs"):
        raise DataError(f"{path}: a Git LFS pointer, not the data: fetch the file with `git lfs pull`")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8")
    if start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{path}: a web page (HTML), not data: download the file itself")


def _jsonl(path: Path) -> Records:
    with _opened(path) as file:
        yield from _json_lines(file)


def _json_lines(file: BinaryIO) -> Records:
    for number, line in lines_of(file):
        if line is None:
            yield Drop("line too long", f"line {number}", bad=True)
            continue
        record = decode(line)
        yield Drop(record.reason, f"line {number}", record.detail, bad=True) if isinstance(record, Drop) else record


def _json(path: Path) -> Records:
    """A list of objects, such a list under one key of an object, or JSON lines under this name, which is common."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{path}: too large to be read at once; write it as JSON lines (.jsonl)")
    with _opened(path) as file:
        text = file.read().removeprefix(b"\xef\xbb\xbf")
    if not text.strip():
        return
    try:
        values = json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        if not text.lstrip().startswith(b"{"):
            raise DataError(f"{path}: not JSON: {error}") from error
        yield from _json_lines(io.BytesIO(text))
        return
    for index, value in enumerate(_unwrapped(values, path)):
        if isinstance(value, dict):
            yield value
        else:
            yield Drop("not an object", f"item {index}", f"a JSON {type(value).__name__}", bad=True)


def _unwrapped(values: Any, path: Path) -> list[Any]:
    """The list of records in a JSON file. Raises DataError where several keys hold one."""
    if isinstance(values, list):
        return values
    if not isinstance(values, dict):
        raise DataError(f"{path}: a JSON {type(values).__name__}, not a list of records")
    lists = [key for key, value in values.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if not lists or set(lists) & set(_CHATS):
        return [values]  # one record
    if len(lists) > 1:
        raise DataError(f"{path}: several keys hold records ({', '.join(lists)}): write the one you mean to a file")
    records: list[Any] = values[lists[0]]
    return records


def _csv(path: Path) -> Records:
    csv.field_size_limit(2**31 - 1)
    delimiter = "\t" if _kind(path) == ".tsv" else ","
    # Bytes that are no UTF-8 survive as lone surrogates, so that they cost their row and not the file.
    with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for number, record in enumerate(csv.DictReader(file, delimiter=delimiter), 1):
            if None in record or None in record.values():
                yield Drop("wrong number of columns", f"record {number}", bad=True)
            elif any("\udc80" <= char <= "\udcff" for text in record.values() for char in text if char > "\ud7ff"):
                yield Drop("not UTF-8", f"record {number}", bad=True)
            else:
                yield dict(record)


def _parquet(path: Path) -> Records:
    from pyarrow.lib import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    with path.open("rb") as file:
        _refuse_foreign(file.read(200), path)
    try:
        for batch in ParquetFile(path).iter_batches(1000):  # type: ignore[no-untyped-call]  # pyarrow has none
            yield from batch.to_pylist()
    except ArrowInvalid as error:
        raise DataError(f"{path}: not Parquet: {' '.join(str(error).split())}") from error


def _saved(path: Path) -> Records:
    """A folder that `Dataset.save_to_disk` wrote."""
    from datasets.load import load_from_disk

    try:
        yield from cast(Records, load_from_disk(str(path)))
    except ValueError as error:
        raise DataError(f"{path}: not a saved dataset: {' '.join(str(error).split())[:200]}") from error


_READERS: dict[str, Callable[[Path], Records]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".tsv": _csv,
}
SUFFIXES = (*_READERS, "*.gz", "*.zst")
