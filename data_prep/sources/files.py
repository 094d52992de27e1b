"""Records of local files and folders: JSON lines, JSON, CSV, TSV, Parquet and Arrow; bad ones as drops.

JSON lines are read by our own reader, where a bad line costs that line. Files that are something else than their name
says (a Git LFS pointer, a web page, UTF-16) are named for what they are.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from data_prep.core.rows import READ, decode, fault_of, lines_of
from data_prep.core.step import Drop
from data_prep.errors import DataError, os_errors
from data_prep.sources.messages import is_chat

Record = dict[str, Any]
Records = Iterator[Record | Drop]
MAX_JSON_BYTES = 4_000_000_000  # a .json file is held in memory as a whole
COMPRESSED = {".gz": "gzip", ".zst": "zstd"}
GLOB = frozenset("*?[")
SPLITS = {"train": "train", "test": "test", "eval": "test", "validation": "validation", "valid": "validation",
          "val": "validation", "dev": "validation"}  # names of splits among the words of a file's path  # fmt: skip
BOM = b"\xef\xbb\xbf"
ODD = re.compile("[\0\udc80-\udcff]")  # in a cell: NUL, and bytes that are no UTF-8
QUOTED = re.compile(r'"(?:[^"]|"")*"')  # a cell that a table program put in quotes
_PAGE = "a web page (HTML), not data: download the file itself"
# Beginnings of files that are something else than their names say.
NOT_DATA = {
    b"version https://git-lfs": "a Git LFS pointer, not the data: fetch the file with `git lfs pull`",
    **dict.fromkeys((b"<!doctype", b"<html", b"<head", b"<body", b"<!--"), _PAGE),
    b"<?xml": "XML, mostly a server's error message, not data: download the file itself",
}
NOT_TEXT = {
    b"\x1f\x8b": "gzip data: let its name end in .gz",
    b"\x28\xb5\x2f\xfd": "zstd data: let its name end in .zst",
    b"pk\x03\x04": "a zip archive: unpack it",
    b"par1": "a Parquet file: let its name end in .parquet",
    b"arrow1": "an Arrow file: let its name end in .arrow",
}
_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")  # of `datasets`, beside rows
_CHATS = ("messages", "conversations", "prompt", "chosen", "rejected")  # lists of objects that are part of one record


def read_records(path: Path) -> Records:
    """Records of a file, or of a folder of files, such as one that `datasets` saved. Raises DataError."""
    with os_errors(path):
        try:
            for file in files_of(path):
                yield from _READERS[suffix(file)](file)
        except OSError as error:
            if error.errno is not None:  # of the file system, and not of what the file holds
                raise
            raise DataError(f"{path}: not a whole compressed file: {error}") from error


def files_of(path: Path) -> list[Path]:
    """The data files that a path means: itself, those of a folder, or those that a glob matches. Raises DataError."""
    if path.is_dir():
        if (path / "dataset_dict.json").is_file():
            splits = ", ".join(json.loads((path / "dataset_dict.json").read_text())["splits"])
            raise DataError(f"{path}: a saved dataset of several splits: name one of its folders ({splits})")
        files = sorted(file for file in path.rglob("*") if file.is_file() and _holds_rows(file, path))
        if not files:
            raise DataError(f"{path}: no data file in this folder ({', '.join(SUFFIXES)})")
        words = {word for file in files for word in re.split(r"[^a-z]+", str(file.relative_to(path)).lower())}
        if len({SPLITS[word] for word in words & SPLITS.keys()}) > 1:
            splits = ", ".join(sorted(words & SPLITS.keys()))
            raise DataError(f"{path}: files of several splits ({splits}): name a folder, or a glob such as *train*")
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


def _opened(path: Path) -> io.BufferedReader:
    """The file's bytes, decompressed. Raises DataError for a file that is no data."""
    if codec := COMPRESSED.get(path.suffix.lower()):
        from pyarrow.lib import CompressedInputStream, OSFile

        with path.open("rb") as file:
            _refuse_foreign(file.read(200), path, NOT_DATA)
        reader = io.BufferedReader(CompressedInputStream(OSFile(str(path)), codec))
    else:
        reader = path.open("rb")
    start = reader.peek(200)[:200]
    _refuse_foreign(start, path, {**NOT_DATA, **NOT_TEXT})
    if start and not start.strip(b"\0"):
        raise DataError(f"{path}: NUL bytes, as a crash or a bad copy leaves them, not data")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in start[:4]:
        raise DataError(f"{path}: UTF-16 or UTF-32 text; convert it: iconv -f UTF-16 -t UTF-8")
    return reader


