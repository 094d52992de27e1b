"""Gold solutions as SFT rows: the completion becomes the first of `references`, in a fence of the row's language.

- gold: {}
- gold: {check: true}           runs each gold against the row's tests in the sandbox, and drops those that fail

One row per question, of question rows as of their samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from pydantic import Field

import rewards
from data_prep.core.step import Apply, Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.steps import candidates
from data_prep.steps.select import prompt_of

OF_A_COMPLETION = ("rejected", "score", "outcome")


class GoldParams(Params):
    """`check` needs `tests` in the rows; `workers`: golds that run at once."""

    check: bool = False
    workers: int = Field(2, ge=1)


class Gold(Step):
    """A row per question; what is known to be wrong has been dropped by `verify_questions`, or is by `check`."""

    kind = "gold"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "references")
    unkeyed: ClassVar[tuple[str, ...]] = ("workers",)
    Params = GoldParams
    params: GoldParams

    def modules(self) -> tuple[str, ...]:
        """The grader's, where reference solutions are run."""
        return ("rewards.code.reward",) if self.params.check else ()

    @contextmanager
    def open(self, ctx: Context) -> Iterator[Apply]:
        """See first that programs can be run here. Raises DataError."""
        reward = rewards.load("code", value="all", workers=self.params.workers) if self.params.check else None
        try:
            if reward:
                reward.check_ready()
            yield lambda rows, shard: self._golds(rows, reward)
        except rewards.RewardError as problem:
            raise DataError(str(problem)) from problem

    def _golds(self, rows: Sequence[Row], reward: rewards.Reward | None) -> Output:
        chosen: dict[str, Row] = {}
        for row in sorted(rows, key=lambda row: (candidates.natural(prompt_of(row)), candidates.natural(row["id"]))):
            chosen.setdefault(prompt_of(row), row)
        made = [_gold(name, row) for name, row in chosen.items()]
        golds = [one for one in made if not isinstance(one, Drop)]
        scores = reward.score_many(golds, [row["completion"] for row in golds]) if reward else []
        judged = {row["id"]: _fault(row["id"], score) for row, score in zip(golds, scores, strict=False)}
        for one in made:
            yield one if isinstance(one, Drop) else judged.get(one["id"]) or one


def _gold(name: str, row: Row) -> Row | Drop:
    if not row["references"][0].strip():
        return Drop("empty gold", name, bad=True)
    kept = {field: value for field, value in row.items() if field not in OF_A_COMPLETION}
    completion = candidates.fenced(row["references"][0], candidates.language_of(row))
    return {**kept, "id": name, "completion": completion, "meta": candidates.about(row)}


def _fault(name: str, score: rewards.Score) -> Drop | None:
    """Why a gold is not to be trained on; None when it passes all its tests."""
    told: Mapping[str, Any] = score.details
    if score.outcome == "scored" and score.value == 1:
        return None
    passed = f"{told['passed']} of {told['total']} tests passed" if "total" in told else ""
    words = (str(told.get("status", score.outcome)), passed, told.get("problem", ""))
    reason = "gold fails its tests" if score.outcome == "scored" else "gold cannot be judged"
    return Drop(reason, name, ", ".join(word for word in words if word), bad=score.outcome != "scored")
