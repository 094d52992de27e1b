"""Hashes of word n-grams, of many texts at once."""

import zlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray


class NgramHasher:
    """Keeps the hashes of words, for the next texts use most of them again."""

    def __init__(self) -> None:
        self._codes = _WordCodes()

    def __call__(self, texts: Sequence[Sequence[str]], size: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """(index of the text, hash) of each n-gram of each text, in order."""
        owner = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
        codes = np.fromiter(map(self._codes.__getitem__, chain.from_iterable(texts)), np.uint64, len(owner))
        factors = np.random.Generator(np.random.PCG64(20240613)).integers(1, 1 << 63, size, dtype=np.uint64) * 2 + 1
        count = max(0, len(codes) - size + 1)
        hashes = np.zeros(count, dtype=np.uint64)
        for at in range(size):
            hashes += codes[at : at + count] * factors[at]
        within = owner[:count] == owner[size - 1 :][:count]  # of one text, from its first word to its last
        return owner[:count][within], hashes[within]


def distinct(owner: NDArray[np.int64], hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The hashes of each text, equal ones once, in the order of texts and hashes."""
    order = np.lexsort((hashes, owner))
    owner, hashes = owner[order], hashes[order]
    new = np.ones(len(hashes), dtype=bool)
    new[1:] = (owner[1:] != owner[:-1]) | (hashes[1:] != hashes[:-1])
    return owner[new], hashes[new]


class _WordCodes(dict[str, int]):
    capacity, longest = 200_000, 40  # words, and characters of each, that are kept

    def __missing__(self, word: str) -> int:
        code = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        if len(word) <= self.longest and len(self) < self.capacity:
            self[word] = code
        return code
