"""How many n-grams of a text stand in its references, counted for many texts against one table.

An n-gram has an integer: its place in the sorted table of its order. The table's keys are (place of its first
n-1 tokens) * V + (place of its last token), so an n-gram is looked up only where its prefix was found, and all
the texts of a group go through each numpy call together. Keys are exact: no hashing.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_TEXTS = 64  # at once: the counts take texts × distinct n-grams × 8 bytes


class ReferenceTable:
    """N-grams of orders 1 to `order` of tokenised references, each with its largest count in one reference.

    lengths: tokens of each reference. At least one reference must have a token."""

    def __init__(self, references: Sequence[Sequence[str]], order: int) -> None:
        self.order = order
        self.lengths = [len(reference) for reference in references]
        words = dict.fromkeys(word for reference in references for word in reference)
        self._place = dict(zip(words, range(len(words)), strict=True))
        self._unknown = len(words)
        self._levels: list[tuple[_Ints, _Ints]] = []  # of each order: sorted keys, counts
        self._build(references)

    def _build(self, references: Sequence[Sequence[str]]) -> None:
        tokens, owner = self._numbered(references)
        at = np.flatnonzero(tokens != self._unknown)
        keys = places = tokens[at]
        for n in range(self.order):
            if n:
                following = tokens[at + n]
                inside = following != self._unknown  # else the n-gram would run over its reference's end
                at = at[inside]
                keys = places[inside] * (self._unknown + 1) + following[inside]
            table, places = _unique(keys)
            counts = _counted(places, owner[at], len(table), len(references)).max(axis=0)
            self._levels.append((table, counts))

    def matches(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """For each tokenised text its matched n-grams of orders 1 … `order`, clipped by the references' counts."""
        found: list[list[int]] = []
        for start in range(0, len(texts), _TEXTS):
            found += self._matches(texts[start : start + _TEXTS])
        return found

    def _matches(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        tokens, owner = self._numbered(texts)
        at = np.flatnonzero(tokens != self._unknown)
        places = tokens[at]
        matched = np.zeros((self.order, len(texts)), np.int64)
        for n, (table, counts) in enumerate(self._levels):
            if n:
                keys = places * (self._unknown + 1) + tokens[at + n]  # no key of the table has an unknown token
                near = np.searchsorted(table, keys)
                near[near == len(table)] = 0
                hits = np.flatnonzero(table[near] == keys) if len(table) else near[:0]
                at, places = at[hits], near[hits]
            if not len(places):
                break
            matched[n] = np.minimum(_counted(places, owner[at], len(table), len(texts)), counts).sum(axis=1)
        return matched.T.tolist()

    def _numbered(self, texts: Sequence[Sequence[str]]) -> tuple[_Ints, _Ints]:
        """Places of all tokens, the texts one after the other and an unknown token behind each; whose each is."""
        flat: list[str] = []
        for text in texts:
            flat += text
            flat.append("")
        tokens = np.fromiter(map(self._place.get, flat, repeat(self._unknown)), np.int64, len(flat))
        return tokens, np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])


def _unique(keys: _Ints) -> tuple[_Ints, _Ints]:
    """Sorted distinct keys, and each key's place among them (what np.unique gives, at a third of its time)."""
    by_key = np.argsort(keys)
    ordered = keys[by_key]
    new = np.ones(len(keys), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    places = np.empty(len(keys), np.int64)
    places[by_key] = np.cumsum(new) - 1
    return ordered[new], places


def _counted(places: _Ints, owner: _Ints, size: int, owners: int) -> NDArray[Any]:
    """Counts of each place for each owner, shape (owners, size)."""
    if owners == 1:
        return np.bincount(places, minlength=size)[None]
    return np.bincount(owner * size + places, minlength=owners * size).reshape(owners, size)
