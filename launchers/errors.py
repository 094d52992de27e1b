"""User errors, one line each: where, which key, what is wrong, what to do."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One mistake. `where` is file:line or the command-line option, `key` the dotted key."""

    where: str
    key: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.key, self.message) if part)


class UserError(Exception):
    """All mistakes found in the user's input. Exit status 2, one line each, no traceback."""

    status = 2

    def __init__(self, *faults: Fault) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class RunError(Exception):
    """Something failed while running; the message is one line that names the log. Exit status 1."""

    status = 1


def fail(message: str, where: str = "", key: str = "") -> UserError:
    """A UserError with a single fault."""
    return UserError(Fault(where, key, message))


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word closest to `word`, ignoring case; None if none is close."""
    words = {other.lower(): other for other in known}
    matches = difflib.get_close_matches(word.lower(), list(words), n=1, cutoff=0.6)
    return words[matches[0]] if matches else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or if nothing is close the known words (the first eight of a long list)."""
    words = sorted(known)
    if near := nearest(word, words):
        return f"did you mean {near!r}?"
    shown = words if len(words) <= 24 else [*words[:8], "…"]
    return f"known: {', '.join(shown) or 'none'}"
