"""Which benchmark question a text repeats, wholly or in a long part, verbatim or reworded.

    benchmark = Benchmark([("math500", "17", "How many positive divisors does 196 have?")])
    benchmark.matches(["Determine how many positive divisors $196$ has."])     # [Match(...)], or [None] for no repeat

Candidates are the questions that share word bigrams with the text; bigrams of many questions are templates, not
evidence. Each candidate is aligned with the text (longest common subsequence). It is repeated where the aligned tokens
carry most of the question's weight (inverse document frequency in the benchmark) and nothing contradicts: another
number, operator, variable or rare word in the same place means another question of the same template. Variables may be
renamed consistently, and so may persons where there are numbers to compare. Clauses may stand in another order.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from rapidfuzz.distance import LCSseq

from data_prep.text.ngrams import NgramHasher, distinct
from data_prep.text.tokens import (
    FUNCTIONS,
    NEGATIONS,
    OPPOSITES,
    OR_EQUAL,
    QUANTITIES,
    STOP_WORDS,
    VARIABLE,
    plain,
    tokens,
    words,
)

SHOWN = 600  # characters of the texts of a match
SIZE = 2  # words of the n-grams that candidates share
TEMPLATE = (10, 0.02)  # n-grams of more questions than both, the second a share of all, are templates
SHARED = 0.35  # of a question's n-grams that a candidate shares
LIGHT = 0.1  # weight of words that nearly all questions have
STEM = 6  # letters that forms of a word share
RARE = 0.3  # weight of a word that another rare word at its place contradicts
CONTENT = 0.75  # least share of a question's content tokens that stand in the text
CLAUSE = 4  # a negation among more words that only one text has is part of a remark
NUMBERS = 2  # in a question whose persons may have other names
NAME, SMALL = re.compile(r"\b[A-Z][a-z]{2,}\b"), re.compile(r"\b[a-z]{2,}\b")
CHINESE_NAME = (
    re.compile(  # 小明, but not 小时; 张伟 where a clause begins, before a word that a person's name stands at
        r"小(?![时数学组于球路朋麦孩说狗猫鸡羊猪兔鸟鱼船车树花草区镇村店房屋客型量写心丑正长方圆块袋瓶盒箱杯])"
        r"([一-鿿])|(?:^|[\s，。；：？！、和与给比跟])"
        r"([王李张刘陈杨赵吴周徐孙朱胡郭林何罗郑梁谢宋唐许邓冯曹曾彭萧蔡潘]"
        r"[一-鿿]{1,2}?)(?=[有买卖花和与的比从在用把每说想要家先给跟，、])"
    )
)
CLAUSE_END = re.compile(r"(?<=[.?!;,])\s+|(?<=[。？！；，])|\s+(?=(?:if|given|when|where)\b)", re.IGNORECASE)
CLAUSES = 8  # of a text, that are tried in another order
SAME = 0.85  # of the tokens of both that a text with its clauses in another order shares
TINY = 5  # a question of fewer content tokens must stand in the text as it is, one without numbers alone
PART_WORDS = 40  # a question of so many words is found by a part
PART_TOKENS, PART_SHARE = 15, (0.3, 0.95)  # size of the part: least tokens; least and most share of the question


class Match(NamedTuple):
    """A repeated question: its task, id and text; how much of it is found, and the text that repeats it.

    Both texts are cut to at most SHOWN characters, in one line each.
    """

    task: str
    id: str
    question: str
    how: str
    text: str


class _Block(NamedTuple):
    """Equal tokens: question[start:end] == text[at:until]."""

    start: int
    end: int
    at: int

    @property
    def until(self) -> int:
        return self.at + self.end - self.start


class _Gap(NamedTuple):
    """Tokens between blocks, of the question and of the text."""

    question: Sequence[str]
    text: Sequence[str]
    inner: bool  # between two blocks, not before the first or after the last


class Benchmark:
    """Questions to compare with, indexed by their rare word n-grams."""

    def __init__(self, questions: Sequence[tuple[str, str, str]], threshold: float = 0.75) -> None:
        """questions: (task, id, text). threshold: least share of a question's weight that a repeat holds, 0 to 1."""
        self._questions, self._threshold = questions, threshold
        self._tokens = [tokens(text) for _, _, text in questions]
        frequency = Counter(token for each in self._tokens for token in set(each))
        count = len(questions) + 1
        self._weights = {word: math.log(count / (n + 0.5)) / math.log(count / 1.5) for word, n in frequency.items()}
        self._hasher = NgramHasher()
        self._small = {word for _, _, text in questions for word in SMALL.findall(text)}
        self._persons = {name for _, _, text in questions for name in self._names(text)}
        word_lists = [words(text) for _, _, text in questions]
        self._long = [  # words of formulas, or of scripts without spaces
            max(len(plain(text).split()), len(each)) >= PART_WORDS
            for (_, _, text), each in zip(questions, word_lists, strict=True)
        ]
        self._same_words: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for at, each in enumerate(word_lists):
            self._same_words[tuple(each)].append(at)
        index: dict[int, list[int]] = defaultdict(list)
        for at, value in zip(*(part.tolist() for part in distinct(*self._hasher(word_lists, SIZE))), strict=True):
            index[value].append(at)
        most = max(TEMPLATE[0], TEMPLATE[1] * len(questions))
        self._index = {value: places for value, places in index.items() if len(places) <= most}
        self._sizes = Counter(at for places in self._index.values() for at in places)
        self._known = np.array([*sorted(self._index), np.iinfo(np.uint64).max], dtype=np.uint64)

    def matches(self, texts: Sequence[str]) -> list[Match | None]:
        """For each text the question that it repeats, or None."""
        return [
            self._match(text, candidates) if candidates else None
            for text, candidates in zip(texts, self._candidates(texts), strict=True)
        ]

    def _candidates(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the questions that share enough n-grams with it, or have the same words."""
        word_lists = [words(text) for text in texts]
        counts: dict[int, Counter[int]] = defaultdict(Counter)
        owner, values = self._hasher(word_lists, SIZE)
        hit = self._known[np.searchsorted(self._known, values)] == values
        for at, value in zip(*(part.tolist() for part in distinct(owner[hit], values[hit])), strict=True):
            counts[at].update(self._index.get(value, ()))
        result = [list(self._same_words.get(tuple(each), ())) for each in word_lists]
        for at, shared in counts.items():
            result[at] += [place for place, n in shared.most_common() if n >= SHARED * self._sizes[place]]
        return result

    def _match(self, text: str, candidates: Sequence[int]) -> Match | None:
        text_tokens, names = tokens(text), self._names(text)
        for place in candidates:
            question = self._tokens[place]
            for start, end in _windows(question, text_tokens):
                how = self._repeats(question, text_tokens[start:end], names)
                if how or (self._long[place] and (how := self._part(question, text_tokens))):
                    task, name, question_text = self._questions[place]
                    excerpt = text[len(text) * start // max(1, len(text_tokens)) :]
                    return Match(task, name, _line(question_text), how, _line(excerpt))
            if _has_same_tokens(question, text_tokens):
                turned = max([text_tokens, *_turned(text)], key=lambda order: _shared(question, order))
                if turned is not text_tokens and (how := self._repeats(question, turned, names)):
                    task, name, question_text = self._questions[place]
                    return Match(task, name, _line(question_text), f"{how}, clauses in another order", _line(text))
        return None

    def _names(self, text: str) -> set[str]:
        """Words that stand in capitals only, such as names of persons, and characters of Chinese names."""
        latin = {name.lower() for name in NAME.findall(text)} - self._small - STOP_WORDS - OPPOSITES.keys()
        return latin if text.isascii() else latin.union(*(a or b for a, b in CHINESE_NAME.findall(text)))

    def _repeats(self, question: Sequence[str], given: Sequence[str], names: Collection[str]) -> str | None:
        """How much of a question the text repeats, or None where it is another question."""
        blocks, text = _aligned(question, given)
        if not blocks:
            return None
        if names and sum(token[0].isdigit() for token in question) >= NUMBERS:
            pairs = self._renamed(question, text, blocks, names)
            new = dict(pairs)
            if not len(pairs) == len(new) == len(set(new.values())):  # not each name stands for one other
                return None
            if new:
                blocks, text = _aligned(question, [new.get(token, token) for token in text])
                if any(name in question for name, _ in self._renamed(question, text, blocks, names)):
                    return None
        share = self._weight(_tokens_of(question, blocks)) / self._weight(question)
        agrees = share >= self._threshold and self._agrees(question, text, blocks)
        return f"{share:.0%} of the question" if agrees else None

    def _renamed(
        self, question: Sequence[str], text: Sequence[str], blocks: Sequence[_Block], names: Collection[str]
    ) -> set[tuple[str, str]]:
        """(name in the text, name in the question that has its place)."""
        pairs = (pair for gap in _gaps(question, text, blocks) for pair in zip(gap.text, gap.question, strict=False))
        return {(name, old) for name, old in pairs if name in names and old in self._persons}

    def _weight(self, some: Iterable[str]) -> float:
        return sum(map(self._weight_of, some))

    def _weight_of(self, token: str) -> float:
        if token in STOP_WORDS or not token[0].isalnum():
            return min(0.05, self._weights.get(token, 1.0))
        return max(self._weights.get(token, 1.0), 0.3 if token[0].isdigit() else 0.01)

    def _is_content(self, token: str) -> bool:
        return not token.isalpha() or self._weight_of(token) > LIGHT

    def _agrees(self, question: Sequence[str], text: Sequence[str], blocks: Sequence[_Block]) -> bool:
        """Whether nothing contradicts: no other numbers, and no more other signs, names and rare words than allowed."""
        matched = list(_tokens_of(question, blocks))
        content, every = (sum(map(self._is_content, some)) for some in (matched, question))
        numbers = sum(self._weight_of(token) for token in matched if token[0].isdigit())
        if every < TINY and (content < every or len(blocks) > 1 or (not numbers and len(matched) < len(text))):
            return False
        inserted = blocks[-1].until - blocks[0].at - len(matched)
        if content < CONTENT * every or inserted > 2 + len(question) // 3:
            return False
        tolerated = max(0, every // 20 - 1)
        signs = rare = 0
        for gap in _gaps(question, text, blocks):
            if any(token[0].isdigit() for token in gap.question) or _is_negated(gap) or _is_opposed(gap):
                return False
            inserted_number = gap.inner and any(token[0].isdigit() for token in gap.text)
            signs += inserted_number + _other_signs(gap) + _other_variables(gap)
            rare += self._rare(gap.question, text) and self._rare(gap.text, question)
        return signs <= tolerated and rare <= max(tolerated, int(numbers) - 2)

    def _rare(self, some: Iterable[str], other: Sequence[str]) -> bool:
        """Whether there is a rare word that does not stand in the other text, in no form."""
        words = {token.rstrip("s")[:STEM] for token in some if token.isalpha() and self._weight_of(token) > RARE}
        return bool(words) and not words <= {token.rstrip("s")[:STEM] for token in other}

    def _part(self, question: Sequence[str], text: Sequence[str]) -> str | None:
        """The first part of a long question is enough where it fills the text, which does not go on to ask of it."""
        if len(text) > 2 * len(question):
            return None
        blocks, text = _aligned(question[: len(text) + 3], text)
        if not (part := _first_part(blocks)):
            return None
        end, first, last = part[-1].end, part[0].at, part[-1].until
        share = end / len(question)
        if end < PART_TOKENS or not PART_SHARE[0] <= share <= PART_SHARE[1] or 2 * (last - first) < len(text):
            return None
        if not self._agrees(question[:end], text[first:last], [block._replace(at=block.at - first) for block in part]):
            return None
        rest = [token for token in text[last:] if token[0] == VARIABLE or self._weight_of(token) >= 0.3]
        related = sum(token in question for token in rest)
        if any(token[0].isdigit() for token in rest) or (len(text) - last > 6 and related > 0.2 * len(rest)):
            return None
        return f"the first {share:.0%} of the question"


def _has_same_tokens(question: Sequence[str], text: Sequence[str]) -> bool:
    """Whether the numbers of both are the same, and nearly all tokens, variables whatever their names, in any order."""
    counts = Counter(_keys(question)), Counter(_keys(text))
    numbers = [{key: n for key, n in count.items() if key[0].isdigit()} for count in counts]
    return numbers[0] == numbers[1] and (counts[0] & counts[1]).total() >= SAME * max(len(question), len(text))


def _turned(text: str) -> Iterator[list[str]]:
    """Tokens of the text begun at each of its other clauses: "Given A, find B" as "find B Given A"."""
    clauses = CLAUSE_END.split(text)
    if len(clauses) <= CLAUSES:
        yield from (tokens(" ".join([*clauses[at:], *clauses[:at]])) for at in range(1, len(clauses)))


def _shared(question: Sequence[str], text: Sequence[str]) -> int:
    """How many tokens of the text are aligned with those of the question."""
    return sum(block.end - block.start for block in _aligned(question, text)[0])


def _line(text: str) -> str:
    return " ".join(text[: 2 * SHOWN].split())[:SHOWN]


def _tokens_of(question: Sequence[str], blocks: Sequence[_Block]) -> Iterator[str]:
    return (token for block in blocks for token in question[block.start : block.end])


def _windows(question: Sequence[str], text: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(start, end): where in a text most of the question's n-grams stand, in a long one at up to three places."""
    width = 13 * len(question) // 10 + 10
    if len(text) <= width + 20:
        yield 0, len(text)
        return
    question_keys, text_keys = _keys(question), _keys(text)
    known = {tuple(question_keys[at : at + SIZE]) for at in range(len(question_keys) - SIZE + 1)}
    hits = (tuple(text_keys[at : at + SIZE]) in known for at in range(len(text_keys) - SIZE + 1))
    sums = [0, *accumulate(hits)]
    counts = {start: sums[min(start + width, len(sums) - 1)] - sums[start] for start in range(len(sums) - 1)}
    for _ in range(3):
        start = max(counts, key=counts.__getitem__, default=-1)
        if start < 0 or 2 * counts[start] < len(known):
            return
        yield max(0, start - 10), start + width + 10
        counts = {at: n for at, n in counts.items() if abs(at - start) > width // 2}


def _keys(some: Sequence[str]) -> list[str]:
    return [VARIABLE if token[0] == VARIABLE else token for token in some]


def _aligned(question: Sequence[str], text: Sequence[str]) -> tuple[list[_Block], list[str]]:
    """Equal blocks of both, and the text with its variables renamed to those of the question they mostly stand for."""
    blocks = _common(_keys(question), _keys(text))
    names = Counter(
        (text[block.at + k], question[block.start + k])
        for block in blocks
        for k in range(block.end - block.start)
        if question[block.start + k][0] == VARIABLE
    )
    usual = {name: variable for (name, variable), _ in reversed(names.most_common())}
    renamed = [usual.get(token, token) for token in text]
    if len(names) > len({variable for _, variable in names}):  # not each variable has a single name
        blocks = _common(question, renamed)
    while len(blocks) > 1 and _is_stray(blocks[-1], blocks[-1].at - blocks[-2].until):
        blocks.pop()
    while len(blocks) > 1 and _is_stray(blocks[0], blocks[1].at - blocks[0].until):
        del blocks[0]
    return blocks, renamed


def _is_stray(block: _Block, distance: int) -> bool:
    """Whether a few equal tokens at an end stand far from the rest: they are there by chance."""
    return block.end - block.start <= 2 and distance > 5


def _common(question: Sequence[str], text: Sequence[str]) -> list[_Block]:
    """The blocks of the longest common subsequence, in which a number counts twice."""
    (question_keys, places), (text_keys, positions) = _doubled(question), _doubled(text)
    blocks: list[_Block] = []
    for match in LCSseq.editops(question_keys, text_keys).as_matching_blocks():
        for k in range(match.size):
            if question_keys[match.a + k][-1] == "'":
                continue
            i, j = places[match.a + k], positions[match.b + k]
            if blocks and (blocks[-1].end, blocks[-1].until) == (i, j):
                blocks[-1] = blocks[-1]._replace(end=i + 1)
            else:
                blocks.append(_Block(i, i + 1, j))
    return blocks


def _doubled(some: Sequence[str]) -> tuple[list[str], list[int]]:
    """Keys to align, numbers followed by their doubles, with the index of each key's token."""
    keys: list[str] = []
    places: list[int] = []
    for at, key in enumerate(some):
        double = [key, key + "'"] if key[0].isdigit() else [key]
        keys += double
        places += [at] * len(double)
    return keys, places


def _gaps(question: Sequence[str], text: Sequence[str], blocks: Sequence[_Block]) -> Iterator[_Gap]:
    """What stands between blocks, before the first and after the last."""
    i = j = 0
    for n, block in enumerate([*blocks, _Block(len(question), len(question), len(text))]):
        yield _Gap(question[i : block.start], text[j : block.at], 0 < n < len(blocks))
        i, j = block.end, block.until


def _other_signs(gap: _Gap) -> bool:
    """Whether operators, functions or quantities differ: others on both sides, or a minus or absolute value on one."""
    expected, present = (
        [token for token in side if token[0] in "+-*/^=<>!|" or token in FUNCTIONS or token in QUANTITIES]
        for side in gap[:2]
    )
    one_sided = {*expected, *(present if gap.inner else ())} & {"-", "|"}
    return bool(expected and present) or bool(one_sided)


def _is_negated(gap: _Gap) -> bool:
    """Whether a word such as "not" stands on one side, by itself and not in a sentence that the other leaves out."""
    expected, present = ([token for token in side if token in NEGATIONS] for side in gap[:2])
    if len(gap.question) > CLAUSE or len(gap.text) > CLAUSE or (present and not gap.inner):
        return False
    return bool(expected) != bool(present) or (OR_EQUAL in expected) != (OR_EQUAL in present)


def _is_opposed(gap: _Gap) -> bool:
    """Whether one side has the opposite of a word of the other: "buys" for "sells", "hours" for "minutes"."""
    near = gap.text if gap.inner else gap.text[: len(gap.question) + 1]
    expected, present = (
        dict(OPPOSITES[token] for token in side if token in OPPOSITES) for side in (gap.question, near)
    )
    return any(present.get(kind, side) != side for kind, side in expected.items())


def _other_variables(gap: _Gap) -> bool:
    """Whether a variable of the question is missing, and another in its place, or several are."""
    near = gap.text if gap.inner else gap.text[: len(gap.question) + 1]
    expected, present = (Counter(token for token in side if token[0] == VARIABLE) for side in (gap.question, near))
    lost = (expected - present).total()
    return lost > 2 or (lost > 0 and present.total() > 0)


def _first_part(blocks: Sequence[_Block]) -> list[_Block]:
    """The blocks from the question's beginning on without a gap of more than two tokens."""
    part: list[_Block] = []
    end = at = 0
    for block in blocks:
        if block.start - end > 2 or (part and block.at - at > 2):
            break
        part.append(block)
        end, at = block.end, block.until
    return part
