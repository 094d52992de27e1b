"""Texts whose word n-grams have a high Jaccard similarity, in time that is linear in their number.

Exact, by prefix filtering (Xiao et al., Efficient Similarity Joins for Near Duplicate Detection, WWW 2008): with all
n-grams in one order, the rarest first, two texts that are alike share n-grams among their first (1 - threshold), and
so many that those which have only a template in common are never compared. N-grams of a template are frequent and
stand last.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from data_prep.text.ngrams import NgramHasher, distinct
from data_prep.text.tokens import CJK

Counts = tuple[NDArray[np.uint32], NDArray[np.uint32]]
Prefixes = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]  # n-grams, those kept, and these

BLOCK = 500  # texts at once
SAMPLE = 10_000  # texts that tell which n-grams are frequent
BUCKETS = 1 << 20  # n-grams are counted by the last bits of their hashes
LISTED = 200  # texts at most that an n-gram leads to
COMPARED = 32  # earlier texts at most that one is compared with, those that share most first
_WORD = re.compile(rf"[{CJK}]|[^\s{CJK}]+")


def stride(count: int) -> int:
    """Of `count` texts, the distance between those in the sample."""
    return -(-count // SAMPLE) or 1


def buckets(texts: Iterable[str], ngram: int) -> NDArray[np.uint32]:
    """Last bits of the hashes of the n-grams of some texts, end to end; of each text without repeats."""
    last = [(own & np.uint64(BUCKETS - 1)).astype(np.uint32) for own in _all_shingles(iter(texts), ngram)]
    return np.concatenate([np.zeros(0, dtype=np.uint32), *last])


def common_buckets(parts: Iterable[NDArray[np.uint32]]) -> Counts:
    """Of the buckets of all parts of a sample, those that are there twice or more, and how often each is."""
    counts = np.zeros(BUCKETS, dtype=np.uint32)
    for part in parts:
        np.add.at(counts, part, 1)
    common = np.flatnonzero(counts > 1).astype(np.uint32)
    return common, counts[common]


def prefixes(texts: Iterable[str], counted: Counts, threshold: float, ngram: int) -> Prefixes:
    """The rarest n-grams of each text: so many that texts alike share some of them."""
    frequent = np.zeros(BUCKETS, dtype=np.uint32)
    frequent[counted[0]] = counted[1]
    sizes, own = [], []
    for every in _all_shingles(iter(texts), ngram):
        sizes.append(len(every))
        own.append(_prefix(every, frequent, threshold).astype(np.uint32))
    lengths = np.array([len(each) for each in own], dtype=np.uint32)
    return np.array(sizes, dtype=np.uint32), lengths, np.concatenate([np.zeros(0, dtype=np.uint32), *own])


def of_places(parts: Iterable[Prefixes], places: NDArray[np.int64]) -> Iterator[Prefixes]:
    """The prefixes of some of all texts; `places` are theirs among all, in order."""
    start = 0
    for sizes, lengths, flat in parts:
        own = places[(places >= start) & (places < start + len(sizes))] - start
        cut = np.split(flat, np.cumsum(lengths)[:-1])
        yield sizes[own], lengths[own], np.concatenate([flat[:0], *(cut[at] for at in own)])
        start += len(sizes)


def alike(
    text: Callable[[int], str], parts: Iterable[Prefixes], threshold: float, ngram: int
) -> Iterator[tuple[int, int, float]]:
    """(later, earlier, Jaccard similarity) of each text that is at least `threshold` like an earlier one.

    text: gives one by its place; parts: prefixes of all, in order. Texts so found are compared with no further: what
    they resemble has already been kept. A pair is missed only where more than LISTED kept texts share each of its rare
    n-grams, or COMPARED others share more of them.
    """
    hasher = NgramHasher()
    sizes, prefix_sizes, flat = (np.concatenate(column) for column in zip(*parts, strict=True))
    sizes, prefix_sizes = sizes.tolist(), prefix_sizes.tolist()
    repeated = _repeated(flat)
    listed: dict[int, list[int]] = defaultdict(list)
    start = 0
    for later, size in enumerate(prefix_sizes):
        own = flat[start : start + size]
        values = own[repeated[np.searchsorted(repeated, own)] == own].tolist()
        start += size
        common = Counter(earlier for value in values for earlier in listed[value])
        own_shingles: frozenset[int] | None = None
        for earlier, n in common.most_common(COMPARED):
            overlap = threshold / (1 + threshold) * (sizes[later] + sizes[earlier])  # that a pair alike has
            rest = max(sizes[k] - prefix_sizes[k] for k in (later, earlier))
            if n + rest < overlap - 1e-6:
                continue
            own_shingles = shingles(text(later), ngram, hasher) if own_shingles is None else own_shingles
            similarity = jaccard(own_shingles, shingles(text(earlier), ngram, hasher))
            if similarity >= threshold:
                yield later, earlier, similarity
                break
        else:
            for value in values:
                if len(listed[value]) < LISTED:
                    listed[value].append(later)


def jaccard(a: frozenset[int], b: frozenset[int]) -> float:
    """Size of the intersection over size of the union, 0 to 1."""
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


def shingles(text: str, ngram: int, hasher: NgramHasher | None = None) -> frozenset[int]:
    """Hashes of a text's word n-grams, of its character n-grams where it has fewer words than that."""
    return frozenset((hasher or NgramHasher())([_parts(text, ngram)], ngram)[1].tolist())


def _parts(text: str, ngram: int) -> Sequence[str]:
    words = text.split() if text.isascii() else _WORD.findall(text)
    return words if len(words) >= ngram else text.ljust(ngram)


def _all_shingles(texts: Iterator[str], ngram: int) -> Iterator[NDArray[np.uint64]]:
    """The distinct hashes of each text, in order."""
    hasher = NgramHasher()
    while block := list(islice(texts, BLOCK)):
        owner, values = distinct(*hasher([_parts(text, ngram) for text in block], ngram))
        yield from np.split(values, np.searchsorted(owner, np.arange(1, len(block))))


def _repeated(hashes: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Those that stand there twice or more, in order, and after them one greater than all."""
    values, counts = np.unique(hashes, return_counts=True)
    return np.append(values[counts > 1], np.uint32(np.iinfo(np.uint32).max))


def _prefix(own: NDArray[np.uint64], frequent: NDArray[np.uint32], threshold: float) -> NDArray[np.uint64]:
    """The rarest of a text's n-grams: so many that what is alike shares some of them."""
    size = len(own) - math.ceil(threshold * len(own) - 1e-9) + 1
    order = np.lexsort((own, frequent[own & np.uint64(len(frequent) - 1)]))
    return own[order[:size]]
