"""Rows: fields, ids, validation, and reading and writing as JSON lines.

A row is a dict of JSON values. Anything that cannot be a row becomes a `Drop` with a reason, never an exception:
one damaged line in a million must affect that line only.
"""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from data_prep.core.step import Drop, Row

MAX_TEXT_BYTES = 1_000_000  # of one string; the longest solutions of long-reasoning sets are about 200 kB
MAX_LINE_BYTES = 64_000_000  # of one line; a longer line is skipped without being read into memory
ROLES = frozenset({"system", "user", "assistant", "tool"})

# Fields of a row, and of its meta, that describe its completion rather than its prompt.
OF_A_COMPLETION = ("completion", "rejected", "score", "outcome")
META_OF_A_COMPLETION = ("sample", "finish_reason", "tokens", "score_details")

# The type of each field that a row may have.
FIELDS: dict[str, type | tuple[type, ...]] = {
    "id": str,
    "prompt": list,
    "completion": str,
    "rejected": str,  # the completion that `completion` is preferred to
    "answer": str,
    "references": list,
    "tests": dict,
    "source": str,
    "score": (int, float),
    "outcome": str,
    "meta": dict,
}


def check(row: Row, needs: Iterable[str] = (), present: Iterable[str] = ()) -> Drop | None:
    """Why a step rejects a row, or None. Fields in `present` may be empty, fields in `needs` may not."""
    for field, value in row.items():
        kind = FIELDS.get(field)
        if type(value) is not kind and (kind is None or not isinstance(value, kind)):
            return _mistyped(row, field)
    if "references" in row and not all(isinstance(reference, str) for reference in row["references"]):
        return _bad("references are not strings", row)
    for field in present:
        if field not in row:
            return _bad(f"missing {field}", row)
    return lacking(row, needs) or (_check_prompt(row) if "prompt" in row else None)


def lacking(row: Row, needs: Iterable[str]) -> Drop | None:
    """A drop for the first of these fields that is missing or empty; None if there is none."""
    for field in needs:
        if not row.get(field):
            return _bad(f"{'empty' if field in row else 'missing'} {field}", row)
    return None


def _mistyped(row: Row, field: str) -> Drop:
    if field not in FIELDS:
        return _bad(f"unknown field {field}", row)
    names: dict[object, str] = {str: "a string", list: "a list", dict: "an object"}
    return _bad(f"{field} is not {names.get(FIELDS[field], 'a number')}", row, f"found {type(row[field]).__name__}")


def _check_prompt(row: Row) -> Drop | None:
    has_text = False
    for message in row["prompt"]:
        if not isinstance(message, dict) or not isinstance(content := message.get("content"), str):
            return _bad("prompt is not chat messages", row, "each needs a role and a content string")
        role = message.get("role")
        if not isinstance(role, str) or role not in ROLES:
            return _bad("unknown role in prompt", row, repr(role)[:80])
        has_text = has_text or (role != "system" and bool(content.strip()))
    return None if has_text else _bad("empty prompt", row)


def check_size(row: Row, limit: int = MAX_TEXT_BYTES) -> Drop | None:
    """A drop if any string of the row, keys included, is longer than `limit` bytes of UTF-8."""
    todo: list[Any] = [row]
    for value in todo:  # grows during the loop
        if isinstance(value, dict):
            todo += [*value, *value.values()]
        elif isinstance(value, list):
            todo += value
        # A character takes at most four bytes, so most strings pass without being encoded.
        elif isinstance(value, str) and len(value) * 4 > limit and len(value.encode("utf-8", "surrogatepass")) > limit:
            return _bad("string too long", row, f"over {limit:,} bytes: {value[:60]!r}…")
    return None


def _bad(reason: str, row: Row, detail: str = "") -> Drop:
    return Drop(reason, str(row.get("id", "")), detail, bad=True)


