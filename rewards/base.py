"""What every reward shares: Score and its outcomes, checked parameters, counters, limits on failures.

A reward subclasses `Reward`, sets `Params` to a subclass of rewards.params.RewardParams whose fields all have defaults,
and implements `grade` or `grade_many`. Errors are outcomes, never silent zeros: they are counted, and `FailureLimit`
stops a run that has too many of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from rewards.errors import RewardError, TooManyFailures
from rewards.params import RewardParams, checked

Row = Mapping[str, Any]
Outcome = Literal["scored", "no_answer", "bad_format", "truncated", "timeout", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass(frozen=True)
class Score:
    """One graded completion. value: 0 unless outcome is "scored" or the reward defines otherwise. details: JSON values
    for people and logs, e.g. the extracted answer and which stage decided.
    """

    value: float
    outcome: Outcome = "scored"
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "outcome": self.outcome, "details": self.details}


@dataclass(frozen=True)
class FailureLimit:
    """Largest tolerated shares (0 to 1) of `error` and `timeout`, checked once `after` scores are in, so that an early
    failure does not stop a long run.
    """

    error: float = 0.02
    timeout: float = 0.2
    after: int = 50

    def check(self, counts: Mapping[str, int], final: bool = False) -> None:
        """Raise TooManyFailures if a share is above its limit; `final`: however few there are."""
        total = sum(counts.values())
        for outcome, limit in (("error", self.error), ("timeout", self.timeout)):
            failed = counts.get(outcome, 0)
            if failed > limit * total and (final or total >= self.after):
                raise TooManyFailures(
                    f"{failed} of {total} scores are {outcome!r} ({failed / total:.1%}; the limit is "
                    f"{limit:.1%}): look at their details, or raise the limit"
                )


class FailureMonitor:
    """A failure limit on the last `window` outcomes, so that a long good start does not hide a late failure."""

    def __init__(self, limit: FailureLimit, window: int = 1000) -> None:
        self._limit, self._lock = limit, threading.Lock()
        self._last: deque[str] = deque(maxlen=window)
        self._counts: Counter[str] = Counter()

    def add(self, scores: Iterable[Score]) -> None:
        """Raise TooManyFailures if the share of errors or timeouts is above its limit now."""
        with self._lock:
            for score in scores:
                if len(self._last) == self._last.maxlen:
                    self._counts[self._last[0]] -= 1
                self._last.append(score.outcome)
                self._counts[score.outcome] += 1
            self._limit.check(self._counts)


def finite(score: Score) -> Score:
    """`score`, or an error in place of one whose value, or a part's value, is NaN or infinite."""
    parts = {name: part["value"] for name, part in score.details.get("parts", {}).items()}
    for name, value in {"the reward": score.value, **parts}.items():
        if not math.isfinite(value):
            return Score(0.0, "error", {"problem": f"the value of {name} is {value}"})
    return score


@cache  # code does not change while it runs
def code_hash() -> str:
    """SHA-256 of all code of the rewards: a reward may use any of it, and what it gives may change with it."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".cpp", ".h", ".j2", ".toml")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def group_of(row: Row) -> str | None:
    """What the completions of one prompt share: `group`, else meta.prompt_id, `id`, `prompt`; None without any."""
    meta = row.get("meta")
    columns = {**row, "prompt_id": meta.get("prompt_id") if isinstance(meta, Mapping) else None}
    given = ([name, columns[name]] for name in ("group", "prompt_id", "id", "prompt") if columns.get(name) is not None)
    return next((json.dumps(pair, sort_keys=True, default=str) for pair in given), None)


class Reward:
    """A configured reward. Thread-safe; usable after fork; pickled as name and parameters.

    counts: outcomes so far in this process.
    """

    Params: ClassVar[type[RewardParams]] = RewardParams
    needs: ClassVar[tuple[str, ...]] = ()  # columns that a row must have
    batch_rows: ClassVar[int] = 64  # per worker, when a file is scored: what a kill loses

    def __init__(self, name: str, params: Any) -> None:
        self.name = name
        self.params = params
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        _alive.add(self)

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Reward:
        """Build from untyped parameters. Raises RewardError."""
        return cls(name, checked(cls.Params, params, f"reward {name!r}"))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).create, (self.name, params_of(self))

    def score(self, row: Row, completion: str) -> Score:
        """Grade one completion of `row`. What cannot be graded is outcome "error", not an exception."""
        problem = _no_text(completion)
        return self._counted([problem or self.grade(row, completion)])[0]

    def score_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        """Grade completions[i] of rows[i], in order. workers: how many may be graded at once."""
        if len(rows) != len(completions):
            raise RewardError(f"{len(rows)} rows but {len(completions)} completions")
        if not any(problems := list(map(_no_text, completions))):
            return self._counted(self.grade_many(rows, completions, workers))
        texts = [i for i, problem in enumerate(problems) if problem is None]
        graded = iter(self.grade_many([rows[i] for i in texts], [completions[i] for i in texts], workers))
        return self._counted([problem or next(graded) for problem in problems])

    @property
    def grouped(self) -> bool:
        """Whether a value depends on the other completions of its group, so that they must be scored together."""
        return False

    def batches_at_once(self, workers: int | None) -> int:
        """How many batches of a file are scored at once, each by a thread of its own."""
        return 1

    def check_ready(self) -> None:
        """Raise RewardError if what the reward depends on (a server) is not there."""

    def grade(self, row: Row, completion: str) -> Score:
        """Subclasses implement this or `grade_many`."""
        return self.grade_many([row], [completion])[0]

    def check_gold(self, row: Row) -> tuple[str, str]:
        """(kind, problem): what sort of gold the row has, and why it would not be given full marks, if so."""
        raise RewardError(f"reward {self.name!r} has no gold to check")

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        return [self.grade(row, completion) for row, completion in zip(rows, completions, strict=True)]

    def _counted(self, scores: list[Score]) -> list[Score]:
        with self._lock:
            self.counts.update(score.outcome for score in scores)
        return scores


def error(problem: str) -> Score:
    """The score of a row or completion that cannot be graded."""
    return Score(0.0, "error", {"problem": problem})


def _no_text(completion: Any) -> Score | None:
    return None if isinstance(completion, str) else error(f"the completion is {type(completion).__name__}, not a text")


def params_of(reward: Reward) -> dict[str, Any]:
    """A reward's parameters by name, as `load` takes them."""
    params: dict[str, Any] = reward.params.model_dump()
    return params


_alive: weakref.WeakSet[Reward] = weakref.WeakSet()


def _fresh_locks() -> None:
    # another thread may have held a lock when this process was forked, and would never release it here
    for reward in _alive:
        reward._lock = threading.Lock()


os.register_at_fork(after_in_child=_fresh_locks)
