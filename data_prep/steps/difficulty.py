"""Difficulty of problems measured by a model's pass rate; `label` uses a model's judgement instead.

- difficulty: {}                         meta.pass_rate, and meta.difficulty = 10 - 9 × pass_rate
- difficulty: {fill: missing}            keeps an existing difficulty (from `label`)

Rows are scored samples; each gets its problem's pass rate. Rows of a problem without a scored sample are dropped.
`meta.difficulty_by` records the source of the difficulty.
"""

import math
from collections.abc import Sequence
from typing import ClassVar, Literal

from data_prep.core.rows import prompt_of, with_meta
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.steps.select import Table, number_of

LEAST, MOST, DIGITS = 1.0, 10.0, 4  # scale ends: always solved, never solved


class DifficultyParams(Params):
    """fill: whether an existing difficulty is replaced."""

    fill: Literal["all", "missing"] = "all"
    pass_score: float = 1.0  # a sample passes with at least this score


class Difficulty(Step[DifficultyParams]):
    """Adds the problem's pass rate and difficulty to each scored sample."""

    kind = "difficulty"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)

    def tally(self, row: Row) -> str:
        """The source of the difficulty."""
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
