"""Mixes sources into one training set: a given number of rows each, no duplicate prompts, in seeded order.

- mix:
    inputs: [code, maths, still_2]
    parts:                                       # categories, by the rows' `source`
      code: {sources: [apps, taco], n: 5000}     # 5,000 of both together
      math: {sources: {numina_math: 6000, numina_amc_aime: 2000}}
      science: {sources: [still_2]}              # all rows
    seed: 1

A part with fewer rows than the share `least` of its count is an error. A row's meta records its `category` and
`provenance` (source and original id); its new id starts with the source. The manifest counts rows by both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError, nearest
from data_prep.steps.select import number_of
from data_prep.text.normalise import first_equal, text_hash

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FIELDS: dict[str, tuple[str, ...]] = {"prompt": ("prompt",), "text": ("prompt", "completion"), "nothing": ()}


class Part(Params):
    """One category. sources: names, from which `n` rows are sampled together, or a count for each name."""

    sources: Annotated[tuple[str, ...], Field(min_length=1)] | Annotated[dict[str, PositiveInt], Field(min_length=1)]
    n: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _counted_once(self) -> Self:
        if isinstance(self.sources, dict) and self.n is not None:
            raise ValueError("give n for all sources together, or a count for each source, not both")
        return self


class MixParams(Params):
    """distinct: fields in which rows must differ. least: minimum share of its count that a part must reach."""

    parts: dict[str, Part] = Field(min_length=1)
    distinct: Literal["prompt", "text", "nothing"] = "prompt"
    least: float = Field(0.9, ge=0, le=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _each_source_once(self) -> Self:
        seen: dict[str, str] = {}
        for category, part in self.parts.items():
            for source in part.sources:
                if source in seen:
                    raise ValueError(f"source {source!r} is in parts {seen[source]!r} and {category!r}; keep it in one")
                seen[source] = category
        return self

    @property
    def shares(self) -> list[tuple[str, tuple[str, ...], int | None]]:
        """(category, sources sampled together, their number of rows or None for all), in order."""
        shares: list[tuple[str, tuple[str, ...], int | None]] = []
        for category, part in self.parts.items():
            if isinstance(part.sources, dict):
                shares += [(category, (source,), count) for source, count in part.sources.items()]
            else:
                shares.append((category, part.sources, part.n))
        return shares


class Mix(Step[MixParams]):
    """Mixes rows of several sources; each row not used is a drop with a reason."""

    kind = "mix"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "source")
    allows_repeated_ids: ClassVar[bool] = True

    def tally(self, row: Row) -> str:
        """Category and source."""
        return f"{row['meta']['category']}: {row['source']}"

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Drops in input order, then the shuffled mixture. Raises DataError for a part with too few rows."""
        import numpy as np

        share, rank, hashes = self._facts(rows)
        order = np.lexsort((rank, share))
        order = order[share[order] >= 0]
        earlier = np.arange(len(rows))
        if self.params.distinct != "nothing":
            ordered = np.frombuffer(hashes, dtype="S16")[order]
            earlier[order] = order[first_equal(ordered.tobytes())]
        kept = self._drawn(order[earlier[order] == order], share)
        left_out = np.ones(len(rows), dtype=bool)
        left_out[kept] = False
        for at, row in enumerate(rows):
            if share[at] < 0:
                yield Drop("source in no part", row["id"], row["source"])
            elif earlier[at] != at:
                yield Drop("duplicate", row["id"], f"repeats {_name(rows[int(earlier[at])])}")
            elif left_out[at]:
                yield Drop("not drawn", row["id"])
        categories = [category for category, _, _ in self.params.shares]
        for at in kept[np.argsort(rank[kept], kind="stable")].tolist():
            yield _labelled(rows[at], categories[share[at]])

    def _facts(self, rows: Sequence[Row]) -> tuple[NDArray[np.int64], NDArray[np.uint64], bytes]:
        """Per row: its share (-1: none), its shuffle rank, and a hash of its distinct fields."""
        import numpy as np

        places = {source_name: at for at, (_, sources, _) in enumerate(self.params.shares) for source_name in sources}
        share = np.full(len(rows), -1, dtype=np.int64)
        rank, hashes = np.zeros(len(rows), dtype=np.uint64), bytearray()
        seen: set[str] = set()
        for at, row in enumerate(rows):
            source = row["source"]
            seen.add(source)
            share[at] = places.get(source, -1)
            rank[at] = number_of(f"{self.params.seed}:{_name(row)}")
            if fields := FIELDS[self.params.distinct]:
                hashes += text_hash(row, fields)
        for source in places:
            if source not in seen:
                raise DataError(f"parts: no row has source {source!r}{nearest(source, seen)}")
        return share, rank, bytes(hashes)

    def _drawn(self, fresh: NDArray[np.int64], share: NDArray[np.int64]) -> NDArray[np.int64]:
        import numpy as np

        kept = []
        for at, (category, sources, count) in enumerate(self.params.shares):
            own = fresh[share[fresh] == at]
            if count is not None and len(own) < self.params.least * count:
                raise DataError(
                    f"part {category!r}: {', '.join(sources)} have {len(own):,} rows, but {count:,} are requested: "
                    f"add rows, request fewer, or lower least ({self.params.least:g})"
                )
            kept.append(own[:count])
        return np.concatenate(kept)


def _name(row: Row) -> str:
    return f"{row['source']}:{row['id']}"


def _labelled(row: Row, category: str) -> Row:
    meta = {**row.get("meta", {}), "category": category, "provenance": {"source": row["source"], "id": row["id"]}}
    if "prompt_id" in meta:
        meta["prompt_id"] = f"{row['source']}:{meta['prompt_id']}"
    return {**row, "id": _name(row), "meta": meta}
