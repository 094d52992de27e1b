"""Difficulty of problems by how often a model solves them: the measured alternative to `label`.

- difficulty: {}                         meta.pass_rate, and meta.difficulty = 10 - 9 × pass_rate
- difficulty: {fill: missing}            a difficulty that is there (a `label`) stays

Rows are scored samples; each gets its problem's share of samples that pass. A problem without a scored sample has no
rate, and its rows are dropped. `meta.difficulty_by` says whose judgement it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from data_prep.core.rows import prompt_of, with_meta
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.steps.select import Table, number_of

LEAST, MOST, DIGITS = 1.0, 10.0, 4  # of the scale, for problems that are always and never solved


class DifficultyParams(Params):
    """fill: whether a difficulty that is there is replaced."""

    fill: Literal["all", "missing"] = "all"
    pass_score: float = 1.0  # a sample passes with at least this score


class Difficulty(Step[DifficultyParams]):
    """Scored samples in, the same samples with their problem's pass rate and difficulty out."""

    kind = "difficulty"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    def tally(self, row: Row) -> str:
        """Whose judgement the difficulty is."""
        return f"by {row['meta']['difficulty_by'].replace('_', ' ')}"

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        given = self.params
        table = Table(len(rows))
        for at, row in enumerate(rows):
            table.prompt[at] = number_of(prompt_of(row))
            if row.get("outcome", "scored") not in ("error", "timeout") and "score" in row:
                table.score[at] = row["score"]
        rates = table.rates(given.pass_score).tolist()
        for at, row in enumerate(rows):
            if math.isnan(rates[at]):
                yield Drop("problem without a scored sample", row["id"], "put `score` before this step", bad=True)
                continue
            rate, known = round(rates[at], DIGITS), row.get("meta", {}).get("difficulty")
            if given.fill == "missing" and known is not None:
                level, by = known, "label"
            else:
                level, by = round(MOST - (MOST - LEAST) * rate, DIGITS), "pass_rate"
            yield with_meta(row, pass_rate=rate, difficulty=level, difficulty_by=by)
