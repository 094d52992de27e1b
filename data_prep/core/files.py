"""Atomic file writes (temporary file, sync, rename), locks, and a check of free disk space."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from data_prep.errors import DataError, os_errors

MARGIN_BYTES = 64_000_000  # kept free beyond what a step is expected to write


def temporary_path(path: Path) -> Path:
    """This process's temporary file for `path`; the host's name is part of it, since hosts may share a disk."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def write_atomic(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file so that a kill or a power failure leaves all of it or nothing. Raises DataError."""
    write_files([(path, blocks)])


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value atomically, creating its folder if it is missing. Raises DataError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [json.dumps(value, indent=1).encode(), b"\n"])


def write_files(files: Sequence[tuple[Path, Iterable[bytes]]], durable: bool = True) -> None:
    """Write files of one folder, each atomically; if the last one exists, all do. Raises DataError.

    Without `durable` that covers kills only, until `settle` makes the folder safe against power failures.
    """
    paths = [path for path, _ in files]
    temporaries = [temporary_path(path) for path in paths]
    with os_errors(paths[-1]), ExitStack() as stack:
        for temporary in temporaries:
            stack.callback(temporary.unlink, missing_ok=True)
        with ExitStack() as written:
            opened = [written.enter_context(temporary.open("wb")) for temporary in temporaries]
            for file, (_, blocks) in zip(opened, files, strict=True):
                file.writelines(blocks)
                file.flush()
            if durable:
                for file in opened:  # after all are written: one sync then does much of the next one's work
                    os.fsync(file.fileno())
        for number, (temporary, path) in enumerate(zip(temporaries, paths, strict=True), 1):
            if durable and 1 < number == len(paths):
                sync_dir(path.parent)
            temporary.rename(path)
        if durable:
            sync_dir(paths[-1].parent)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, renamed to `path` at the end of the block unless it fails. Raises DataError."""
    temporary = temporary_path(path)
    with os_errors(path), ExitStack() as stack:
        stack.callback(temporary.unlink, missing_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_dir(path.parent)


def settle(folder: Path) -> None:
    """Make all files of a folder and their names durable. Raises DataError."""
    with os_errors(folder):
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_dir(folder)


def sync_dir(path: Path) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(path: Path) -> None:
    """Remove the temporary files of killed writers from a directory. The caller holds the directory's lock."""
    for stale in path.glob(".*.tmp"):
        stale.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold an exclusive lock file; the kernel releases it when its holder dies.

    waiting: called once if another process holds the lock; without it, BlockingIOError is raised.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is None:
                raise
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def require_space(directory: Path, needed: int, what: str) -> None:
    """Raise DataError if `directory`'s disk has less than `needed` bytes (plus a margin) free."""
    free = shutil.disk_usage(directory).free
    if free < needed + MARGIN_BYTES:
        raise DataError(
            f"{directory}: {what} may write {size_text(needed)} and the disk has {size_text(free)} free; "
            "free some space or choose another cache folder"
        )


def size_text(count: float) -> str:
    """Bytes in readable units: `1.5 GB`."""
    from rich.filesize import decimal

    return decimal(int(count))
