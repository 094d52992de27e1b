"""Preference pairs of a question's samples: `completion` scores higher than `rejected`.

- pairs: {per_prompt: 1, margin: 0.5, min_samples: 4}       a reward model's scores, whatever their range is
- pairs: {min_preferred: 1.0, max_dispreferred: 0.6, per_prompt: 4, length_gap: 0.05, column: code}

Of a question's pairs the widest come first, and samples that stand in none yet. With `length_gap` the mean length of
the chosen completions and that of the rejected ones differ by at most that share of the mean of all (a model can lower
DPO's loss by length alone): each question then gives the pairs that balance those before it best, and what still leans
too far is left out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Row
from data_prep.steps import candidates
from data_prep.steps.candidates import Builder, BuilderParams, Candidate


class PairsParams(BuilderParams):
    """margin: least difference of the scores, which are never equal; length_gap: a share of the mean length."""

    margin: float = Field(0.0, ge=0)
    min_preferred: float | None = None
    max_dispreferred: float | None = None
    per_prompt: int = Field(1, ge=1)
    length_gap: float | None = Field(None, gt=0)


@dataclass(frozen=True, eq=False)
class Pair:
    """Two samples of one question."""

    chosen: Candidate
    rejected: Candidate

    @property
    def margin(self) -> float:
        return round(self.chosen.score - self.rejected.score, 9)

    @property
    def gap(self) -> int:
        """Characters by which the chosen text is longer."""
        return len(self.chosen.text) - len(self.rejected.text)


@dataclass(frozen=True, eq=False)
class Lengths:
    """What balancing needs to know of a pair, of which there may be millions."""

    places: tuple[int, int]  # of the rows
    gap: int
    size: int

    @classmethod
    def of(cls, pair: Pair) -> Lengths:
        size = len(pair.chosen.text) + len(pair.rejected.text)
        return cls((pair.chosen.place, pair.rejected.place), pair.gap, size)


class Pairs(Builder):
    """All samples in, pairs out; questions that give none are counted as drops."""

    kind = "pairs"
    Params = PairsParams
    params: PairsParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in the order of their questions' ids, whatever order the samples come in."""
        made: list[Lengths] = []
        lean = 0
        for name, samples, drops in candidates.grouped(rows, self.params):
            yield from drops
            kept, repeats = candidates.distinct(samples, self.params.identity)
            yield from repeats
            if len({item.score for item in kept}) < 2:
                yield Drop("question without spread", name, _scores(kept))
                continue
            fitting = [pair for pair in _pairs(kept) if self._fits(pair)]
            if not fitting:
                yield Drop("question without a pair within bounds", name, _scores(kept))
            for pair in self._chosen(fitting, lean):
                lean += pair.gap
                if self.params.length_gap is None:
                    yield candidates.pair(pair.chosen, pair.rejected, margin=pair.margin)
                else:
                    made.append(Lengths.of(pair))
        left_out = unbalanced(made, self.params.length_gap) if self.params.length_gap is not None else set()
        for item in made:
            pair = Pair(*(self._again(rows, place) for place in item.places))
            row = candidates.pair(pair.chosen, pair.rejected, margin=pair.margin)
            yield Drop("length imbalance", str(row["id"]), f"{item.gap:+,} characters") if item in left_out else row

    def _again(self, rows: Sequence[Row], place: int) -> Candidate:
        """A sample that was usable before."""
        made = candidates.candidate(rows, place, self.params)
        assert isinstance(made, Candidate)
        return made

    def _fits(self, pair: Pair) -> bool:
        given = self.params
        return (
            pair.margin > 0
            and pair.margin >= given.margin
            and (given.min_preferred is None or pair.chosen.score >= given.min_preferred)
            and (given.max_dispreferred is None or pair.rejected.score <= given.max_dispreferred)
        )

    def _chosen(self, fitting: Sequence[Pair], lean: int) -> Iterator[Pair]:
        """At most per_prompt pairs; `lean`: characters by which chosen texts have been longer so far."""
        left, used = list(fitting), Counter[Candidate]()
        for _ in range(min(self.params.per_prompt, len(left))):

            def rank(pair: Pair, lean: int = lean) -> tuple[Any, ...]:
                again = used[pair.chosen] + used[pair.rejected]
                wide = (-pair.margin, -pair.chosen.score, pair.chosen.order, pair.rejected.order)
                return (again, 0 if self.params.length_gap is None else abs(lean + pair.gap), *wide)

            best = min(left, key=rank)
            left.remove(best)
            used.update((best.chosen, best.rejected))
            lean += best.gap
            yield best


def _pairs(samples: Sequence[Candidate]) -> Iterator[Pair]:
    return (Pair(a, b) for a in samples for b in samples if a.score > b.score)


def _scores(samples: Sequence[Candidate]) -> str:
    counts = Counter(f"{sample.score:g}" for sample in samples)
    return "scores " + (", ".join(f"{score} × {count}" for score, count in sorted(counts.items())) or "none")


def unbalanced(made: Sequence[Lengths], bound: float) -> set[Lengths]:
    """Pairs to leave out so that the mean difference of lengths is within `bound` of the mean length.

    Each time the pair whose going leaves the smallest difference; of equal ones the last.
    """
    left = sorted(made, key=lambda pair: pair.gap)
    lean, size, gone = sum(pair.gap for pair in left), sum(pair.size for pair in left), set()
    while left and abs(lean) > bound * size / 2:
        at = bisect_left(left, lean, key=lambda pair: pair.gap)
        near = [i for i in (at - 1, at) if 0 <= i < len(left)]
        pair = left.pop(min(near, key=lambda i: (abs(lean - left[i].gap), -i)))
        lean, size = lean - pair.gap, size - pair.size
        gone.add(pair)
    return gone