def content_id(row: Row) -> str:
    """A row's content id: sixteen hex digits from its prompt, completion, answer and source."""
    content = [row.get("prompt"), row.get("completion"), row.get("answer"), row.get("source")]
    text = json.dumps(content, ensure_ascii=True, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def prompt_of(row: Row) -> str:
    """The prompt's id, which groups a prompt's samples."""
    return str(row.get("meta", {}).get("prompt_id", row["id"]))


def with_meta(row: Row, **fields: Any) -> Row:
    """A copy of the row with these fields in its meta."""
    return {**row, "meta": {**row.get("meta", {}), **fields}}


def without(values: Row, names: Collection[str]) -> Row:
    """A copy of a row or its meta without these fields."""
    return {name: value for name, value in values.items() if name not in names}


def encode(row: Row) -> bytes | Drop:
    """One line of JSON in UTF-8, or a Drop for values that cannot be encoded (lone surrogates, infinities)."""
    try:
        return _LINE.encode(row).encode() + b"\n"
    except UnicodeEncodeError:
        shown = str(row.get("id", "")).encode("ascii", "replace").decode()
        return _bad("not Unicode", {"id": shown}, "lone surrogate")
    except ValueError:
        return _bad("number is not finite", row)
    except TypeError as error:  # a date or raw bytes, from Parquet
        return _bad("not a JSON value", row, str(error))


def encoded(rows: Iterable[Row]) -> Iterator[bytes]:
    """The encodable rows as lines."""
    return (line for line in map(encode, rows) if isinstance(line, bytes))


def decode(line: bytes, wrap: Callable[[Any], Any] = lambda value: value) -> dict[str, Any] | Drop:
    """One line of JSON as an object, or a Drop with the reason. `wrap` may turn another value into an object."""
    line = line.strip()
    try:
        value = wrap(READ.decode(line.decode("utf-8")))
    except UnicodeDecodeError as error:
        return _bad("not UTF-8", {}, f"byte {error.start}: {line[max(0, error.start - 20) : error.start + 20]!r}")
    except ValueError as error:
        return _bad("not JSON", {}, f"{fault_of(error)}: {line[:60]!r}"[:200])
    except RecursionError:
        return _bad("not JSON", {}, "nested too deeply")
    if not isinstance(value, dict):
        return _bad("not an object", {}, f"a JSON {type(value).__name__}: {line[:60]!r}")
    return value


def fault_of(error: ValueError) -> str:
    """What is wrong with a text that is no JSON, and where: the usual kinds by their names, others as Python says."""
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    before, after, what = error.doc[: error.pos].rstrip(), error.doc[error.pos :].strip(), error.msg
    if "\0" in error.doc:
        what = "NUL bytes, as a crash or a bad copy leaves them"
    elif not after or what.startswith("Unterminated string"):
        what = "it ends early: the end of it is missing"
    elif after.startswith(("//", "/*", "#")):
        what = "a comment, which JSON does not have"
    elif re.match(r"[^,]?,\s*([\]}]|$)", before[-1:] + after[:80]):
        what = "a trailing comma, which JSON does not have"
    elif after.startswith(("'", "None", "True", "False")):
        what = "Python's notation: write it with json.dumps"
    elif what == "Extra data":
        what = "another value after the first"
    return f"{what} (line {error.lineno}, column {error.colno})"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. Raises ValueError for a repeated key, of which only the last value would be read."""
    value = dict(pairs)
    if len(value) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} occurs twice in an object")
    return value


# Created once: with such options json.loads and json.dumps create a new one per call.
# NaN and Infinity, which Python's json writes, are read as missing values.
_STORED = json.JSONDecoder()
READ = json.JSONDecoder(parse_constant=lambda constant: None, object_pairs_hook=_object)
_LINE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def lines_of(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """Number (from 1) and bytes of each non-blank line; None for a line longer than MAX_LINE_BYTES.

    Lines end at \\n, \\r or both: U+2028 and similar characters are legal inside JSON strings.
    """
    number = 0
    while read := file.readline(MAX_LINE_BYTES):
        if len(read) == MAX_LINE_BYTES and not read.endswith(b"\n"):
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            number += 1
            yield number, None
            continue
        for line in read.splitlines() if b"\r" in read else (read,):
            number += 1
            line = line.removeprefix(b"\xef\xbb\xbf")  # of the file, or of one that was appended to it
            if line.strip():
                yield number, line


def parse(line: bytes) -> Row:
    """The row of a line that a step wrote."""
    text = line.decode()
    row: Row
    row, end = _STORED.raw_decode(text)  # 20 % faster than decode, which skips surrounding spaces
    if text[end:].strip():
        raise json.JSONDecodeError("Extra data", text, end)
    return row


def read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file that a step wrote."""
    with path.open("rb") as file:
        yield from map(parse, file)
