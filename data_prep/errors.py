"""User-facing errors: bad input, parameters or environment, each with a message and an exit status."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from rewards.errors import RewardError


class DataError(Exception):
    """Invalid input, parameters or environment. The message says what is wrong, where, and what to do."""

    status = 2

    def __init__(self, message: str, step: str | None = None) -> None:
        super().__init__(message)
        self.step = step  # name of the faulty step, if there is one


class LimitExceeded(DataError):
    """A limit was exceeded (share of unusable rows or of scoring errors, spend cap)."""

    status = 3


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, else `; known: a, b, c`, or nothing if none is known."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def explain(error: OSError, path: Path | None = None) -> DataError:
    """An OSError as one line, with advice for a full disk."""
    where = error.filename or path or "?"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DataError(f"{where}: the disk is full; free some space and run the same command again")
    return DataError(f"{where}: {error.strerror or error}")


@contextmanager
def os_errors(path: Path) -> Iterator[None]:
    """Convert OSError to DataError."""
    try:
        yield
    except OSError as error:
        raise explain(error, path) from error


@contextmanager
def reward_errors() -> Iterator[None]:
    """Convert RewardError (no server, no isolation for programs) to DataError."""
    try:
        yield
    except RewardError as problem:
        raise DataError(str(problem)) from problem
