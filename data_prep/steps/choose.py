"""Selects prompts by the similarity of a model's answers to their references.

- choose_by_likeness: {mode: hard, n: 5000}                  the original's rule
- choose_by_likeness: {mode: hard, n: 5000, guarded: true}   without its length artefacts

The original's rule (training/create_training_data.py): easy takes the n highest scores, hard the n lowest, medium the n
in the middle, sorted by descending score with ties in the pool's order; random samples with numpy's legacy
generator; without n, or if n exceeds the pool, all rows are taken. Rows without a score (outcome error or timeout)
are dropped. guarded drops rows whose answer is empty, truncated or unscored, or whose references are tiny,
then takes the same share of each stratum, by source and by the shortest reference's length; `band` first restricts each
stratum to a range of its quantiles.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.inference import prompts
from data_prep.sources.tasks import PromptName
from data_prep.steps.references import without_sample
from data_prep.steps.score import FAULTY
from data_prep.steps.select import Range, number_of
from rewards.text.tokenise import tokens_13a

Mode = Literal["random", "easy", "medium", "hard"]
LENGTHS = (16, 64, 256)  # stratum boundaries, in words of the shortest reference
MISMATCH = 2.0  # an answer is a mismatch below half or above twice the reference's length


class ChooseParams(Params):
    """min_reference: minimum words of the shortest reference, if guarded. system: a file in templates/prompts, added
    to the selected prompts as the system prompt."""

    mode: Mode = "hard"
    n: int | None = Field(None, ge=1)
    seed: int = Field(42, ge=0, lt=2**32)
    guarded: bool = False
    min_reference: int = Field(8, ge=1)
    band: Annotated[Range, Field()] = (0.0, 1.0)
    system: PromptName = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mode == "random" and self.n is None:
            raise ValueError("mode random needs n")
        if not 0 <= self.band[0] <= self.band[1] <= 1:
            raise ValueError("band: must be quantiles from 0 to 1")
        if not self.guarded and self.band != (0.0, 1.0):
            raise ValueError("band needs guarded: true")
        return self


class Choose(Step[ChooseParams]):
    """The selected prompts, without the scored answers; `meta.likeness` keeps the scores."""

    kind = "choose_by_likeness"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "references")

    def tally(self, row: Row) -> str | None:
        """The answer's length class relative to the reference: shows whether prompts are hard only by length."""
        label = row.get("meta", {}).get("length")
        return label if isinstance(label, str) else None

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Selected rows by descending score; all others as drops with a reason."""
        given = self.params
        refused: dict[int, str] = {}
        scores: list[float] = []
        strata: list[tuple[str, int]] = []
        for at, row in enumerate(rows):
            shortest = (
                min(len(text.split()) for text in row["references"]) if given.guarded else 0
            )  # tokenising is slow
            known = _score(row)
            if known is None and (given.mode != "random" or given.guarded):
                refused[at] = "missing score"
            elif given.guarded and (reason := self._unfit(row, shortest)):
                refused[at] = reason
            scores.append(known or 0.0)
            strata.append(_stratum(row, shortest) if given.guarded else ("", 0))
        fit = [at for at in range(len(rows)) if at not in refused]
        chosen = self._by_stratum(fit, scores, strata) if given.guarded else self._plain(fit, scores)
        system = prompts.head(given.system)
        taken = set(chosen)
        for at in chosen:
            yield _chosen(rows[at], system)
        for at, row in enumerate(rows):
            if at not in taken:
                yield Drop(refused.get(at, "not chosen"), row["id"], bad=refused.get(at) == "missing score")

    def _plain(self, fit: list[int], scores: Sequence[float]) -> list[int]:
        """The original's selection and order."""
        import numpy as np

        mode, n = self.params.mode, len(fit) if self.params.n is None else min(self.params.n, len(fit))
        if mode == "random":
            if n == len(fit):
                return fit
            return [fit[at] for at in np.random.RandomState(self.params.seed).choice(len(fit), n, replace=False)]
        ranked = sorted(fit, key=lambda at: scores[at], reverse=mode == "easy")  # ties in the pool's order
        start = (len(fit) - n) // 2 if mode == "medium" else 0
        return sorted(ranked[start : start + n], key=lambda at: scores[at], reverse=True)

    def _unfit(self, row: Row, shortest: int) -> str | None:
        if row.get("outcome", "scored") != "scored":
            return f"outcome {row['outcome']}"
        if row.get("meta", {}).get("finish_reason") == "length":
            return "truncated answer"
        if not row.get("completion", "").strip():
            return "empty answer"
        return "tiny reference" if shortest < self.params.min_reference else None

    def _by_stratum(self, fit: list[int], scores: Sequence[float], strata: Sequence[tuple[str, int]]) -> list[int]:
        """The same share of each stratum's band, rounded by largest remainder."""
        members: dict[tuple[str, int], list[int]] = defaultdict(list)
        for at in fit:
            members[strata[at]].append(at)
        for name, group in members.items():
            ranked = sorted(group, key=lambda at: (scores[at], number_of(f"{self.params.seed}:{at}")))
            low, high = self.params.band
            members[name] = ranked[round(low * len(ranked)) : round(high * len(ranked))]
        total = sum(map(len, members.values()))
        n = min(self.params.n or total, total)
        exact = {name: n * len(group) / total for name, group in members.items()} if total else {}
        counts = {name: int(share) for name, share in exact.items()}
        for name in sorted(exact, key=lambda name: (counts[name] - exact[name], name))[: n - sum(counts.values())]:
            counts[name] += 1
        chosen = [at for name, group in members.items() for at in self._window(group, counts[name])]
        return sorted(chosen, key=lambda at: scores[at], reverse=True)

    def _window(self, ranked: list[int], count: int) -> list[int]:
        """`count` rows of a stratum that is sorted by ascending score."""
        if self.params.mode == "random":
            return sorted(ranked, key=lambda at: number_of(f"{self.params.seed}:{at}"))[:count]
        spare = len(ranked) - count
        start = {"hard": 0, "medium": spare // 2, "easy": spare}[self.params.mode]
        return ranked[start : start + count]


def _score(row: Row) -> float | None:
    """The score, None if it could not be computed (the stored value is then meaningless)."""
    score = row.get("score")
    if not isinstance(score, int | float) or not math.isfinite(score) or row.get("outcome") in FAULTY:
        return None
    return float(score)


def _stratum(row: Row, shortest: int) -> tuple[str, int]:
    return str(row.get("source", "")), sum(shortest >= limit for limit in LENGTHS)


def length_label(row: Row) -> str:
    """The answer's length class relative to the shortest reference, in BLEU's tokens."""
    answer, *references = (len(tokens_13a(text)) for text in (row.get("completion", ""), *row["references"]))
    reference = min(references)
    if row.get("meta", {}).get("finish_reason") == "length":
        return "answer truncated"
    if not answer:
        return "answer empty"
    if answer * MISMATCH < reference:
        return "answer less than half as long as the reference"
    return "answer more than twice as long" if answer > reference * MISMATCH else "answer of similar length"


def _chosen(row: Row, system: Any) -> Row:
    done = without_sample(row)
    if "score" in row:
        done["meta"] |= {"likeness": row["score"], "length": length_label(row)}
    prompts.put(done, system)
    return done
