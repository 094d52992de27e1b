"""How many n-grams of a text occur in its references, counted for many texts against one table.

An n-gram is an integer: its place in the sorted table of its order. The table's keys are (place of the first n-1
tokens) * V + (place of the last token), so that an n-gram is looked up only where its prefix matched, and all texts
of a group go through each numpy call together. Keys are exact: no hashing.

Where references are met with one text only, as in a pool of prompts, making their table costs more than it saves: the
first single text is compared with them directly (`_matched`), the table is made for the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

_Ints = NDArray[np.int64]
_NO_KEY = np.iinfo(np.int64).max  # after a table's last key, so that a search never ends outside
_TEXTS = 64  # at once: the counts take texts × distinct n-grams × 8 bytes


class ReferenceTable:
    """N-grams of orders 1 to `order` of tokenised references, each with its largest count in one reference.

    lengths: tokens of each reference. At least one reference must have a token."""

    def __init__(self, references: Sequence[Sequence[str]], order: int) -> None:
        self.order = order
        self.lengths = [len(reference) for reference in references]
        self._references, self._met = references, False
        self._levels: list[tuple[_Ints, _Ints]] = []  # of each order: sorted keys and _NO_KEY, counts

    def _make(self) -> None:
        """Two threads may both do this, to the same end."""
        references, levels = self._references, list[tuple[_Ints, _Ints]]()
        words = dict.fromkeys(chain.from_iterable(references))
        self._place = dict(zip(words, range(len(words)), strict=True))
        self._unknown = len(words)
        tokens = _numbered(references, self._place, self._unknown)
        owner = _owners(references)
        at = (tokens != self._unknown).nonzero()[0]
        table, places = np.arange(self._unknown), tokens[at]
        for n in range(self.order):
            if n:
                following = tokens[at + n]
                inside = (following != self._unknown).nonzero()[0]  # else it would run over its reference's end
                at = at[inside]
                table, places = _unique(places[inside] * (self._unknown + 1) + following[inside])
            counts = _counted(places, owner[at], len(table), len(references)).max(axis=0)
            levels.append((np.append(table, _NO_KEY), counts))
        self._levels = levels

    def matches(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        """For each tokenised text its matched n-grams of orders 1 … `order`, clipped by the references' counts."""
        if len(texts) == 1 and not self._met:
            self._met = True
            return [_matched(texts[0], self._references, self.order)]
        if not self._levels:
            self._make()
        parts = (self._matches(texts[start : start + _TEXTS]) for start in range(0, len(texts), _TEXTS))
        return list(chain.from_iterable(parts))

    def _matches(self, texts: Sequence[Sequence[str]]) -> list[list[int]]:
        tokens = _numbered(texts, self._place, self._unknown)
        owner = _owners(texts) if len(texts) > 1 else tokens
        at = (tokens != self._unknown).nonzero()[0]
        places = tokens[at]
        matched: list[list[int]] = []
        for n, (table, counts) in enumerate(self._levels):
            if n:
                keys = places * (self._unknown + 1) + tokens[at + n]  # no key of the table has an unknown token
                near = table.searchsorted(keys)
                hits = (table[near] == keys).nonzero()[0]
                at, places = at[hits], near[hits]
            if not len(places):
                matched += [[0] * len(texts)] * (self.order - n)
                break
            own = _counted(places, owner[at], len(counts), len(texts))
            matched.append(np.minimum(own, counts).sum(axis=1).tolist())
        return [list(orders) for orders in zip(*matched, strict=True)]


def _matched(text: Sequence[str], references: Sequence[Sequence[str]], order: int) -> list[int]:
    """Matched n-grams of orders 1 … `order` of one text, clipped by the references' counts, without a table of them.

    From one order to the next only n-grams that are in both are kept, so that the arrays shrink.
    """
    words = dict.fromkeys(text)
    unknown = len(words)
    place = dict(zip(words, range(unknown), strict=True))
    own, reference_ids = _numbered([text], place, unknown), _numbered(references, place, unknown)
    owner = _owners(references) if len(references) > 1 else reference_ids
    at, other_at = np.arange(len(text)), (reference_ids != unknown).nonzero()[0]
    places, others = own[at], reference_ids[other_at]
    size, matched = unknown, list[int]()
    for n in range(order):
        if n:
            following = own[at + n]
            inside = (following != unknown).nonzero()[0]
            at = at[inside]
            table, places = _unique(places[inside] * (unknown + 1) + following[inside])
            keys, size = others * (unknown + 1) + reference_ids[other_at + n], len(table)
            table = np.append(table, _NO_KEY)
            near = table.searchsorted(keys)
            hits = (table[near] == keys).nonzero()[0]
            other_at, others = other_at[hits], near[hits]
        if not len(others):
            break
        counts = _counted(others, owner[other_at], size, len(references)).max(axis=0)
        matched.append(int(np.minimum(np.bincount(places, minlength=size), counts).sum()))
        kept = counts[places].nonzero()[0]
        at, places = at[kept], places[kept]
    return matched + [0] * (order - len(matched))


def _numbered(texts: Sequence[Sequence[str]], place: Mapping[str, int], unknown: int) -> _Ints:
    """The places of all tokens, the texts one after the other with an unknown token after each."""
    flat: list[str] = []
    for text in texts:
        flat += text
        flat.append("")
    return np.fromiter(map(place.get, flat, repeat(unknown)), np.int64, len(flat))


def _owners(texts: Sequence[Sequence[str]]) -> _Ints:
    """Which text each of the tokens of `_numbered` belongs to."""
    return np.repeat(np.arange(len(texts)), [len(text) + 1 for text in texts])


def _unique(keys: _Ints) -> tuple[_Ints, _Ints]:
    """Sorted distinct keys, and each key's place among them (what np.unique gives, at a third of its time)."""
    by_key = keys.argsort()
    ordered = keys[by_key]
    new = np.ones(len(keys), bool)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    places = np.empty(len(keys), np.int64)
    places[by_key] = new.cumsum() - 1
    return ordered[new], places


def _counted(places: _Ints, owner: _Ints, size: int, owners: int) -> NDArray[Any]:
    """Counts of each place for each owner, shape (owners, size)."""
    if owners == 1:
        return np.bincount(places, minlength=size)[None]
    return np.bincount(owner * size + places, minlength=owners * size).reshape(owners, size)
