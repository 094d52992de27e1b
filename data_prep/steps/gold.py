"""Reference answers as SFT rows: the completion is the first of `references`, programs in a code fence.

- gold: {}
- gold: {check: true}           runs each reference against the row's tests in the sandbox and drops failing ones

Input rows are questions or their samples. A reference is a program if the row has tests or a language.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, ClassVar

from pydantic import Field

import rewards
from data_prep.core.rows import OF_A_COMPLETION, without
from data_prep.core.step import Apply, Context, Drop, Output, Params, Row, Step
from data_prep.errors import reward_errors
from data_prep.steps import candidates

BATCH = 256  # references per batch


class GoldParams(Params):
    """check: needs `tests` in the rows. workers: references run in parallel."""

    check: bool = False
    workers: int = Field(2, ge=1)


class Gold(Step[GoldParams]):
    """A row per question; `check` drops failing references."""

    kind = "gold"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "references")
    unkeyed: ClassVar[tuple[str, ...]] = ("workers",)

    def modules(self) -> tuple[str, ...]:
        return ("rewards.code.reward",) if self.params.check else ()

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """Check first that programs can be run. Raises DataError."""
        reward = rewards.load("code", value="all", workers=self.params.workers) if self.params.check else None
        with reward_errors():
            if reward:
                reward.check_ready()
            yield lambda rows, shard: self._golds(rows, reward)

    def _golds(self, rows: Sequence[Row], reward: rewards.Reward | None) -> Output:
        made = self._made(rows)
        while batch := list(islice(made, BATCH)):
            golds = [output for output in batch if not isinstance(output, Drop)]
            scores = reward.score_many(golds, [row["completion"] for row in golds]) if reward and golds else []
            faults = {row["id"]: _fault(row["id"], score) for row, score in zip(golds, scores, strict=False)}
            for output in batch:
                yield output if isinstance(output, Drop) else faults.get(output["id"]) or output

    def _made(self, rows: Sequence[Row]) -> Iterator[Row | Drop]:
        for name, places in candidates.by_question(rows):
            row = min((rows[place] for place in places), key=lambda row: candidates.natural(row["id"]))
            yield _gold(name, row, row["references"][0])


def _gold(name: str, row: Row, reference: str) -> Row | Drop:
    if not reference.strip():
        return Drop("empty gold", name, bad=True)
    is_program = "tests" in row or "language" in row.get("meta", {})
    completion = candidates.fenced(reference, candidates.language_of(row)) if is_program else reference
    return {**without(row, OF_A_COMPLETION), "id": name, "completion": completion, "meta": candidates.about(row)}


def _fault(name: str, score: rewards.Score) -> Drop | None:
    """Why a gold solution is not usable; None if it passes all tests."""
    details: Mapping[str, Any] = score.details
    if score.outcome == "scored" and score.value == 1:
        return None
    passed = f"{details['passed']} of {details['total']} tests passed" if "total" in details else ""
    words = (str(details.get("status", score.outcome)), passed, details.get("problem", ""))
    reason = "gold fails its tests" if score.outcome == "scored" else "gold cannot be judged"
    return Drop(reason, name, ", ".join(word for word in words if word), bad=score.outcome != "scored")
