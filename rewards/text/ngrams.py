"""Counts the n-grams of texts that occur in their references, for many texts against one table.

An n-gram is an integer: its index in the sorted table of its order. The table's keys are (index of the first n-1
tokens) * V + (index of the last token), so that an n-gram is looked up only if its prefix matched, and each numpy
call processes all texts of a group. Keys are exact: no hashing.

If references are compared with only one text, as when a pool of prompts is scored, building their table costs more than
it saves. For the first single text the table is built from the text's n-grams, and the references are looked up.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_Level = tuple[_Ints, _Ints]  # of one order: sorted keys followed by _NO_KEY, and each key's largest count in one text
_NO_KEY = np.iinfo(np.int64).max  # sentinel after the last key, so that searches stay inside the table
_TEXTS = 64  # texts per batch: counts take texts × distinct n-grams × 8 bytes


class ReferenceTable:
    """N-grams of orders 1 to `order` of tokenised references, each with its largest count in one reference.

    lengths: tokens of each reference. At least one reference must have a token."""

    def __init__(self, references: Sequence[Sequence[str]], order: int) -> None:
        self.order = order
        self.lengths = [len(reference) for reference in references]
        self._references, self._seen = references, False
        self._table: tuple[dict[str, int], list[_Level]] | None = None  # two threads may build equal ones

    def matches(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """Per tokenised text: matched n-grams of orders 1 … `order`, clipped by the references' counts."""
        if len(texts) == 1 and not self._seen:
            self._seen = True
            places = _numbered(set(texts[0]).intersection(chain.from_iterable(self._references)))
            levels, others = _levels(_Tokens(texts, places), self.order), _Tokens(self._references, places)
            return [[int(np.minimum(counts.max(axis=0), limits).sum()) for counts, limits in _lookups(levels, others)]]
        if self._table is None:
            places = _numbered(dict.fromkeys(chain.from_iterable(self._references)))
            self._table = places, list(_levels(_Tokens(self._references, places), self.order))
        places, table = self._table
        matched: list[list[int]] = []
        for start in range(0, len(texts), _TEXTS):
            lookups = _lookups(table, _Tokens(texts[start : start + _TEXTS], places))
            orders = [np.minimum(counts, limits).sum(axis=1).tolist() for counts, limits in lookups]
            matched += map(list, zip(*orders, strict=True))
        return matched


class _Tokens:
    """Concatenated texts as token ids, with an unknown token after each text."""

    def __init__(self, texts: Sequence[Sequence[str]], places: dict[str, int]) -> None:
        flat: list[str] = []
        for text in texts:
            flat += text
            flat.append("")
        self.unknown, self.texts = len(places), len(texts)
        self.ids = np.fromiter(map(places.get, flat, repeat(self.unknown)), np.int64, len(flat))
        self.at = (self.ids != self.unknown).nonzero()[0]
        self._owners = np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts]) if len(texts) > 1 else None

    def counted(self, at: _Ints, ngrams: _Ints, size: int) -> NDArray[Any]:
        """Counts per text of the n-grams that start at `at`, shape (texts, size)."""
        if self._owners is None:
            return np.bincount(ngrams, minlength=size)[None]
        keys = self._owners[at] * size + ngrams
        return np.bincount(keys, minlength=self.texts * size).reshape(self.texts, size)


def _numbered(words: Iterable[str]) -> dict[str, int]:
    return {word: place for place, word in enumerate(words)}


def _levels(texts: _Tokens, order: int) -> Iterator[_Level]:
    """The tables of orders 1 to `order`, built lazily."""
    at, table, ngrams = texts.at, np.arange(texts.unknown), texts.ids[texts.at]
    for n in range(order):
        if n:
            following = texts.ids[at + n]
            inside = (following != texts.unknown).nonzero()[0]  # n-grams within one text
            at = at[inside]
            table, ngrams = _unique(ngrams[inside] * (texts.unknown + 1) + following[inside])
        yield np.append(table, _NO_KEY), texts.counted(at, ngrams, len(table)).max(axis=0)


def _lookups(levels: Iterable[_Level], texts: _Tokens) -> Iterator[tuple[NDArray[Any], _Ints]]:
    """Per order: counts of the table's n-grams in each text, shape (texts, size), and the table's counts."""
    at, ngrams = texts.at, texts.ids[texts.at]
    for n, (table, counts) in enumerate(levels):
        if n:
            keys = ngrams * (texts.unknown + 1) + texts.ids[at + n]  # no table key contains an unknown token
            places = table.searchsorted(keys)
            hits = (table[places] == keys).nonzero()[0]
            at, ngrams = at[hits], places[hits]
        yield texts.counted(at, ngrams, len(counts)), counts


def _unique(keys: _Ints) -> tuple[_Ints, _Ints]:
    """Sorted distinct keys, and each key's index among them (like np.unique, in a third of the time)."""
    by_key = keys.argsort()
    ordered = keys[by_key]
    new = np.ones(len(keys), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    places = np.empty(len(keys), np.int64)
    places[by_key] = new.cumsum() - 1
    return ordered[new], places
