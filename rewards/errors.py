"""Errors of the rewards package, and the "did you mean" hint. Imports nothing from this repository."""

import difflib
from collections.abc import Iterable


class RewardError(ValueError):
    """A reward cannot be built or used as requested; the message is one line for the user."""


class NotGraded(RewardError):
    """A program could not be graded: the sandbox failed, or the tests cannot be run."""


class TooManyFailures(RewardError):
    """The share of `error` or `timeout` outcomes exceeds its limit."""


def nearest(name: str, known: Iterable[str]) -> str:
    """', did you mean …?' for the known name closest to `name`, or ''."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""
