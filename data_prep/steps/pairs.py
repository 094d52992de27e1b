"""Preference pairs of a question's samples: `completion` scores higher than `rejected`.

- pairs: {per_prompt: 1, margin: 0.5, min_samples: 4}       a reward model's scores, whatever their range is
- pairs: {min_preferred: 1.0, max_dispreferred: 0.6, per_prompt: 4, column: code}

Of a question's pairs the widest come first, and samples that stand in none yet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Row
from data_prep.steps import candidates
from data_prep.steps.candidates import Builder, BuilderParams, Candidate


class PairsParams(BuilderParams):
    """margin: least difference of the scores, which are never equal."""

    margin: float = Field(0.0, ge=0)
    min_preferred: float | None = None
    max_dispreferred: float | None = None
    per_prompt: int = Field(1, ge=1)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two samples of one question."""

    chosen: Candidate
    rejected: Candidate

    @property
    def margin(self) -> float:
        return round(self.chosen.score - self.rejected.score, 9)


class Pairs(Builder):
    """All samples in, pairs out; questions that give none are counted as drops."""

    kind = "pairs"
    Params = PairsParams
    params: PairsParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in the order of their questions' ids, whatever order the samples come in."""
        for name, samples, drops in candidates.grouped(rows, self.params):
            yield from drops
            kept, repeats = candidates.distinct(samples, self.params.identity)
            yield from repeats
            if len({item.score for item in kept}) < 2:
                yield Drop("question without spread", name, _scores(kept))
                continue
            pairs = (Pair(a, b) for a in kept for b in kept if a.score > b.score)
            fitting = [pair for pair in pairs if self._fits(pair)]
            if not fitting:
                yield Drop("question without a pair within bounds", name, _scores(kept))
            for pair in self._chosen(fitting):
                yield candidates.pair(pair.chosen, pair.rejected, margin=pair.margin)

    def _fits(self, pair: Pair) -> bool:
        given = self.params
        return (
            pair.margin > 0
            and pair.margin >= given.margin
            and (given.min_preferred is None or pair.chosen.score >= given.min_preferred)
            and (given.max_dispreferred is None or pair.rejected.score <= given.max_dispreferred)
        )

    def _chosen(self, fitting: Sequence[Pair]) -> Iterator[Pair]:
        """At most per_prompt pairs."""
        left, used = list(fitting), Counter[Candidate]()

        def rank(pair: Pair) -> tuple[Any, ...]:
            again = used[pair.chosen] + used[pair.rejected]
            return again, -pair.margin, -pair.chosen.score, pair.chosen.order, pair.rejected.order

        for _ in range(min(self.params.per_prompt, len(left))):
            best = min(left, key=rank)
            left.remove(best)
            used.update((best.chosen, best.rejected))
            yield best


def _scores(samples: Sequence[Candidate]) -> str:
    counts = Counter(f"{sample.score:g}" for sample in samples)
    return "scores " + (", ".join(f"{score} × {count}" for score, count in sorted(counts.items())) or "none")
