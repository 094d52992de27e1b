"""Rejection sampling: each question's best samples by score, without duplicates, as SFT rows.

- best_of_n: {min_score: 1.0, tie: shortest}
- best_of_n: {min_samples: 8, per_prompt: 2, column: code}      the best two, for scores of any range

Output rows are the samples, with their ids. Unusable samples and questions without an output row are counted as drops;
samples that are merely not among the best are not.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Row
from data_prep.steps import candidates
from data_prep.steps.candidates import Builder, BuilderParams, Candidate


class BestOfNParams(BuilderParams):
    """tie: the choice among equal scores, the first sample or the shortest."""

    min_score: float | None = None
    tie: Literal["first", "shortest"] = "first"
    per_prompt: int = Field(1, ge=1)


class BestOfN(Builder[BestOfNParams]):
    """Keeps the best samples of each question."""

    kind = "best_of_n"

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows ordered by question id, independent of the input order."""
        given = self.params
        for name, samples, drops in candidates.grouped(rows, given):
            yield from drops
            if not samples:
                yield Drop("question without a usable sample", name)
                continue
            kept, repeats = candidates.distinct(sorted(samples, key=self._rank), given.identity)
            yield from repeats
            good = [sample for sample in kept if given.min_score is None or sample.score >= given.min_score]
            if not good:
                yield Drop("question below min_score", name, f"best {max(member.score for member in samples):g}")
            for sample in good[: given.per_prompt]:
                yield {**sample.row, "completion": sample.text}

    def _rank(self, sample: Candidate) -> tuple[Any, ...]:
        return -sample.score, len(sample.text) if self.params.tie == "shortest" else 0, sample.order
