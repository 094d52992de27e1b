"""Preference pairs from a question's samples: `completion` scores higher than `rejected`.

- pairs: {per_prompt: 1, margin: 0.5, min_samples: 4}       reward-model scores of any range
- pairs: {min_preferred: 1.0, max_dispreferred: 0.6, per_prompt: 4, column: code}

Pairs with the largest score difference and with unused samples are preferred.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Row
from data_prep.steps import candidates
from data_prep.steps.candidates import Builder, BuilderParams, Candidate

Pair = tuple[Candidate, Candidate]  # chosen and rejected


class PairsParams(BuilderParams):
    """margin: minimum score difference; equal scores never form a pair."""

    margin: float = Field(0.0, ge=0)
    min_preferred: float | None = None
    max_dispreferred: float | None = None
    per_prompt: int = Field(1, ge=1)


class Pairs(Builder[PairsParams]):
    """Builds pairs from samples; questions without a pair are counted as drops."""

    kind = "pairs"

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows ordered by question id, independent of the input order."""
        for name, samples, drops in candidates.grouped(rows, self.params):
            yield from drops
            kept, repeats = candidates.distinct(samples, self.params.identity)
            yield from repeats
            if len({item.score for item in kept}) < 2:
                yield Drop("question without spread", name, _scores(kept))
                continue
            fitting = [(a, b) for a in kept for b in kept if a.score > b.score and self._fits(a, b)]
            if not fitting:
                yield Drop("question without a pair within bounds", name, _scores(kept))
            for chosen, rejected in self._chosen(fitting):
                yield candidates.pair(chosen, rejected, margin=_margin((chosen, rejected)))

    def _fits(self, chosen: Candidate, rejected: Candidate) -> bool:
        given, margin = self.params, _margin((chosen, rejected))
        return (
            margin > 0
            and margin >= given.margin
            and (given.min_preferred is None or chosen.score >= given.min_preferred)
            and (given.max_dispreferred is None or rejected.score <= given.max_dispreferred)
        )

    def _chosen(self, fitting: Sequence[Pair]) -> Iterator[Pair]:
        """At most per_prompt pairs."""
        left, used = list(fitting), Counter[Candidate]()

        def rank(pair: Pair) -> tuple[Any, ...]:
            chosen, rejected = pair
            return used[chosen] + used[rejected], -_margin(pair), -chosen.score, chosen.order, rejected.order

        for _ in range(min(self.params.per_prompt, len(left))):
            best = min(left, key=rank)
            left.remove(best)
            used.update(best)
            yield best


def _margin(pair: Pair) -> float:
    return round(pair[0].score - pair[1].score, 9)


def _scores(samples: Sequence[Candidate]) -> str:
    counts = Counter(f"{sample.score:g}" for sample in samples)
    return "scores " + (", ".join(f"{score} × {count}" for score, count in sorted(counts.items())) or "none")
