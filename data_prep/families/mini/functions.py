"""Seeded questions for the mini world of code: short Python functions on a list of whole numbers, made of skills.

A level-k question names k skills in the order in which they act ("add 3; keep even; sum"); its gold is one line of
Python each. Tests are calls whose results this module's own interpreter of the skills gives: no program is run
here. Skills that a question could do without are refused, and its tests tell it from its neighbours (a skill left
out, two swapped, a number off by one). Pairs of skills and numbers are held out by a hash: no train question has
a held-out pair in that order, nor a held-out number; each held-out question has one. Standard library only.
"""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from data_prep.families.mini.arithmetic import Chain, Row, Split

Numbers = list[int]
Apply = Callable[[Numbers, int], Any]

LEVELS = (1, 2, 3)
ENUMERABLE = 1  # up to this level all questions are listed; above it they are drawn
FUNCTION, SIGNATURE = "f", "def f(xs):"
HELD_OUT_PAIRS, HELD_OUT_NUMBERS = 6, 8  # one in so many
CASES = 6  # at least, the empty list among them
LOWEST, HIGHEST, LONGEST = -60, 99, 9  # of the numbers in a test's list; its length
TRIES = 15  # further lists that are tried for neighbours which still pass


@dataclass(frozen=True)
class Skill:
    """One thing that a function does. `phrase` and `code` may hold {n}, a number of `numbers`."""

    phrase: str
    code: str
    apply: Apply
    numbers: range = range(1)
    ends: bool = False  # makes one number of the list, so it comes last

    @property
    def numbered(self) -> bool:
        return "{n}" in self.phrase


WIDE, NARROW, FEW = range(2, 60), range(2, 10), range(1, 8)
SKILLS: dict[str, Skill] = {
    "add": Skill("add {n}", "xs = [x + {n} for x in xs]", lambda xs, n: [x + n for x in xs], WIDE),
    "subtract": Skill("subtract {n}", "xs = [x - {n} for x in xs]", lambda xs, n: [x - n for x in xs], WIDE),
    "multiply": Skill("times {n}", "xs = [x * {n} for x in xs]", lambda xs, n: [x * n for x in xs], NARROW),
    "negate": Skill("negate", "xs = [-x for x in xs]", lambda xs, n: [-x for x in xs]),
    "absolute": Skill("absolute", "xs = [abs(x) for x in xs]", lambda xs, n: [abs(x) for x in xs]),
    "above": Skill("above {n}", "xs = [x for x in xs if x > {n}]", lambda xs, n: [x for x in xs if x > n], WIDE),
    "below": Skill("below {n}", "xs = [x for x in xs if x < {n}]", lambda xs, n: [x for x in xs if x < n], WIDE),
    "even": Skill("even", "xs = [x for x in xs if x % 2 == 0]", lambda xs, n: [x for x in xs if x % 2 == 0]),
    "odd": Skill("odd", "xs = [x for x in xs if x % 2 == 1]", lambda xs, n: [x for x in xs if x % 2 == 1]),
    "cap": Skill("cap {n}", "xs = [min(x, {n}) for x in xs]", lambda xs, n: [min(x, n) for x in xs], WIDE),
    "first": Skill("first {n}", "xs = xs[:{n}]", lambda xs, n: xs[:n], FEW),
    "last": Skill("last {n}", "xs = xs[-{n}:]", lambda xs, n: xs[-n:], FEW),
    "skip": Skill("skip {n}", "xs = xs[{n}:]", lambda xs, n: xs[n:], FEW),
    "reverse": Skill("reverse", "xs = xs[::-1]", lambda xs, n: xs[::-1]),
    "sort": Skill("sort", "xs = sorted(xs)", lambda xs, n: sorted(xs)),
    "dedup": Skill("distinct", "xs = list(dict.fromkeys(xs))", lambda xs, n: list(dict.fromkeys(xs))),
    "sum": Skill("sum", "return sum(xs)", lambda xs, n: sum(xs), ends=True),
    "max": Skill("max", "return max(xs, default=0)", lambda xs, n: max(xs, default=0), ends=True),
    "min": Skill("min", "return min(xs, default=0)", lambda xs, n: min(xs, default=0), ends=True),
    "count": Skill("count", "return len(xs)", lambda xs, n: len(xs), ends=True),
}


@dataclass(frozen=True)
class Use:
    """A skill with its number (0 where it has none)."""

    skill: str
    number: int = 0

    @property
    def phrase(self) -> str:
        return SKILLS[self.skill].phrase.format(n=self.number)

    @property
    def code(self) -> str:
        return SKILLS[self.skill].code.format(n=self.number)

    @property
    def held_out(self) -> bool:
        return SKILLS[self.skill].numbered and _hash(f"{self.skill} {self.number}") % HELD_OUT_NUMBERS == 0


@dataclass(frozen=True)
class Problem:
    """A function: its skills, in the order in which they act."""

    uses: tuple[Use, ...]

    @property
    def level(self) -> int:
        return len(self.uses)

    @property
    def key(self) -> str:
        return "; ".join(use.phrase for use in self.uses)

    @property
    def split(self) -> Split | None:
        """None for a question that neither side may have: new only in a number, beside other skills."""
        if any(held_out(a.skill, b.skill) for a, b in itertools.combinations(self.uses, 2)):
            return "test"
        if any(use.held_out for use in self.uses):
            return "test" if self.level == 1 else None
        return "train"


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


@cache
def held_out(first: str, second: str) -> bool:
    """Whether no train question has these two skills in this order."""
    return _hash(f"{first}, {second}") % HELD_OUT_PAIRS == 0


def run(uses: Sequence[Use], numbers: Sequence[int]) -> Any:
    """What the function gives for a list: the skills' own meanings, one after the other."""
    value: Any = list(numbers)
    for use in uses:
        value = SKILLS[use.skill].apply(value, use.number)
    return value


