"""Grades completions with a reward: `score`, `outcome` and, where short, `meta.score_details`.

- score: {reward: math, workers: 4}
- score: {reward: code, workers: 8, cache: true}      programs that were graded before are not run again (`score_cache`)
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from pydantic import Field, JsonValue, model_validator

import rewards
from data_prep.core.rows import with_meta
from data_prep.core.step import Apply, Context, Params, Row, Step
from data_prep.errors import reward_errors
from data_prep.steps.score_cache import ScoreCache
from rewards.scorer import score_rows

if TYPE_CHECKING:
    from rewards.code.reward import CodeReward

MAX_DETAILS = 2000  # characters of JSON; longer fields are not stored in the row
CODE_SHARD_ROWS = 64  # a program may take seconds, so a kill must lose few; 64 rows keep all workers busy
FAULTY = ("error", "timeout")  # outcomes that say nothing about the completion


class ScoreParams(Params):
    """A reward's name and parameters; see `rewards.REGISTRY`."""

    reward: str
    params: dict[str, JsonValue] = Field(default_factory=dict)
    max_error_share: float = Field(0.02, ge=0, le=1)  # allowed share of rows with outcome error or timeout
    workers: int | None = Field(None, ge=1)  # parallel processes; default: the executor's
    cache: bool = False  # reward code only: reuse verdicts of programs that were run before with the same tests

    @model_validator(mode="after")
    def _loads(self) -> Self:
        rewards.reward_class(self.reward).create(self.reward, self.params)
        if self.cache and self.reward != "code":
            raise ValueError(f"cache applies to reward code only, not to {self.reward}: remove it")
        return self


class ScoreStep(Step[ScoreParams]):
    """Scores completions; drops none."""

    kind = "score"
    present: ClassVar[tuple[str, ...]] = ("completion",)  # may be empty: an empty completion is scored
    unkeyed: ClassVar[tuple[str, ...]] = ("workers", "max_error_share", "cache")
    packages: ClassVar[tuple[str, ...]] = ("math-verify", "rapidfuzz")
    shard_rows: int = 500

    def __init__(self, params: ScoreParams) -> None:
        super().__init__(params)
        self._reward = rewards.load(params.reward, **params.params)
        if params.reward == "code":
            self.shard_rows = CODE_SHARD_ROWS
        self.scope = "whole" if self._reward.grouped else "shard"  # a group's completions are scored together

    def env(self) -> str:
        """Core, except for a reward that needs torch."""
        return "vllm" if self.params.reward == "bertscore" else "core"

    def processes(self) -> int | None:
        return self.params.workers

    def modules(self) -> tuple[str, ...]:
        """The reward's module; for a combined reward all rewards' modules."""
        combined = self.params.reward in ("combine", "bleu_rm")
        names = rewards.REGISTRY if combined else (self.params.reward,)
        return tuple(rewards.place_of(name).partition(":")[0] for name in names)

    def tally(self, row: Row) -> str | None:
        return str(row["outcome"])

    def verdict(self, counts: Mapping[str, int], rows: int) -> str | None:
        """Rejects scores with too many errors and timeouts."""
        faulty = sum(counts.get(outcome, 0) for outcome in FAULTY)
        if faulty <= self.params.max_error_share * rows:
            return None
        return (
            f"{faulty:,} of {rows:,} rows end in {' or '.join(FAULTY)}, more than max_error_share "
            f"{self.params.max_error_share:g} allows: look at their meta.score_details"
        )

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Check once for all shards that the reward's dependencies (server, sandbox) work. Raises DataError."""
        cache = ScoreCache(ctx.dir.parent / "scores") if self.params.cache else None
        workers = ctx.workers if self._reward.grouped else 1  # shards already run in parallel processes

        def apply(rows: Any, shard: int) -> Iterator[Row]:
            with reward_errors():
                scores = self._scores(rows, workers, cache)
            return (_scored(row, score) for row, score in zip(rows, scores, strict=True))

        with reward_errors():
            self._reward.check_ready()
        yield apply

    def _scores(self, rows: Sequence[Row], workers: int, cache: ScoreCache | None) -> list[rewards.Score]:

        def score(some: Sequence[Row]) -> list[rewards.Score]:
            return [own for (own,) in score_rows(self._reward, some, workers)]

        if cache is None:
            return score(rows)
        keys = cast("CodeReward", self._reward).identities(rows, [row["completion"] for row in rows])
        known = {key: verdict for key in keys if key and (verdict := cache.get(key))}
        missing = [at for at, key in enumerate(keys) if key not in known]
        new = dict(zip(missing, score([rows[at] for at in missing]), strict=True))
        cache.put({key: verdict for at, verdict in new.items() if (key := keys[at])})
        return [new[at] if at in new else known[str(key)] for at, key in enumerate(keys)]


def _scored(row: Row, score: rewards.Score) -> Row:
    done = {**row, "score": score.value, "outcome": score.outcome}
    details = _short(score.details)
    return with_meta(done, score_details=details) if details else done


def _short(details: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details that are short enough for a row; a long answer is truncated and hashed, for majority votes."""
    if len(json.dumps(details)) <= MAX_DETAILS:
        return details
    answer = str(details.get("answer", ""))
    digest = hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    kept = {name: value for name, value in details.items() if len(json.dumps(value)) <= MAX_DETAILS // 4}
    return kept if "answer" in kept or not answer else {**kept, "answer": f"{answer[:100]}… {digest}"}
