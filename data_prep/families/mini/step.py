"""Rows of the mini world's curriculum (`data_prep.families.mini.curriculum`), with gold completions.

{"kind": "curriculum", "params": {"split": "train", "levels": {"2": 500, "3": 500}, "chain": "short"}}
{"kind": "curriculum", "params": {"subject": "functions", "split": "test", "levels": {"1": 30, "2": 100}}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import model_validator

from data_prep.core.step import Context, Output, Params, Row, Step
from data_prep.families.mini import curriculum


class CurriculumParams(Params):
    """`levels` maps a level (1 to 5, of functions 1 to 3) to how many questions of it."""

    subject: Literal["arithmetic", "functions"] = "arithmetic"
    split: Literal["train", "test"] = "train"
    levels: dict[int, int]
    chain: Literal["short", "long"] = "short"
    seed: int = 0
    distinct: bool = True
    references: bool = False  # of sums: give every right wording of the chain, each order of the terms, as a reference
    source: str | None = None  # in place of the subject, where a pipeline's sources are to be told apart

    @model_validator(mode="after")
    def _exist(self) -> Self:
        curriculum.check(self.levels, self.split, self.distinct, self.subject)
        if self.references and self.subject != "arithmetic":
            raise ValueError("references: only sums have several right wordings; functions come with their own")
        return self


class Curriculum(Step):
    """Source of generated questions; the same parameters give the same rows."""

    kind = "curriculum"
    scope = "source"
    Params = CurriculumParams
    params: CurriculumParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """The questions; `rows` is empty."""
        given = self.params
        made = curriculum.rows(
            given.levels,
            given.split,
            chain=given.chain,
            seed=given.seed,
            distinct=given.distinct,
            subject=given.subject,
        )
        if given.references:
            made = [{**row, "references": curriculum.wordings(row)} for row in made]
        return [{**row, "source": given.source} for row in made] if given.source else made
