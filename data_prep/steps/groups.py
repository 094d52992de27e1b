"""Offline GRPO: all scored samples of a question as one group, each with its advantage in the group.

- groups: {}                    meta.advantage = (score - mean) / (std + 1e-6)
- groups: {scale: mean}         score - mean, as Dr. GRPO (arXiv 2503.20783) has it

Mean and standard deviation (over n - 1, as verl's compute_grpo_outcome_advantage; arXiv 2402.03300, section 4.1.2) are
over the group's samples. A group's rows stand together; meta.group holds its size, the row's place, mean and std.
Groups whose scores are all equal have no advantages, and are counted as drops.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Row
from data_prep.core.validation import Outcomes
from data_prep.steps import candidates
from data_prep.steps.candidates import Builder, BuilderParams, Candidate

EPSILON = 1e-6  # verl's
DIGITS = 9  # the last bits of a sum are not the scores'


class GroupsParams(BuilderParams):
    """outcome: all that an online reward gives a value for; errors of the grader are left out of their group."""

    outcome: Outcomes = ("scored", "no_answer", "bad_format", "truncated")
    scale: Literal["std", "mean"] = "std"
    min_samples: int = Field(2, ge=2)


class Groups(Builder):
    """All samples in; the samples of groups with spread out, each with its advantage."""

    kind = "groups"
    Params = GroupsParams
    params: GroupsParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Groups in the order of their questions' ids, samples as they were drawn."""
        for name, samples, drops in candidates.grouped(rows, self.params):
            yield from drops
            if len({sample.score for sample in samples}) > 1:
                yield from self._group(samples)
            elif samples:
                yield Drop("group without spread", name, f"{len(samples)} samples of score {samples[0].score:g}")

    def _group(self, samples: Sequence[Candidate]) -> Iterator[Row]:
        size = len(samples)
        mean = math.fsum(sample.score for sample in samples) / size
        std = math.sqrt(math.fsum((sample.score - mean) ** 2 for sample in samples) / (size - 1))
        for place, sample in enumerate(samples):
            advantage = (sample.score - mean) / (std + EPSILON if self.params.scale == "std" else 1)
            group = {"size": size, "place": place, "mean": round(mean, DIGITS), "std": round(std, DIGITS)}
            meta = {**sample.row["meta"], "advantage": round(advantage, DIGITS), "group": group}
            yield {**sample.row, "completion": sample.text, "meta": meta}
