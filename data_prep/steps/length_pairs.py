"""Preference pairs for shorter answers, from a question's scored samples, as for Sky-T1-Flash.

- length_pairs: {}                                                  all pairs of both kinds
- length_pairs: {n: {shorter: 8500, not_too_short: 1000}, seed: 1}

shorter: the shortest right sample is preferred to the longest right one (if their lengths differ).
not_too_short: the shortest wrong sample is rejected in favour of the shortest right one that is longer; without such
pairs a model learns to stop too early. Lengths are tokens if all of a question's samples have `meta.tokens`,
else characters. After NovaSky, "Think Less, Achieve More" (January 2025).
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from pydantic import Field, PositiveInt

from data_prep.core.step import Context, Drop, Output, Row
from data_prep.steps import candidates
from data_prep.steps.candidates import Builder, BuilderParams, Candidate
from data_prep.steps.select import number_of

Kind = Literal["shorter", "not_too_short"]


class LengthPairsParams(BuilderParams):
    """n: maximum number of pairs per kind, sampled with the seed. ratio: minimum length ratio."""

    n: dict[Kind, PositiveInt] = Field(default_factory=dict)
    ratio: float = Field(1.0, ge=1)  # for `shorter`; equal lengths never form a pair
    pass_score: float = 1.0
    seed: int = Field(0, ge=0)


class LengthPairs(Builder[LengthPairsParams]):
    """Builds pairs from scored samples; questions without a pair are counted as drops."""

    kind = "length_pairs"

    def tally(self, row: Row) -> str:
        return str(row["meta"]["pair"]).replace("_", " ")

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows ordered by question id, independent of the input order."""
        drawn = self._drawn(rows) if self.params.n else None
        for name, samples, drops in candidates.grouped(rows, self.params):
            yield from drops
            pairs = list(self._pairs(samples))
            for row in pairs:
                yield row if drawn is None or row["id"] in drawn else Drop("not drawn", row["id"])
            if not pairs:
                right = sum(sample.score >= self.params.pass_score for sample in samples)
                yield Drop("question without a pair", name, f"{right} of {len(samples)} samples are right")

    def _pairs(self, samples: Sequence[Candidate]) -> Iterator[Row]:
        length = _length(samples)
        ordered = sorted(samples, key=lambda sample: (length(sample), sample.order))
        right = [sample for sample in ordered if sample.score >= self.params.pass_score]
        wrong = [sample for sample in ordered if sample.score < self.params.pass_score]
        if right:
            short, long = right[0], right[-1]
            if length(long) > length(short) and length(long) >= self.params.ratio * length(short):
                yield _row("shorter", short, long, length)
        if wrong:
            longer = next((sample for sample in right if length(sample) > length(wrong[0])), None)
            if longer:
                yield _row("not_too_short", longer, wrong[0], length)

    def _drawn(self, rows: Sequence[Row]) -> set[str]:
        """The ids of at most n sampled pairs per kind."""
        ranked: dict[Kind, list[tuple[int, str]]] = defaultdict(list)
        for _, samples, _ in candidates.grouped(rows, self.params):
            for row in self._pairs(samples):
                ranked[row["meta"]["pair"]].append((number_of(f"{self.params.seed}:{row['id']}"), row["id"]))
        return {name for kind, pairs in ranked.items() for _, name in sorted(pairs)[: self.params.n.get(kind)]}


def _length(samples: Sequence[Candidate]) -> Callable[[Candidate], int]:
    tokens = [sample.row["meta"].get("tokens") for sample in samples]
    if all(isinstance(count, int) for count in tokens):
        return lambda sample: int(sample.row["meta"]["tokens"])
    return lambda sample: len(sample.text)


def _row(kind: Kind, chosen: Candidate, rejected: Candidate, length: Callable[[Candidate], int]) -> Row:
    lengths = {"chosen_length": length(chosen), "rejected_length": length(rejected)}
    return candidates.pair(chosen, rejected, pair=kind, **lengths)
