"""How alike texts are: normalised forms, word n-grams, exact Jaccard similarity, and who could be alike at all.

Near duplicates are found by MinHash with banding (Broder 1997; Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, section 3.4) and confirmed by the exact Jaccard similarity of the texts' shingles: every
pair is right, and one at the threshold is missed with a probability of at most MISSED.
"""

from __future__ import annotations

import hashlib
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from data_prep.step import Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HASHES = 128
MERSENNE = (1 << 31) - 1  # a prime above every 31-bit hash: products fit into 64 bits
BLOCK = 4096  # shingles at once, so that a text of a megabyte takes little memory
MISSED = 0.02  # largest tolerated probability of missing a pair at the threshold


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


def text_hash(row: Row, fields: Sequence[str]) -> bytes:
    """Sixteen bytes that rows with equal normalised texts share."""
    return hashlib.sha256(normalised(row, fields).encode("utf-8", "surrogatepass")).digest()[:16]


def as_numbers(hashes: bytes | bytearray) -> NDArray[np.uint64]:
    """Hashes of texts, end to end, as two numbers each: [n, 2]."""
    import numpy as np

    return np.frombuffer(hashes, dtype=">u8").astype(np.uint64).reshape(-1, 2)


def first_equal(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """For each of n hashes, [n, 2], the place of the first that equals it, its own where there is no earlier one."""
    import numpy as np

    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: of equal ones the first stands first
    ordered = hashes[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(new)
    first = np.empty(len(hashes), dtype=np.int64)
    first[order] = order[np.repeat(starts, np.diff(np.append(starts, len(hashes))))]
    return first


def shingles(text: str, ngram: int) -> frozenset[int]:
    """Hashes of a text's word n-grams, of its character n-grams when it has fewer words than that."""
    words = text.split()
    parts: Sequence[str]
    if len(words) >= ngram:
        parts = [" ".join(words[at : at + ngram]) for at in range(len(words) - ngram + 1)]
    else:
        parts = [text[at : at + ngram] for at in range(max(1, len(text) - ngram + 1))]
    return frozenset(zlib.crc32(part.encode("utf-8", "surrogatepass")) & MERSENNE for part in parts)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Size of the intersection over size of the union, 0 to 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def near_duplicates(texts: Sequence[str], threshold: float, ngram: int) -> Iterator[tuple[int, int, float]]:
    """(later, earlier, Jaccard similarity) of each text that is at least `threshold` like an earlier one.

    Texts so found are compared with no further: what they resemble has already been kept. Of a text only its bands
    are held, about 100 bytes; those that share one are looked up again.
    """
    import numpy as np

    bands = np.empty((len(texts), HASHES // band_rows(threshold)), dtype=np.uint64)
    for index, hashes in enumerate(band_hashes((shingles(text, ngram) for text in texts), threshold)):
        bands[index] = hashes
    shared = np.zeros(bands.shape, dtype=bool)
    for at in range(bands.shape[1]):
        _, value, count = np.unique(bands[:, at], return_inverse=True, return_counts=True)
        shared[:, at] = count[value] > 1
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for later in np.flatnonzero(shared.any(axis=1)).tolist():
        mine = [(int(at), int(bands[later, at])) for at in np.flatnonzero(shared[later])]
        candidates = sorted({earlier for band in mine for earlier in buckets[band]})
        own = shingles(texts[later], ngram) if candidates else frozenset()
        likes = ((one, jaccard(own, shingles(texts[one], ngram))) for one in candidates)
        match = next(((one, like) for one, like in likes if like >= threshold), None)
        if match:
            yield later, *match
            continue
        for band in mine:
            buckets[band].append(later)


def band_rows(threshold: float) -> int:
    """The most rows per band (fewest idle candidates) that miss a pair at the threshold rarely enough.

    A pair of similarity s meets in one of b bands of r rows with probability 1 - (1 - s^r)^b.
    """
    fitting = [r for r in range(1, HASHES + 1) if (1 - threshold**r) ** (HASHES // r) <= MISSED]
    return max(fitting, default=1)


def band_hashes(sets: Iterable[frozenset[int]], threshold: float) -> Iterator[NDArray[np.uint64]]:
    """For each set a number per band: sets at least `threshold` alike share one of them, with few exceptions."""
    import numpy as np

    rows = band_rows(threshold)
    count = HASHES // rows
    mix = np.random.Generator(np.random.PCG64(20240612)).integers(1, 1 << 63, rows, dtype=np.uint64) * 2 + 1
    for signature in signatures(sets):
        yield (signature[: count * rows].reshape(count, rows) * mix).sum(axis=1, dtype=np.uint64)


def signatures(sets: Iterable[frozenset[int]]) -> Iterator[NDArray[np.uint64]]:
    """MinHash signatures, HASHES numbers each; fixed multipliers make them the same everywhere."""
    import numpy as np

    rng = np.random.Generator(np.random.PCG64(20240611))
    a = rng.integers(1, MERSENNE, (HASHES, 1), dtype=np.int64).astype(np.uint64)
    b = rng.integers(0, MERSENNE, (HASHES, 1), dtype=np.int64).astype(np.uint64)
    prime = np.uint64(MERSENNE)
    for one in sets:
        hashes = np.fromiter(one, dtype=np.uint64, count=len(one))
        signature = np.full(HASHES, prime, dtype=np.uint64)
        for at in range(0, len(hashes), BLOCK):
            values = a * hashes[at : at + BLOCK] + b
            values -= values // prime * prime  # the remainder, of which numpy's own takes twice as long
            np.minimum(signature, values.min(axis=1), out=signature)
        yield signature