def _refuse_foreign(start: bytes, path: Path, known: Mapping[bytes, str]) -> None:
    """Raise DataError for a file that begins as something else than what its name says."""
    start = start.removeprefix(BOM).lstrip().lower()
    if what := next((what for mark, what in known.items() if start.startswith(mark)), None):
        raise DataError(f"{path}: {what}")


def _jsonl(path: Path) -> Records:
    with _opened(path) as file:
        start = file.peek(200)[:200].removeprefix(BOM).lstrip()
        if not start.startswith(b"[") and start.partition(b"\n")[0].strip() != b"{":
            yield from _json_lines(file)
            return
    yield from _json(path)  # not lines, for all its name says


def _json_lines(file: BinaryIO) -> Records:
    for number, line in lines_of(file):
        if line is None:
            yield Drop("line too long", f"line {number}", bad=True)
            continue
        record = decode(line, _as_record)
        yield Drop(record.reason, f"line {number}", record.detail, bad=True) if isinstance(record, Drop) else record


def _as_record(value: Any) -> Any:
    """A conversation that stands by itself as a record."""
    return {"messages": value} if isinstance(value, list) and is_chat(value) else value


def read_json(path: Path) -> Any:
    """The value in a JSON file. Raises DataError."""
    try:
        with os_errors(path):
            if path.stat().st_size > MAX_JSON_BYTES:
                raise DataError(f"{path}: too large to be read at once")
            return json.loads(path.read_text("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON: {fault_of(error)}") from error
    except RecursionError as error:
        raise DataError(f"{path}: not JSON: nested too deeply") from error


def _json(path: Path) -> Records:
    """A list of objects, such a list under one key of an object, or JSON lines under this name, which is common."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise DataError(f"{path}: too large to be read at once; write it as JSON lines (.jsonl)")
    with _opened(path) as file:
        text = file.read().removeprefix(BOM)
    if not text.strip():
        return
    try:
        values = _values(text.decode())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    except (ValueError, RecursionError) as error:
        first = (decode(line or b"", _as_record) for _, line in islice(lines_of(io.BytesIO(text)), 2))
        if all(isinstance(line, Drop) for line in first):  # it is no JSON lines either
            fault = fault_of(error) if isinstance(error, ValueError) else "nested too deeply"
            raise DataError(f"{path}: not JSON: {fault}") from error
        yield from _json_lines(io.BytesIO(text))
        return
    for index, value in enumerate(_unwrapped(values, path)):
        if isinstance(value := _as_record(value), dict | Drop):
            yield value
        else:
            yield Drop("not an object", f"item {index}", f"a JSON {type(value).__name__}", bad=True)


def _values(text: str) -> Any:
    """The JSON value in a text; a list of all where objects over several lines follow each other. Raises ValueError."""
    if text.lstrip().partition("\n")[0].strip() != "{":
        return READ.decode(text)
    values, end = [], 0
    while rest := text[end:].lstrip():
        value, length = READ.raw_decode(rest)
        values.append(value)
        end = len(text) - len(rest) + length
    return values if len(values) > 1 else values[0]


def _unwrapped(values: Any, path: Path) -> list[Any]:
    """The list of records in a JSON file. Raises DataError where several keys hold one."""
    if isinstance(values, list):
        return values
    if not isinstance(values, dict):
        raise DataError(f"{path}: a JSON {type(values).__name__}, not a list of records")
    if {"features", "rows"} <= values.keys() and all("row" in row for row in values["rows"]):  # the Hub's own server
        cut = Drop("truncated by the Hub's server", detail="download the file itself", bad=True)
        return [cut if row.get("truncated_cells") else row["row"] for row in values["rows"]]
    if values and all(isinstance(value, dict) and value for value in values.values()):  # as pandas writes a table
        records = list(values.values())
        if "0" in values:  # orient="index"
            return records
        if all("0" in column for column in records):
            values = {name: list(column.values()) for name, column in values.items()}
    lists = [key for key, value in values.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if not lists and values and all(isinstance(value, list) for value in values.values()):  # a table by its columns
        if len({len(value) for value in values.values()}) > 1:
            raise DataError(f"{path}: columns of different lengths ({', '.join(values)})")
        return [dict(zip(values, record, strict=True)) for record in zip(*values.values(), strict=True)]
    if not lists or set(lists) & set(_CHATS):
        return [values]  # one record
    if len(lists) > 1:
        raise DataError(f"{path}: several keys hold records ({', '.join(lists)}): write the one you mean to a file")
    return cast(list[Any], values[lists[0]])


def _csv(path: Path) -> Records:
    csv.field_size_limit(2**31 - 1)
    # Bytes that are no UTF-8 survive as lone surrogates, so that they cost their row and not the file.
    with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        names = file.readline()
        delimiter = "\t" if _kind(path) == ".tsv" else max(",;\t", key=names.count)  # a table program may write `;`
        # Other tools write quotes in TSV as they are, so that an open one would swallow the lines after it.
        tabs = _kind(path) == ".tsv"
        quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        try:
            cells = next(csv.reader([names], delimiter=delimiter, quoting=quoting, strict=True), [])
        except csv.Error as error:
            raise DataError(f"{path}: a quote that is not closed, or not doubled, in the header: {error}") from error
        header = [_unquoted(cell) if tabs else cell for cell in cells]
        _refuse_twice(header, path)
        reader = csv.DictReader(file, header, delimiter=delimiter, quoting=quoting, strict=True)
        try:
            yield from (_csv_record(record, number, tabs) for number, record in enumerate(reader, 1))
        except csv.Error as error:
            where = f"{path}: a quote that is not closed, or not doubled, in the record that begins at line"
            raise DataError(f"{where} {reader.line_num + 2}: {error}") from error


def _csv_record(record: Record, number: int, tabs: bool) -> Record | Drop:
    if None in record or None in record.values():
        return Drop("wrong number of columns", f"record {number}", bad=True)
    if odd := next((odd for text in record.values() if (odd := ODD.search(text))), None):
        return Drop("NUL bytes" if odd[0] == "\0" else "not UTF-8", f"record {number}", bad=True)
    texts = {name: _unquoted(text) if tabs else text for name, text in record.items()}
    return {name: None if text.strip().lower() == "nan" else text for name, text in texts.items()}


def _unquoted(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if QUOTED.fullmatch(cell) else cell


def _parquet(path: Path) -> Records:
    from pyarrow.parquet import ParquetFile

    with _arrow_file(path, "Parquet"):
        for batch in ParquetFile(path).iter_batches(1000):  # type: ignore[no-untyped-call]  # pyarrow has no types
            yield from _plain(batch, path)


def _arrow(path: Path) -> Records:
    """An Arrow stream, as `save_to_disk` writes it, or an Arrow file (Feather)."""
    import pyarrow.ipc as ipc

    with _arrow_file(path, "Arrow"), path.open("rb") as file:
        if file.read(6) == b"ARROW1":
            reader = ipc.open_file(path)  # type: ignore[no-untyped-call]
            batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            batches = iter(ipc.open_stream(path))  # type: ignore[no-untyped-call]
        for batch in batches:
            yield from _plain(batch, path)


def _plain(batch: Any, path: Path) -> list[Record]:
    """A batch's records, numbers of 32 bits as they were written (0.1, not 0.10000000149011612). Raises DataError."""
    from pyarrow.lib import float32, float64, string

    _refuse_twice(batch.schema.names, path)
    for index, field in enumerate(batch.schema):
        if field.type == float32():
            batch = batch.set_column(index, field.name, batch.column(index).cast(string()).cast(float64()))
    return [without_nan(record) for record in batch.to_pylist(maps_as_pydicts="strict")]


def without_nan(value: Any) -> Any:
    """A table's value with null for NaN, which says there that a value is missing."""
    if isinstance(value, dict):
        return {name: item if type(item) is str else without_nan(item) for name, item in value.items()}
    if isinstance(value, list):
        return [item if type(item) is str else without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _refuse_twice(names: Sequence[str], path: Path) -> None:
    """Raise DataError for columns of one name, of which only the last would be read."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: several columns are named {', '.join(twice)}: rename all but one")


@contextmanager
def _arrow_file(path: Path, kind: str) -> Iterator[None]:
    """Say what is wrong with a file that pyarrow cannot read. Raises DataError."""
    from pyarrow.lib import ArrowInvalid

    with path.open("rb") as file:
        _refuse_foreign(file.read(200), path, NOT_DATA)
    try:
        yield
    except (ArrowInvalid, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the file system, not of what the file holds
            raise
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
