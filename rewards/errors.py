"""Errors of the rewards package, and the hint that names the nearest known word. Imports nothing of ours."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RewardError(ValueError):
    """A reward that cannot be built or used as asked; the message is one line for the user."""


class NotGraded(RewardError):
    """A program that the grader could not decide on: the sandbox broke, or its tests cannot be run."""


class TooManyFailures(RewardError):
    """The share of `error` or `timeout` outcomes passed its limit."""


def nearest(name: str, known: Iterable[str]) -> str:
    """', did you mean …?' for the known name closest to `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]!r}?" if close else ""