def question(problem: Problem, chain: Chain) -> str:
    """The user's message; a long chain asks for a plan before the program."""
    return f"{SIGNATURE}\n{problem.key}" + ("\nplan first" if chain == "long" else "")


def program(problem: Problem) -> str:
    """The gold solution, without a fence."""
    lines = [SIGNATURE, *(f"    {use.code}" for use in problem.uses)]
    return "\n".join(lines if SKILLS[problem.uses[-1].skill].ends else [*lines, "    return xs"])


def solve(problem: Problem, chain: Chain) -> str:
    """The gold completion: the program in a fence, after a numbered plan if the chain is long."""
    plan = "".join(f"{number}. {use.phrase}\n" for number, use in enumerate(problem.uses, 1))
    return (plan if chain == "long" else "") + f"```python\n{program(problem)}\n```"


def neighbours(problem: Problem) -> Iterator[tuple[Use, ...]]:
    """What a slip would make of it: each skill left out, its number off by one, or its place taken by the next."""
    uses = problem.uses
    for at, use in enumerate(uses):
        yield (*uses[:at], *uses[at + 1 :])
        if SKILLS[use.skill].numbered:
            for number in (use.number - 1, use.number + 1):
                yield (*uses[:at], Use(use.skill, number), *uses[at + 1 :])
    for at in range(len(uses) - 1):
        if not SKILLS[uses[at + 1].skill].ends:
            yield (*uses[:at], uses[at + 1], uses[at], *uses[at + 2 :])


def drawn_list(rng: random.Random, problem: Problem, size: int | None = None) -> Numbers:
    """A list for a test, with numbers near those of the question and some that come again."""
    near = [n + d for use in problem.uses for n in (use.number, -use.number) for d in (-1, 0, 1)]
    length = size or rng.randint(1, LONGEST)
    numbers = [rng.choice(near) if rng.random() < 0.4 else rng.randint(LOWEST, HIGHEST) for _ in range(length)]
    return [rng.choice(numbers) if rng.random() < 0.2 else number for number in numbers]


@cache
def _pool() -> tuple[Numbers, ...]:
    """Lists that show whether two functions differ at all."""
    rng = random.Random("functions pool")  # noqa: S311 - reproducible, not secret
    lists = [[rng.randint(LOWEST, HIGHEST) for _ in range(rng.randint(1, LONGEST))] for _ in range(24)]
    return (*lists, *([*item, *item[::-1]] for item in lists[:6]))


def makes_sense(problem: Problem) -> bool:
    """Whether every skill matters and results differ from list to list."""
    uses, pool = problem.uses, _pool()
    full = [run(uses, numbers) for numbers in pool]
    if len({str(value) for value in full}) < 3:
        return False
    return all(
        any(run((*uses[:at], *uses[at + 1 :]), numbers) != result for numbers, result in zip(pool, full, strict=True))
        for at in range(len(uses))
    )


def cases(problem: Problem) -> list[dict[str, Any]]:
    """Calls with their results: enough that each neighbour that differs at all fails one. The same each time."""
    rng = random.Random(f"cases {problem.key}")  # noqa: S311 - reproducible, not secret
    chosen: list[Numbers] = [[], *(drawn_list(rng, problem) for _ in range(CASES - 1))]
    alive = [uses for uses in neighbours(problem) if all(_same(uses, problem, numbers) for numbers in chosen)]
    for _ in range(TRIES if alive else 0):
        numbers = drawn_list(rng, problem, LONGEST)
        left = [uses for uses in alive if _same(uses, problem, numbers)]
        if len(left) < len(alive):
            chosen.append(numbers)
            alive = left
    return [{"args": [numbers], "expected": run(problem.uses, numbers)} for numbers in chosen]


def _same(uses: Sequence[Use], problem: Problem, numbers: Numbers) -> bool:
    return bool(run(uses, numbers) == run(problem.uses, numbers))


def drawn(level: int, rng: random.Random) -> Problem:
    """Different skills in a random order, numbers from their ranges; only the last may end the function."""
    names = rng.sample([name for name, skill in SKILLS.items() if not skill.ends], level)
    if rng.random() < 0.4:
        names[-1] = rng.choice([name for name, skill in SKILLS.items() if skill.ends])
    return Problem(tuple(Use(name, rng.choice(SKILLS[name].numbers)) for name in names))


@cache  # a launcher asks again and again
def listed(level: int, split: Split) -> tuple[Problem, ...]:
    """All questions of level 1."""
    every = (Problem((Use(name, number),)) for name, skill in SKILLS.items() for number in skill.numbers)
    return tuple(problem for problem in every if problem.split == split and makes_sense(problem))


def capacity(level: int, split: Split) -> int:
    """Most distinct questions that may be asked for; of drawn levels a bound under which drawing ends soon."""
    if level == 1:
        return len(listed(1, split))
    return {2: 20_000, 3: 200_000}[level] if split == "train" else {2: 3_000, 3: 100_000}[level]


def row(problem: Problem, chain: Chain) -> Row:
    """One question with its gold, as fence and as bare text, and its tests."""
    return {
        "id": f"functions/{problem.key}",
        "prompt": [{"role": "user", "content": question(problem, chain)}],
        "completion": solve(problem, chain),
        "references": [program(problem)],
        "tests": {"kind": "call", "function": FUNCTION, "cases": cases(problem)},
        "source": "functions",
        "meta": {
            "level": problem.level,
            "k": problem.level,
            "skills": [use.skill for use in problem.uses],
            "language": "python",
            "function": FUNCTION,
            "signature": SIGNATURE,
            "split": "held_out" if problem.split == "test" else "train",
            "chain": chain,
        },
    }
