"""Records of local files and folders: JSON lines, JSON, CSV, TSV, Parquet and Arrow; bad ones as drops.

JSON lines are read by our own reader, where a bad line costs that line. Files that are something else than their name
says (a Git LFS pointer, a web page, UTF-16) are named for what they are.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of `datasets`, beside rows
_CHATS = ("messages", "conversations", "prompt", "chosen", "rejected")  # lists of objects that are part of one record


def read_records(path: Path) -> Records:
    """Records of a file, or of a folder of files, such as one that `datasets` saved. Raises DataError."""
    try:
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
        files = sorted(file for file in path.rglob("*") if file.is_file() and _holds_rows(file, path))
        if not files:
            raise DataError(f"{path}: no data file in this folder ({', '.join(SUFFIXES)})")
        return files
    if not path.exists() and GLOB & set(str(path)):
        base = next(parent for parent in path.parents if not GLOB & set(str(parent)))
        files = sorted(file for file in base.glob(str(path.relative_to(base))) if file.is_file())
        if not files:
            raise DataError(f"{path}: no file matches")
        return files
    return [path]


def _holds_rows(file: Path, folder: Path) -> bool:
    """Whether a file of a folder is data: neither hidden, nor what `datasets` keeps beside them."""
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and _kind(file) in _READERS and file.name not in _METADATA and not file.name.startswith("cache-")


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
    # Bytes that are no UTF-8 survive as lone surrogates, so that they cost their row and not the file.
    with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        names = file.readline()
        delimiter = "\t" if _kind(path) == ".tsv" else max(",;\t", key=names.count)  # a table program may write `;`
        header = next(csv.reader([names], delimiter=delimiter), [])
        for number, record in enumerate(csv.DictReader(file, header, delimiter=delimiter), 1):
            if None in record or None in record.values():
                yield Drop("wrong number of columns", f"record {number}", bad=True)
            elif any("\udc80" <= char <= "\udcff" for text in record.values() for char in text if char > "\ud7ff"):
                yield Drop("not UTF-8", f"record {number}", bad=True)
            else:
                yield dict(record)


def _parquet(path: Path) -> Records:
    from pyarrow.parquet import ParquetFile

    with _arrow_file(path, "Parquet"):
        for batch in ParquetFile(path).iter_batches(1000):  # type: ignore[no-untyped-call]  # pyarrow has no types
            yield from batch.to_pylist()


def _arrow(path: Path) -> Records:
    """An Arrow stream, as `save_to_disk` writes it, or an Arrow file (Feather)."""
    import pyarrow.ipc as ipc

    with _arrow_file(path, "Arrow"), path.open("rb") as file:
        if file.read(6) == b"ARROW1":
            whole = ipc.open_file(path)  # type: ignore[no-untyped-call]
            batches = (whole.get_batch(number) for number in range(whole.num_record_batches))
        else:
            batches = iter(ipc.open_stream(path))  # type: ignore[no-untyped-call]
        for batch in batches:
            yield from batch.to_pylist()


@contextmanager
def _arrow_file(path: Path, kind: str) -> Iterator[None]:
    """Say what is wrong with a file that pyarrow cannot read. Raises DataError."""
    from pyarrow.lib import ArrowInvalid

    with path.open("rb") as file:
        _refuse_foreign(file.read(200), path)
    try:
        yield
    except ArrowInvalid as error:
        raise DataError(f"{path}: not {kind}: {' '.join(str(error).split())}") from error


_READERS: dict[str, Callable[[Path], Records]] = {
    ".arrow": _arrow,
    ".csv": _csv,
    ".feather": _arrow,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
    ".tsv": _csv,
}
SUFFIXES = (*_READERS, "*.gz", "*.zst")
