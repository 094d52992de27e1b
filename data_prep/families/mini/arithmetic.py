"""Seeded addition problems with two-digit numbers, at five levels.

A level-k question adds k two-digit numbers; level 1 adds two single digits. The chain of thought adds term
by term, lowest digit first, and ends in `\\boxed{n}`. The split is a hash of the question that ignores the
order of its terms, so that no test question, nor a reordering of one, is in train. Standard library only.
"""

import itertools
import random
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

Split = Literal["train", "test"]
Chain = Literal["short", "long"]
Row = dict[str, Any]

LEVELS = (1, 2, 3, 4, 5)
TEST_SHARE = 10  # one question in ten is held out
ENUMERABLE = 2  # up to this level all questions are enumerated (at most 8,100); above it they are sampled


@dataclass(frozen=True)
class Problem:
    """A sum, with its terms in the order of the chain of thought."""

    level: int
    terms: tuple[int, ...]

    @property
    def key(self) -> str:
        return "+".join(map(str, self.terms))

    @property
    def question(self) -> str:
        return f"{self.key}=?"

    @property
    def answer(self) -> str:
        return str(sum(self.terms))

    @property
    def split(self) -> Split:
        canonical = "+".join(map(str, sorted(self.terms)))
        return "test" if zlib.crc32(canonical.encode()) % TEST_SHARE == 0 else "train"


def add(a: int, b: int) -> str:
    """One column addition, lowest digit first, the carry as `+1`: `47+38:7+8=15,4+3+1=8>85`."""
    width, carry, columns = max(len(str(a)), len(str(b))), 0, []
    for place in range(width):
        x, y = a // 10**place % 10, b // 10**place % 10
        value = x + y + carry
        columns.append(f"{x}+{y}{'+1' if carry else ''}={value}")
        carry = value // 10
    return f"{a}+{b}:{','.join(columns)}>{a + b}"


def solve(problem: Problem, chain: Chain) -> str:
    """The gold completion. A long chain repeats each addition with swapped operands before the answer."""
    additions = list(zip(itertools.accumulate(problem.terms), problem.terms[1:], strict=False))  # total, next term
    lines = [add(a, b) for a, b in additions]
    if chain == "long":
        lines += ["check", *(add(b, a) for a, b in additions), f"{problem.answer}={problem.answer}"]
    return "\n".join([*lines, f"\\boxed{{{problem.answer}}}"])


def wordings(row: Row) -> list[str]:
    """Right completions of a row: with the terms as given, and with the first two swapped."""
    first, second, *rest = (int(term) for term in row["prompt"][-1]["content"].removesuffix("=?").split("+"))
    orders = ((first, second, *rest), (second, first, *rest))
    return list(dict.fromkeys(solve(Problem(row["meta"]["level"], terms), row["meta"]["chain"]) for terms in orders))


def listed(level: int, split: Split) -> list[Problem]:
    """All questions of an enumerable level."""
    terms = range(10) if level == 1 else range(10, 100)
    pairs = itertools.product(terms, terms)
    return [problem for pair in pairs if (problem := Problem(level, pair)).split == split]


def drawn(level: int, rng: random.Random) -> Problem:
    """A random question of any level."""
    return Problem(level, tuple(rng.randint(10, 99) for _ in range(level)))


def makes_sense(problem: Problem) -> bool:
    """Whether a sampled question is usable: any sum is."""
    return True


@cache  # called repeatedly by the launcher
def capacity(level: int, split: Split) -> int:
    """Maximum number of distinct questions; for sampled levels half of all, so that sampling ends."""
    if level <= ENUMERABLE:
        return len(listed(level, split))
    share = 1 if split == "test" else TEST_SHARE - 1
    return int(90**level * share / TEST_SHARE / 2)


def row(problem: Problem, chain: Chain) -> Row:
    """A question with its gold completion as a row."""
    return {
        "id": f"arithmetic/{problem.key}",
        "prompt": [{"role": "user", "content": problem.question}],
        "completion": solve(problem, chain),
        "answer": problem.answer,
        "source": "arithmetic",
        "meta": {"level": problem.level, "chain": chain},
    }
