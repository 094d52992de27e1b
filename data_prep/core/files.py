"""Files that are whole or absent: written aside, synced, renamed; and room for them checked beforehand."""

from __future__ import annotations

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

MARGIN_BYTES = 64_000_000  # left free on top of what a step is expected to write


def aside_of(path: Path) -> Path:
    """Where this process writes a file before it is whole; hosts that share a disk have process ids of their own."""
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def write_atomic(path: Path, blocks: Iterable[bytes]) -> None:
    """Write a file so that a kill or a power cut leaves all of it or none. Raises DataError."""
    write_together([(path, blocks)])


def write_json(path: Path, value: Any) -> None:
    """Write a JSON value likewise; its folder is made where it is missing. Raises DataError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, [json.dumps(value, indent=1).encode(), b"\n"])


def write_together(files: Sequence[tuple[Path, Iterable[bytes]]], durable: bool = True) -> None:
    """Write files of one folder, each whole or absent; where the last one stands, all do. Raises DataError.

    Without `durable` that holds for a kill only, until `settle` has made the folder safe from a power cut too.
    """
    paths = [path for path, _ in files]
    asides = [aside_of(path) for path in paths]
    with os_errors(paths[-1]), ExitStack() as stack:
        for aside in asides:
            stack.callback(aside.unlink, missing_ok=True)
        with ExitStack() as written:
            opened = [written.enter_context(aside.open("wb")) for aside in asides]
            for file, (_, blocks) in zip(opened, files, strict=True):
                file.writelines(blocks)
                file.flush()
            if durable:
                for file in opened:  # once all are written, as one sync then does much of the next's work
                    os.fsync(file.fileno())
        for number, (aside, path) in enumerate(zip(asides, paths, strict=True), 1):
            if durable and 1 < number == len(paths):
                sync_dir(path.parent)
            aside.rename(path)
        if durable:
            sync_dir(paths[-1].parent)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which stands at `path` once all is written, and not if that fails. Raises DataError."""
    aside = aside_of(path)
    with os_errors(path), ExitStack() as stack:
        stack.callback(aside.unlink, missing_ok=True)
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.rename(path)
        sync_dir(path.parent)


def settle(folder: Path) -> None:
    """Make all files of a folder durable, with their names. Raises DataError."""
    with os_errors(folder):
        for path in folder.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        sync_dir(folder)


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
def locked(path: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock file for one process at a time; the kernel frees it when its holder dies.

    `waiting` is called once when another process holds it; without it, that raises BlockingIOError.
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
    """Raise DataError when `directory`'s disk has less than `needed` bytes (and a margin) free."""
    free = shutil.disk_usage(directory).free
    if free < needed + MARGIN_BYTES:
        raise DataError(
            f"{directory}: {what} may write {size_text(needed)} and the disk has {size_text(free)} free; "
            "free some space or choose another cache folder"
        )


def size_text(count: float) -> str:
    """Bytes in words: `1.5 GB`."""
    from rich.filesize import decimal

    return decimal(int(count))
