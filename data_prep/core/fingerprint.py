"""Names for content: hashes of values and files, the same on every machine."""

from __future__ import annotations

import hashlib
import json
import os
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
SETTLED_NS = 2_000_000_000  # a file that changed less than this ago may change again at the same time stamp


def canonical(value: Any) -> bytes:
    """One byte string per JSON value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def value_hash(value: Any) -> str:
    """SHA-256 of a JSON value, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hex digits; a file that stays as it is is read once. Raises OSError."""
    stat = path.stat()
    if time.time_ns() - stat.st_ctime_ns < SETTLED_NS:
        return _read_hash(path)
    return _settled_hash(path, stat.st_ino, stat.st_size, stat.st_ctime_ns)


@lru_cache(maxsize=1024)
def _settled_hash(path: Path, *state: int) -> str:
    """`file_hash` while the file's `state` is the same."""
    return _read_hash(path)


def _read_hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def git_blob(path: Path) -> str:
    """The name git gives these bytes: SHA-1 over `blob <size>\\0` and the content. Raises OSError."""
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def known_hash(file: Path) -> str:
    """SHA-256 of a file's bytes; large files are read once per size and time of change."""
    stat = file.stat()
    if stat.st_size < 1 << 20:
        return file_hash(file)
    cache = Path(os.environ.get("POSTTRAIN_CACHE") or REPO / ".cache") / "hashes"
    stamp: list[Any] = [str(file.resolve()), stat.st_size, stat.st_mtime_ns]
    note = cache / f"{value_hash(stamp)[:24]}.json"
    try:
        kept = json.loads(note.read_text())
        if kept["of"] == stamp:
            return str(kept["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not noted, or not whole: the file itself is the truth
    digest = file_hash(file)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        aside = note.with_suffix(f".{os.getpid()}.tmp")
        aside.write_text(json.dumps({"of": stamp, "sha256": digest}))
        aside.rename(note)
    except OSError:
        pass  # a cache that cannot be written only costs the next run a read
    return digest
