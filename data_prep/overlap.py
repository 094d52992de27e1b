"""Which benchmark questions a text repeats: shared word n-grams, near duplicates, equal texts.

    known = Benchmark([("math500", "17", "What is the smallest positive integer ...")], Rules())
    known.matches(["Tell me: what is the smallest positive integer ..."])     # [Match(...)] or [None], by text

Rules: one shared n-gram of 13 words (Brown et al. 2020, arXiv 2005.14165, appendix C); a large share of a question's
8-grams (Chowdhery et al. 2022, arXiv 2204.02311, section 8); word 5-grams of high Jaccard similarity; the same words.
Words are runs of letters and digits or single other signs, so that neither case, spacing nor punctuation's place hides
a question. N-grams that stand in many questions of a task (instructions that all its prompts have) are no evidence.
All texts are looked up at once by hashes, and what is found is confirmed by the words themselves.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LIKE = 5  # words of the n-grams whose Jaccard similarity is taken
COMMON = (3, 0.02)  # an n-gram of more questions of a task than both, the second a share of them, is no evidence
SHOWN = 160  # characters of the words that a match shows
SLOTS = 64  # of a filter for each n-gram it knows: so many hashes that it does not know are told by one look
_WORD = re.compile(r"[^\W_]+|[^\w\s]|_")
_ASCII_WORD = re.compile(r"[a-z0-9]+|[^a-z0-9\s]")  # the same words of a text in small ASCII letters, in half the time


class Rules(NamedTuple):
    """any_of: an n-gram of so many words is enough. share: of a question's n-grams of `of` words. near: Jaccard."""

    any_of: int | None = 13
    of: int = 8
    share: float | None = 0.7
    near: float | None = 0.8


class Match(NamedTuple):
    """Why a text repeats a question: the task and the question's id, the rule, the words that show it."""

    task: str
    question: str
    rule: str
    words: str


@dataclass(frozen=True)
class _Question:
    task: str
    id: str
    words: tuple[str, ...]


def words_of(text: str) -> list[str]:
    """A text's words, compatibility forms united and without case."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


class Benchmark:
    """Questions to compare with, indexed by the hashes of their n-grams."""

    def __init__(self, questions: Sequence[tuple[str, str, str]], rules: Rules) -> None:
        """questions: (task, id, text)."""
        self._rules = rules
        self._questions = [_Question(task, name, tuple(words_of(text))) for task, name, text in questions]
        self._equal = {one.words: place for place, one in reversed(list(enumerate(self._questions))) if one.words}
        sizes = [rules.any_of, rules.of if rules.share is not None else None, LIKE if rules.near is not None else None]
        self._common: dict[int, dict[tuple[str, ...], int]] = defaultdict(dict)  # with their hashes
        self._codes = _Codes()
        texts = _Coded([question.words for question in self._questions], self._codes)
        self._known = {size: self._index(texts, size) for size in sizes if size}
        self._filters = {size: _Filter(index) for size, index in self._known.items()}

    def _index(self, texts: _Coded, size: int) -> dict[int, list[int]]:
        """Questions by the hashes of their n-grams, without those that are common in their task."""
        found: dict[int, list[int]] = defaultdict(list)
        owner, values = _distinct(*texts.grams(size))
        for place, value in zip(owner.tolist(), values.tolist(), strict=True):
            found[value].append(place)
        asked = Counter(question.task for question in self._questions)
        for value, places in [item for item in found.items() if len(item[1]) > COMMON[0]]:
            most, count = Counter(self._questions[place].task for place in places).most_common(1)[0]
            if count > max(COMMON[0], COMMON[1] * asked[most]):
                words = self._questions[places[0]].words
                self._common[size].update({gram: value for gram in _grams(words, size) if _hash(gram) == value})
                del found[value]
        return dict(found)

    def matches(self, texts: Sequence[str]) -> list[Match | None]:
        """For each text a question that it repeats, by the strictest rule; None where there is none."""
        said = [words_of(text) for text in texts]
        candidates = self._candidates(said)
        return [self._judge(tuple(words), sorted(candidates[at])) for at, words in enumerate(said)]

    def _candidates(self, said: Sequence[Sequence[str]]) -> list[set[int]]:
        """For each text the questions that share n-grams with it, as far as hashes tell."""
        found: list[set[int]] = [set() for _ in said]
        texts = _Coded(said, self._codes)
        for size, index in self._known.items():
            owner, values = texts.grams(size)
            hit = self._known_among(values, size)
            owner, values = owner[hit], values[hit]
            if size == LIKE and not self._decide(LIKE):
                # One such n-gram is nothing, and alike are only texts that share most of theirs.
                owner, values = self._sharing(texts, owner, values)
            for at, value in zip(owner.tolist(), values.tolist(), strict=True):
                found[at].update(index[value])
        return found

    def _decide(self, size: int) -> bool:
        """Whether n-grams of so many words are evidence by themselves, in a text however long."""
        return size in (self._rules.any_of, self._rules.of if self._rules.share is not None else None)

    def _known_among(self, values: NDArray[np.uint64], size: int) -> NDArray[np.bool_]:
        hit, index = self._filters[size].may_hold(values), self._known[size]
        hit[hit] = [value in index for value in values[hit].tolist()]
        return hit

    def _sharing(
        self, texts: _Coded, owner: NDArray[np.int64], values: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """Of texts' known n-grams those of texts that share enough of all that are evidence."""
        import numpy as np

        whose, every = texts.grams(LIKE)
        evidence = np.isin(whose, owner) & ~np.isin(every, np.array([*self._common[LIKE].values()], dtype=np.uint64))
        own, shared = (
            np.bincount(_distinct(*one)[0], minlength=len(texts))
            for one in ((whose[evidence], every[evidence]), (owner, values))
        )
        enough = (shared >= (self._rules.near or 0) * own)[owner]
        return owner[enough], values[enough]

    def _judge(self, words: tuple[str, ...], candidates: Sequence[int]) -> Match | None:
        if (place := self._equal.get(words)) is not None:
            return self._match(place, "equal", words)
        for rule in (self._any_of, self._share, self._near):
            for place in candidates:
                if match := rule(words, place):
                    return match
        return None

    def _any_of(self, words: Sequence[str], place: int) -> Match | None:
        size = self._rules.any_of
        shared = self._shared(words, place, size) if size else []
        return self._match(place, f"{size} words", shared[0]) if shared else None

    def _share(self, words: Sequence[str], place: int) -> Match | None:
        size, least = self._rules.of, self._rules.share
        shared = self._shared(words, place, size) if least is not None else []
        share = len(shared) / max(1, len(self._own(self._questions[place].words, size)))
        enough = least is not None and shared and share >= least
        return self._match(place, f"{share:.2f} of its {size}-grams", shared[0]) if enough else None

    def _near(self, words: Sequence[str], place: int) -> Match | None:
        mine, other = (self._own(one, LIKE).keys() for one in (words, self._questions[place].words))
        like = len(mine & other) / max(1, len(mine | other))
        enough = self._rules.near is not None and like and like >= self._rules.near
        return self._match(place, f"{like:.2f} alike", words) if enough else None

    def _own(self, words: Sequence[str], size: int) -> dict[tuple[str, ...], None]:
        """The n-grams that are evidence, each once, in their order."""
        return dict.fromkeys(gram for gram in _grams(words, size) if gram not in self._common[size])

    def _shared(self, words: Sequence[str], place: int, size: int) -> list[tuple[str, ...]]:
        """The question's n-grams that stand in the text."""
        mine = self._own(words, size)
        return [gram for gram in self._own(self._questions[place].words, size) if gram in mine]

    def _match(self, place: int, rule: str, words: Sequence[str]) -> Match:
        question = self._questions[place]
        return Match(question.task, question.id, rule, " ".join(words)[:SHOWN])


