"""Limits how many programs run at once, over all threads of a process and over processes that share a folder.

    with slot(2):  # waits while two others run
        ...

If `$REWARDS_SLOTS` names a folder, processes share the limit: a slot is then also a lock on one of its files, which
the kernel releases when the process that holds it ends for any reason.
"""

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator

from rewards.errors import RewardError
from rewards.forks import once_per_process

FOLDER = "REWARDS_SLOTS"
_RETRY_S = 0.02


class _Slots(threading.Condition):
    """held: slots in use by threads of this process."""

    held = 0


_slots = once_per_process(_Slots)


@contextlib.contextmanager
def slot(count: int) -> Iterator[None]:
    """Wait for and hold one of `count` slots. Raises RewardError if the shared folder cannot be used."""
    with (slots := _slots()):
        slots.wait_for(lambda: slots.held < count)
        slots.held += 1
    try:
        folder = os.environ.get(FOLDER)
        lock = _lock(folder, count) if folder else None
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)
    finally:
        with slots:
            slots.held -= 1
            slots.notify()


def share_among_siblings() -> None:
    """Share slots among this process and its siblings, unless a folder is already set."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or "/tmp"  # noqa: S108 - only the owner may use the folder
    os.environ.setdefault(FOLDER, os.path.join(runtime, f"rewards-{os.getuid()}-{os.getppid()}"))


def _lock(folder: str, count: int) -> int:
    """A descriptor with an exclusive lock on one of the folder's first `count` files; closing it releases the lock."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        if os.stat(folder).st_uid != os.getuid():
            raise RewardError(f"{FOLDER}: {folder} belongs to another user")
        while True:
            for number in range(count):
                flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
                fd = os.open(os.path.join(folder, str(number)), flags, 0o600)
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return fd
                except BlockingIOError:
                    os.close(fd)
            time.sleep(_RETRY_S)
    except OSError as problem:
        raise RewardError(f"{FOLDER}: {folder}: {problem.strerror}") from None
