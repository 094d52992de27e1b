"""Drops duplicates of earlier rows: equal after normalisation, or near duplicates by word n-grams.

- dedup: {fields: [prompt]}
- dedup: {fields: [prompt, completion], near: 0.8}

Near duplicates: `data_prep.text.near_duplicates`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from data_prep.core.step import Drop, Output, Params, Row, Spread, Step
from data_prep.text.normalise import first_equal, normalised, text_hash, text_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from data_prep.text.near_duplicates import Counts, Prefixes

Field_ = Literal["prompt", "completion", "answer"]


class DedupParams(Params):
    """near: Jaccard threshold above 0; without it only equal texts are duplicates."""

    fields: tuple[Field_, ...] = Field(("prompt",), min_length=1)
    near: float | None = Field(None, gt=0, le=1)
    ngram: int = Field(5, ge=1)  # words per shingle; shorter texts use characters


Repeat = tuple[str, float | None]  # id of the earlier row, and the similarity unless equal


class Dedup(Step[DedupParams]):
    """Keeps the first of each group of duplicates; a drop names that row."""

    kind = "dedup"
    scope = "split"
    passes = True

    def processes(self) -> None:
        """None: any number."""

    def hashes(self, rows: Sequence[Row], _: None) -> bytes:
        """Hashes of the rows' texts."""
        return b"".join(text_hash(row, self.params.fields) for row in rows)

    def buckets(self, rows: Sequence[Row], stride: int) -> NDArray[np.uint32]:
        """N-grams of every `stride`-th row."""
        from data_prep.text import near_duplicates  # here and below: not needed to parse a pipeline

        return near_duplicates.buckets(self._texts(rows[::stride]), self.params.ngram)

    def prefixes(self, rows: Sequence[Row], counted: Counts) -> Prefixes:
        """The rarest n-grams of the rows."""
        from data_prep.text import near_duplicates

        assert self.params.near is not None
        return near_duplicates.prefixes(self._texts(rows), counted, self.params.near, self.params.ngram)

    def _texts(self, rows: Iterable[Row]) -> Iterator[str]:
        return (normalised(row, self.params.fields) for row in rows)

    def decide(self, rows: Sequence[Row], spread: Spread) -> Iterator[Repeat | None]:
        """For each row its first equal or, with `near`, similar row; None if there is no earlier one."""
        import numpy as np

        from data_prep.text import near_duplicates

        earlier = first_equal(b"".join(spread("hashes", None)))
        similarities: dict[int, float] = {}
        if self.params.near is not None:
            fresh = np.flatnonzero(earlier == np.arange(len(rows)))
            counted = near_duplicates.common_buckets(spread("buckets", near_duplicates.stride(len(rows))))
            parts = near_duplicates.of_places(spread("prefixes", counted), fresh)

            def text(at: int) -> str:
                return normalised(rows[int(fresh[at])], self.params.fields)

            for later, like, similarity in near_duplicates.alike(text, parts, self.params.near, self.params.ngram):
                similarities[int(fresh[later])] = similarity
                earlier[fresh[later]] = fresh[like]
        for index, first in enumerate(earlier.tolist()):
            yield (rows[first]["id"], similarities.get(index)) if first != index else None

    def emit(self, rows: Sequence[Row], decisions: Sequence[Repeat | None]) -> Output:
        """The rows without an earlier duplicate, and drops."""
        for row, repeat in zip(rows, decisions, strict=True):
            yield row if repeat is None else _drop(row, repeat)


def _drop(row: Row, repeat: Repeat) -> Drop:
    name, similarity = repeat
    reason, how = ("duplicate", "") if similarity is None else ("near duplicate", f" ({similarity:.2f})")
    return Drop(reason, str(row["id"]), f"repeats {name}{how}: {text_of(row, ('prompt',))[:80]!r}")
