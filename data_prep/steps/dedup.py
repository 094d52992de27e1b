"""Drops rows that repeat an earlier row: exactly once normalised, or nearly, by their word n-grams.

- dedup: {fields: [prompt]}
- dedup: {fields: [prompt, completion], near: 0.8}

Near duplicates: `data_prep.text.near_duplicates`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, overload

from pydantic import Field

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.text.near_duplicates import near_duplicates
from data_prep.text.normalise import as_numbers, first_equal, normalised, text_hash, text_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Field_ = Literal["prompt", "completion", "answer"]


class DedupParams(Params):
    """`near` is a Jaccard similarity above 0; without it only equal texts count."""

    fields: tuple[Field_, ...] = Field(("prompt",), min_length=1)
    near: float | None = Field(None, gt=0, le=1)
    ngram: int = Field(5, ge=1)  # words per shingle; texts of fewer words are cut into characters


class Texts(Sequence[str]):
    """The texts of some rows, made when they are asked for."""

    def __init__(self, rows: Sequence[Row], fields: Sequence[str], places: NDArray[np.int64]) -> None:
        self._rows, self._fields, self._places = rows, fields, places

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[one] for one in range(*at.indices(len(self)))]
        return normalised(self._rows[int(self._places[at])], self._fields)

    def __iter__(self) -> Iterator[str]:
        wanted = iter(self._places)
        place = next(wanted, None)
        for index, row in enumerate(self._rows):
            if index == place:
                yield normalised(row, self._fields)
                place = next(wanted, None)


class Dedup(Step):
    """Keeps the first of each group; a drop names the row it repeats."""

    kind = "dedup"
    scope = "whole"
    passes = True
    Params = DedupParams
    params: DedupParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """The first row of each text; with `near`, also only the first of texts alike."""
        import numpy as np

        hashes = bytearray()
        for row in rows:
            hashes += text_hash(row, self.params.fields)
        earlier = first_equal(as_numbers(hashes))
        fresh = np.flatnonzero(earlier == np.arange(len(rows)))
        alike: dict[int, float] = {}
        if self.params.near is not None:
            texts = Texts(rows, self.params.fields, fresh)
            for later, like, similarity in near_duplicates(texts, self.params.near, self.params.ngram):
                alike[int(fresh[later])] = similarity
                earlier[fresh[later]] = fresh[like]
        for index, row in enumerate(rows):
            first = int(earlier[index])
            if first == index:
                yield row
            elif index in alike:
                yield _repeat("near duplicate", row, rows[first], f" ({alike[index]:.2f})")
            else:
                yield _repeat("duplicate", row, rows[first], "")


def _repeat(reason: str, row: Row, earlier: Row, how: str) -> Drop:
    detail = f"repeats {earlier['id']}{how}: {text_of(row, ('prompt',))[:80]!r}"
    return Drop(reason, str(row["id"]), detail)
