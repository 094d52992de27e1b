"""Base of all rewards: Score and its outcomes, validated parameters, counters, failure limits.

A reward subclasses `Reward`, a pydantic model. Its parameters are fields with defaults, and it implements
`grade` or `grade_many`. Errors are outcomes, never silent zeros: they are counted, and `FailureLimit`
stops a run with too many of them.
"""

import hashlib
import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import compress
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

from rewards import forks
from rewards.errors import RewardError, TooManyFailures
from rewards.params import RewardParams, checked

Row = Mapping[str, Any]
Outcome = Literal["scored", "no_answer", "bad_format", "truncated", "timeout", "error"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
DATA_FILES = (".cpp", ".h", ".j2", ".toml")  # data files next to modules that change their results


@dataclass(frozen=True)
class Score:
    """One graded completion. value: 0 unless outcome is "scored" or the reward defines another value. details: JSON
    values for logs, e.g. the extracted answer and the deciding stage.
    """

    value: float
    outcome: Outcome = "scored"
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {"value": self.value, "outcome": self.outcome, "details": self.details}


@dataclass(frozen=True)
class FailureLimit:
    """Maximum shares (0 to 1) of `error` and `timeout`, checked from `after` scores on, so that an early failure does
    not stop a long run.
    """

    error: float = 0.02
    timeout: float = 0.2
    after: int = 50

    def check(self, counts: Mapping[str, int], final: bool = False) -> None:
        """Raise TooManyFailures if a share is above its limit. final: check even with few scores."""
        total = sum(counts.values())
        for outcome, limit in (("error", self.error), ("timeout", self.timeout)):
            failed = counts.get(outcome, 0)
            if failed > limit * total and (final or total >= self.after):
                raise TooManyFailures(
                    f"{failed} of {total} scores are {outcome!r} ({failed / total:.1%}; the limit is "
                    f"{limit:.1%}): check their details, or raise the limit"
                )


class FailureMonitor:
    """A failure limit on the last `window` outcomes, so that many early successes do not hide later failures."""

    def __init__(self, limit: FailureLimit, window: int = 1000) -> None:
        self._limit, self._last = limit, deque[str](maxlen=window)

    def add(self, scores: Iterable[Score]) -> None:
        """Raise TooManyFailures if the share of errors or timeouts is now above its limit."""
        self._last.extend(score.outcome for score in scores)
        self._limit.check(Counter(tuple(self._last)))


def finite(score: Score) -> Score:
    """`score`, or an error score if its value or the value of a part is NaN or infinite."""
    parts = {name: part["value"] for name, part in score.details.get("parts", {}).items()}
    values = {"the reward": score.value, **parts}.items()
    return next((error(f"the value of {name} is {value}") for name, value in values if not math.isfinite(value)), score)


@cache  # code does not change at run time
def code_hash() -> str:
    """SHA-256 of all code of the package, since a reward may depend on any of it."""
    folder, digest = Path(__file__).parent, hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".py", *DATA_FILES)):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def group_of(row: Row) -> str | None:
    """The group key of a prompt's completions: `group`, else meta.prompt_id, `id` or `prompt`; None without any."""
    meta = row.get("meta")
    columns = {**row, "prompt_id": meta.get("prompt_id") if isinstance(meta, Mapping) else None}
    name = next((name for name in ("group", "prompt_id", "id", "prompt") if columns.get(name) is not None), None)
    return None if name is None else json.dumps([name, columns[name]], sort_keys=True, default=str)


_lock = forks.lock()  # shared by all rewards; held for microseconds


class Reward(RewardParams):
    """A configured reward; its fields are its parameters. Thread-safe; usable after fork; pickled as name and fields.

    name: the name given to `load`. counts: outcomes so far in this process.
    """

    needs: ClassVar[tuple[str, ...]] = ()  # required columns of a row
    batch_rows: ClassVar[int] = 64  # rows per worker and batch when scoring a file; a kill loses one batch
    _name: str = ""

    @classmethod
    def create(cls, name: str, params: Mapping[str, Any]) -> Self:
        """Build from untyped parameters. Raises RewardError."""
        reward = checked(cls, params, f"reward {name!r}")
        reward._name = name
        return reward

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).create, (self.name, self.model_dump())

    @property
    def name(self) -> str:
        return self._name

    @cached_property
    def counts(self) -> Counter[str]:
        return Counter()

    def score(self, row: Row, completion: str) -> Score:
        """Grade one completion of `row`. Input that cannot be graded gives outcome "error", not an exception."""
        return self.score_many([row], [completion])[0]

    def score_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        """Grade completions[i] of rows[i], in order. workers: how many are graded in parallel."""
        if len(rows) != len(completions):
            raise RewardError(f"{len(rows)} rows but {len(completions)} completions")
        are_texts = [isinstance(text, str) for text in completions]
        graded = iter(self.grade_many([*compress(rows, are_texts)], [*compress(completions, are_texts)], workers))
        scores = [
            next(graded) if is_text else error(f"the completion must be a text, got {type(completion).__name__}")
            for completion, is_text in zip(completions, are_texts, strict=True)
        ]
        with _lock:
            self.counts.update(score.outcome for score in scores)
        return scores

    @property
    def grouped(self) -> bool:
        """Whether values depend on the other completions of a group, so that a group must be scored together."""
        return False

    def batches_at_once(self, workers: int | None) -> int:
        """How many batches of a file are scored concurrently, each in its own thread."""
        return 1

    def check_ready(self) -> None:
        """Raise RewardError if the reward's dependencies (a server) are not available."""

    def gold_problem(self, row: Row) -> str:
        """Why the row's own reference answer does not get the full score; empty if it does."""
        raise RewardError(f"reward {self.name!r} has no reference answers to check")

    def grade(self, row: Row, completion: str) -> Score:
        """Subclasses implement this or `grade_many`."""
        return self.grade_many([row], [completion])[0]

    def grade_many(self, rows: Sequence[Row], completions: Sequence[str], workers: int | None = None) -> list[Score]:
        return [self.grade(row, completion) for row, completion in zip(rows, completions, strict=True)]


def error(problem: str) -> Score:
    """The score of a row or completion that cannot be graded."""
    return Score(0.0, "error", {"problem": problem})
