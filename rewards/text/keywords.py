"""Reward `keywords`: the share of a reference's key phrases that a completion contains in order, from 0 to 1.

    python -m rewards score --reward keywords --input rows.jsonl --output scored.jsonl

After the content reward of RLVRR (arXiv 2601.18533), without its language model. A key phrase is a run of up to
`phrase` words without stop words; phrases are distinct and in the reference's order. (If the references contain only
stop words, such as "Yes." or "It can be either.", all words count.) The value is the length of the longest common
subsequence with the completion's phrases, divided by the number of key phrases, for the best reference. Recall alone
grows with the length of a completion; `measure: f1` penalises words outside all key phrases.
"""

import tomllib
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import Field
from rapidfuzz.distance import LCSseq

from rewards.base import Score
from rewards.text.base import ReferenceReward, References
from rewards.text.tokenise import WORD, tokens_of_any_script

STOP_WORDS = frozenset(tomllib.loads(Path(__file__).with_name("stop_words.toml").read_text())["words"].split())
_BREAK = ""  # phrase boundary, inserted for punctuation


class Keys(NamedTuple):
    """Phrases of one reference in order, phrases by first word, and the words outside all phrases."""

    phrases: tuple[tuple[str, ...], ...]
    by_first: dict[str, list[int]]
    stop: frozenset[str]


class Keywords(ReferenceReward):
    """Share of a reference's key phrases that the text contains in order, for the best reference.

    Details: phrases (of that reference), matched. A text without words has value 0, outcome "no_answer".

    phrase: maximum words per phrase. measure: see above.
    """

    phrase: Annotated[int, Field(ge=1, le=8)] = 3
    measure: Literal["recall", "f1"] = "recall"

    def table(self, references: References) -> list[Keys] | None:
        for stop in (STOP_WORDS, frozenset[str]()):
            if table := [keys for reference in references if (keys := self._keys(reference, stop)).phrases]:
                return table
        return [] if any(map(str.strip, references)) else None

    def _keys(self, reference: str, stop: frozenset[str]) -> Keys:
        phrases = tuple(dict.fromkeys(phrases_of(words(reference), self.phrase, stop)))
        by_first: dict[str, list[int]] = {}
        for place, phrase in enumerate(phrases):
            by_first.setdefault(phrase[0], []).append(place)
        return Keys(phrases, by_first, stop)

    def against(self, table: list[Keys], text: str) -> Score:
        text_words = words(text)
        if not any(text_words):
            return Score(0.0, "no_answer", {"problem": "the text has no words"})
        if not table:
            return Score(0.0, "scored", {"problem": "no reference has words"})
        return max((self._score(keys, text_words) for keys in table), key=lambda score: score.value)

    def _score(self, keys: Keys, text: list[str]) -> Score:
        places = [
            place
            for at, word in enumerate(text)
            for place in keys.by_first.get(word, ())
            if tuple(text[at : at + len(keys.phrases[place])]) == keys.phrases[place]
        ]
        matched = LCSseq.similarity(places, range(len(keys.phrases)))
        recall = matched / len(keys.phrases)
        details = {"phrases": len(keys.phrases), "matched": matched}
        if self.measure == "recall" or not matched:
            return Score(recall, "scored", details)
        covered = sum(len(keys.phrases[place]) for place in set(places))
        precision = min(1.0, covered / sum(word not in keys.stop and word != _BREAK for word in text))
        return Score(2 * precision * recall / (precision + recall), "scored", details)


def words(text: str) -> list[str]:
    """Lower-cased words, with a boundary for each punctuation mark."""
    return [token if WORD.fullmatch(token) else _BREAK for token in tokens_of_any_script(text)]


def phrases_of(text: Sequence[str], longest: int, stop: frozenset[str] = STOP_WORDS) -> Iterator[tuple[str, ...]]:
    """Runs of words without stop words, split into pieces of at most `longest` words."""
    for kept, run in groupby(text, lambda word: word != _BREAK and word not in stop):
        phrase = tuple(run)
        if kept:
            yield from (phrase[start : start + longest] for start in range(0, len(phrase), longest))
