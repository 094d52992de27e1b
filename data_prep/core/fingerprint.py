"""Content hashes of values and files, the same on every machine."""

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from data_prep.core.files import write_atomic
from data_prep.errors import DataError

REPO = Path(__file__).resolve().parents[2]
SMALL = 1 << 20  # bytes: smaller files are read faster than their stored hash is found
SETTLED_NS = 2_000_000_000  # a file modified more recently than this may change again with the same timestamp


def canonical(value: Any) -> bytes:
    """The canonical bytes of a JSON value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; a large file is read once while it is unchanged. Raises OSError."""
    stat = path.stat()
    if stat.st_size < SMALL or time.time_ns() - stat.st_ctime_ns < SETTLED_NS:
        return _read_hash(path)
    cache = Path(os.environ.get("POSTTRAIN_CACHE") or REPO / ".cache") / "hashes"
    state: list[Any] = [str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    note = cache / f"{value_hash(state)[:24]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):  # no stored hash, or a damaged one: read the file
        kept = json.loads(note.read_text())
        if kept["of"] == state:
            return str(kept["sha256"])
    digest = _read_hash(path)
    with suppress(OSError, DataError):  # without a writable cache the next run reads the file again
        cache.mkdir(parents=True, exist_ok=True)
        write_atomic(note, [json.dumps({"of": state, "sha256": digest}).encode()])
    return digest


def _read_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_blob(path: Path) -> str:
    """git's blob id: SHA-1 over `blob <size>\\0` and the content. Raises OSError."""
    header = f"blob {path.stat().st_size}\0".encode()
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.sha1(header, usedforsecurity=False)).hexdigest()