def _grams(words: Sequence[str], size: int) -> list[tuple[str, ...]]:
    return [tuple(words[at : at + size]) for at in range(len(words) - size + 1)]


def _hash(gram: Sequence[str]) -> int:
    return int(_Coded([gram], _Codes()).grams(len(gram))[1][0])


class _Codes(dict[str, int]):
    """Hashes of words, kept for the next texts, which use most of them again."""

    most, longest = 200_000, 40  # words, and characters of one, that are kept

    def __missing__(self, word: str) -> int:
        code = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        if len(word) <= self.longest and len(self) < self.most:
            self[word] = code
        return code


class _Coded:
    """Texts as numbers: a hash per word, from which those of all n-grams are made."""

    def __init__(self, texts: Sequence[Sequence[str]], codes: _Codes) -> None:
        import numpy as np

        self._count = len(texts)
        self._owner = np.repeat(np.arange(len(texts)), [len(words) for words in texts])
        found = map(codes.__getitem__, chain.from_iterable(texts))
        self._words = np.fromiter(found, dtype=np.uint64, count=len(self._owner))

    def __len__(self) -> int:
        return self._count

    def grams(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """(place of the text, hash) of each n-gram of each text, in order."""
        import numpy as np

        factors = np.random.Generator(np.random.PCG64(20240613)).integers(1, 1 << 63, size, dtype=np.uint64) * 2 + 1
        starts = max(0, len(self._words) - size + 1)
        values = np.zeros(starts, dtype=np.uint64)
        for at in range(size):
            values += self._words[at : at + starts] * factors[at]
        owner = self._owner[:starts]
        whole = owner == self._owner[size - 1 :][:starts]  # of one text, from its first word to its last
        return owner[whole], values[whole]


class _Filter:
    """Tells of most hashes at one look that they are not among those it knows."""

    def __init__(self, known: Collection[int]) -> None:
        import numpy as np

        bits = min(24, max(1, len(known) * SLOTS).bit_length())  # 16 MB at most
        self._shift = np.uint64(64 - bits)
        self._marked = np.zeros(1 << bits, dtype=bool)
        self._marked[np.fromiter(known, dtype=np.uint64, count=len(known)) >> self._shift] = True

    def may_hold(self, values: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """True for all that are known, and for some few of the others."""
        told: NDArray[np.bool_] = self._marked[values >> self._shift]
        return told


def _distinct(owner: NDArray[np.int64], values: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The n-grams' hashes of each text, equal ones once, in the order of the texts."""
    import numpy as np

    order = np.lexsort((values, owner))
    owner, values = owner[order], values[order]
    new = np.ones(len(values), dtype=bool)
    new[1:] = (owner[1:] != owner[:-1]) | (values[1:] != values[:-1])
    return owner[new], values[new]
