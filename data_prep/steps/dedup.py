"""Drops rows that say what an earlier row says: exactly (after normalising), or nearly (word n-grams).

- dedup: {fields: [prompt]}
- dedup: {fields: [prompt, completion], near: 0.8}

Near duplicates are found by MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, section 3.4) and confirmed by the exact Jaccard similarity of the texts' shingles: every
drop is right, and a pair at the threshold is missed with a probability of at most MISSED.
"""

from __future__ import annotations

import hashlib
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from data_prep.step import Context, Drop, Output, Params, Row, Step

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HASHES = 128
MERSENNE = (1 << 31) - 1  # a prime above every 31-bit hash: products fit into 64 bits
BLOCK = 4096  # shingles at once, so that a text of a megabyte takes little memory
MISSED = 0.02  # largest tolerated probability of missing a pair at the threshold

Field_ = Literal["prompt", "completion", "answer"]


class DedupParams(Params):
    """`near` is a Jaccard similarity above 0; without it only equal texts count."""

    fields: tuple[Field_, ...] = Field(("prompt",), min_length=1)
    near: float | None = Field(None, gt=0, le=1)
    ngram: int = Field(5, ge=1)  # words per shingle; texts of fewer words are cut into characters


class Dedup(Step):
    """Keeps the first of each group; a drop names the row it repeats."""

    kind = "dedup"
    scope = "whole"
    Params = DedupParams
    params: DedupParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """The first row of each text; with `near`, also only the first of texts alike."""
        texts = [normalised(row, self.params.fields) for row in rows]
        first: dict[bytes, int] = {}
        fresh: list[int] = []
        repeats: dict[int, Drop] = {}
        for index, text in enumerate(texts):
            earlier = first.setdefault(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest(), index)
            if earlier == index:
                fresh.append(index)
            else:
                repeats[index] = _repeat("duplicate", rows, index, earlier, "")
        if self.params.near is not None:
            pairs = near_duplicates([texts[index] for index in fresh], self.params.near, self.params.ngram)
            for later, earlier, similarity in pairs:
                index = fresh[later]
                repeats[index] = _repeat("near duplicate", rows, index, fresh[earlier], f" ({similarity:.2f})")
        for index, row in enumerate(rows):
            yield repeats.get(index, row)


def _repeat(reason: str, rows: Sequence[Row], index: int, earlier: int, how: str) -> Drop:
    detail = f"repeats {rows[earlier]['id']}{how}: {said(rows[index], ('prompt',))[:80]!r}"
    return Drop(reason, str(rows[index]["id"]), detail)


def said(row: Row, fields: Sequence[str]) -> str:
    """The text of some fields; of a prompt, what others than the system say."""
    parts: list[str] = []
    for field in fields:
        value: Any = row.get(field, "")
        if field == "prompt":
            value = "\n".join(message["content"] for message in value if message["role"] != "system")
        parts.append(value)
    return "\n".join(parts)


def normalised(row: Row, fields: Sequence[str]) -> str:
    """Text to compare: compatibility forms united, case and spacing gone."""
    return " ".join(unicodedata.normalize("NFKC", said(row, fields)).casefold().split())


def shingles(text: str, ngram: int) -> frozenset[int]:
    """Hashes of a text's word n-grams, of its character n-grams when it has fewer words than that."""
    words = text.split()
    parts: Sequence[str]
    if len(words) >= ngram:
        parts = [" ".join(words[at : at + ngram]) for at in range(len(words) - ngram + 1)]
    else:
        parts = [text[at : at + ngram] for at in range(max(1, len(text) - ngram + 1))]
    return frozenset(zlib.crc32(part.encode("utf-8", "surrogatepass")) & MERSENNE for part in parts)


def near_duplicates(texts: Sequence[str], threshold: float, ngram: int) -> list[tuple[int, int, float]]:
    """(later, earlier, Jaccard similarity) of each text that is at least `threshold` like an earlier one.

    Texts so found are compared with no further: what they resemble has already been kept.
    """
    sets = [shingles(text, ngram) for text in texts]
    rows_per_band = band_rows(threshold)
    buckets: dict[bytes, list[int]] = defaultdict(list)
    found: list[tuple[int, int, float]] = []
    for later, signature in enumerate(signatures(sets)):
        bands = [
            at.to_bytes(2, "big") + signature[at : at + rows_per_band].tobytes()
            for at in range(0, HASHES - rows_per_band + 1, rows_per_band)
        ]
        candidates = sorted({earlier for band in bands for earlier in buckets[band]})
        match = next(
            ((one, like) for one in candidates if (like := jaccard(sets[later], sets[one])) >= threshold),
            None,
        )
        if match:
            found.append((later, *match))
            continue
        for band in bands:
            buckets[band].append(later)
    return found


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Size of the intersection over size of the union, 0 to 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def band_rows(threshold: float) -> int:
    """The most rows per band (fewest idle candidates) that miss a pair at the threshold rarely enough.

    A pair of similarity s meets in one of b bands of r rows with probability 1 - (1 - s^r)^b.
    """
    fitting = [r for r in range(1, HASHES + 1) if (1 - threshold**r) ** (HASHES // r) <= MISSED]
    return max(fitting, default=1)


def signatures(sets: Sequence[frozenset[int]]) -> Iterator[NDArray[np.int64]]:
    """MinHash signatures, HASHES numbers each; fixed multipliers make them the same everywhere."""
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(20240611))
    a = rng.integers(1, MERSENNE, (HASHES, 1), dtype=np.int64)
    b = rng.integers(0, MERSENNE, (HASHES, 1), dtype=np.int64)
    for one in sets:
        hashes = np.fromiter(one, dtype=np.int64, count=len(one))
        signature = np.full(HASHES, MERSENNE, dtype=np.int64)
        for at in range(0, len(hashes), BLOCK):
            values = (a * hashes[at : at + BLOCK] + b) % MERSENNE
            np.minimum(signature, values.min(axis=1), out=signature)
        yield signature
