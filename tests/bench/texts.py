"""Groups of completions that share references, made up but with the shape of real ones.

Words follow Zipf's law, phrases of a group's own come again in all its texts, and there are numbers, quotes,
lists and lines of code. The same seed gives the same texts.
"""

from __future__ import annotations

import itertools
import random
from typing import NamedTuple

# fmt: off
COMMON = [
    "the", "of", "and", "to", "a", "in", "is", "that", "for", "it", "as", "with", "was", "on", "are", "by", "this",
    "be", "or", "from", "an", "which", "you", "can", "not", "at", "have", "we", "if",
]
SYLLABLES = [
    "ba", "con", "de", "er", "fi", "gra", "ho", "in", "ju", "ka", "lo", "men", "nor", "op", "pre", "qui", "ra", "st",
    "tion", "un", "ver", "wa", "ex", "y", "ze",
]
# fmt: on
NUMBERS = ("3.14", "1,000", "12%", "$4.50", "2024-05-01", "(b)", "1990-95", "7.", ".5")
CODE = (
    "for i in range(10):\n    total += x[i] * 2\n",
    "def f(a, b=None):\n    return a.get(b, 0)\n",
    '`print("hi")`',
    "if (x <= 0 && y != 1) { return -1; }\n",
)


class Group(NamedTuple):
    references: list[str]
    completions: list[str]


def groups(count: int, references: int, completions: int = 8, tokens: int = 300, seed: int = 0) -> list[Group]:
    """`count` groups of texts with about `tokens` 13a tokens each."""
    writer = _Writer(seed)
    made = []
    for _ in range(count):
        writer.new_topic()
        made.append(
            Group(
                [writer.text(tokens) for _ in range(references)],
                [writer.text(tokens) for _ in range(completions)],
            )
        )
    return made


class _Writer:
    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        made = ("".join(self.draw.choices(SYLLABLES, k=self.draw.choice((1, 2, 2, 3, 3, 4)))) for _ in range(3000))
        self.words = [*COMMON, *made]
        self.weights = list(itertools.accumulate(1 / (rank + 2) for rank in range(len(self.words))))
        self.topic: list[list[str]] = []

    def new_topic(self) -> None:
        self.topic = [self.phrase() for _ in range(40)]

    def phrase(self) -> list[str]:
        return self.draw.choices(self.words, cum_weights=self.weights, k=self.draw.randint(2, 6))

    def sentence(self) -> list[str]:
        draw, words = self.draw, list[str]()
        for _ in range(draw.randint(2, 5)):
            kind = draw.random()
            words += draw.choice(self.topic) if kind < 0.45 else [self.number()] if kind < 0.52 else self.phrase()
        words[0] = words[0].capitalize()
        place = draw.randrange(len(words))
        words[place] = draw.choice(("{},", "{},", "{},", '"{}"', "{}'s", "{}", "{}")).format(words[place])
        words[-1] += draw.choice((".", ".", ".", "?", "!", ":"))
        return words

    def number(self) -> str:
        return self.draw.choice((*NUMBERS, str(self.draw.randint(1, 3000))))

    def text(self, tokens: int) -> str:
        pieces, length = [], 0
        while length < tokens:
            words = self.sentence()
            length += round(len(words) * 1.1) + 1
            pieces.append(" ".join(words))
            if self.draw.random() < 0.05:
                pieces.append("\n" + self.draw.choice(CODE))
                length += 20
            if self.draw.random() < 0.1:
                pieces.append("\n\n-")
        return " ".join(pieces)
