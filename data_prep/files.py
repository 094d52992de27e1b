"""Files that are whole or absent: written aside, synced, renamed; and room for them checked beforehand."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import DataError, explain

MARGIN_BYTES = 64_000_000  # left free on top of what a step is expected to write


def write_atomic(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file so that a kill or a power cut leaves all of it or none. Raises DataError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(blocks)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_dir(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise explain(error, path) from error


def sync_dir(path: Path) -> None:
    """Make the renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(path: Path) -> None:
    """Remove what killed writers left in a directory. Call it with the directory's lock held."""
    for stale in path.glob(".*.tmp"):
        stale.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file for one process at a time; the kernel frees it when its holder dies.

    `waiting` is called once when another process holds it.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def require_space(directory: Path, needed: int, what: str) -> None:
    """Raise DataError when `directory`'s disk has less than `needed` bytes (and a margin) free."""
    free = shutil.disk_usage(directory).free
    if free < needed + MARGIN_BYTES:
        raise DataError(
            f"{directory}: {what} may write {_size(needed)} and the disk has {_size(free)} free; "
            "free some space or choose another cache folder"
        )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
