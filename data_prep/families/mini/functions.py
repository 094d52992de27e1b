"""Seeded code questions for mini scale: short Python functions on a list of integers, composed of skills.

A level-k question lists k skills in order of application ("add 3; keep even; sum"); its gold solution has one line of
Python per skill. Expected test results come from this module's own interpreter of the skills: no program is run
here. Questions with a redundant skill are rejected, and the tests distinguish a question from its neighbours (a skill
omitted, two swapped, a number off by one). Pairs of skills and numbers are held out by a hash: no train question has
a held-out pair in that order or a held-out number; every held-out question has one. Standard library only.
"""

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
ENUMERABLE = 1  # up to this level all questions are enumerated; above it they are sampled
FUNCTION, SIGNATURE = "f", "def f(xs):"
HELD_OUT_PAIRS, HELD_OUT_NUMBERS = 6, 8  # one in 6 pairs, one in 8 numbers
CASES = 6  # minimum, including the empty list
LOWEST, HIGHEST, LONGEST = -60, 99, 9  # range of the numbers in a test's list; its maximum length
TRIES = 15  # more lists tried against neighbours that still pass


@dataclass(frozen=True)
class Skill:
    """One operation of a function. `phrase` and `code` may contain {n}, one of `numbers`."""

    phrase: str
    code: str
    apply: Apply
    numbers: range = range(1)
    ends: bool = False  # reduces the list to a number, so it comes last

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
    """A skill with its number (0 if it has none)."""

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
    """A function: its skills in order of application."""

    uses: tuple[Use, ...]

    @property
    def level(self) -> int:
        return len(self.uses)

    @property
    def key(self) -> str:
        return "; ".join(use.phrase for use in self.uses)

    @property
    def split(self) -> Split | None:
        """None for a question that belongs to neither split: its only held-out part is a number among other skills."""
        if any(held_out(a.skill, b.skill) for a, b in itertools.combinations(self.uses, 2)):
            return "test"
        if any(use.held_out for use in self.uses):
            return "test" if self.level == 1 else None
        return "train"


def _hash(text: str) -> int:
    return zlib.crc32(text.encode())


@cache
def held_out(first: str, second: str) -> bool:
    """Whether this ordered pair of skills is held out from train."""
    return _hash(f"{first}, {second}") % HELD_OUT_PAIRS == 0


def run(uses: Sequence[Use], numbers: Sequence[int]) -> Any:
    """The function's result for a list, by interpreting its skills in order."""
    value: Any = list(numbers)
    for use in uses:
        value = SKILLS[use.skill].apply(value, use.number)
    return value


def question(problem: Problem, chain: Chain) -> str:
    """The user message; for a long chain it asks for a plan before the program."""
    return f"{SIGNATURE}\n{problem.key}" + ("\nplan first" if chain == "long" else "")


def program(problem: Problem) -> str:
    """The gold solution without a code fence."""
    lines = [SIGNATURE, *(f"    {use.code}" for use in problem.uses)]
    return "\n".join(lines if SKILLS[problem.uses[-1].skill].ends else [*lines, "    return xs"])


def solve(problem: Problem, chain: Chain) -> str:
    """The gold completion: the program in a code fence, after a numbered plan if the chain is long."""
    plan = "".join(f"{number}. {use.phrase}\n" for number, use in enumerate(problem.uses, 1))
    return (plan if chain == "long" else "") + f"```python\n{program(problem)}\n```"


def neighbours(problem: Problem) -> Iterator[tuple[Use, ...]]:
    """Near misses: each skill omitted, its number off by one, or swapped with the next skill."""
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
    """A random list for a test, with numbers near the question's and some repeated ones."""
    near = [n + d for use in problem.uses for n in (use.number, -use.number) for d in (-1, 0, 1)]
    length = size or rng.randint(1, LONGEST)
    numbers = [rng.choice(near) if rng.random() < 0.4 else rng.randint(LOWEST, HIGHEST) for _ in range(length)]
    return [rng.choice(numbers) if rng.random() < 0.2 else number for number in numbers]


@cache
def _pool() -> tuple[Numbers, ...]:
    """Lists for deciding whether two functions differ."""
    rng = random.Random("functions pool")  # noqa: S311 - reproducible, not secret
    lists = [[rng.randint(LOWEST, HIGHEST) for _ in range(rng.randint(1, LONGEST))] for _ in range(24)]
    return (*lists, *([*item, *item[::-1]] for item in lists[:6]))


def makes_sense(problem: Problem) -> bool:
    """Whether every skill matters and results differ between lists."""
    uses, pool = problem.uses, _pool()
    full = [run(uses, numbers) for numbers in pool]
    if len({str(value) for value in full}) < 3:
        return False
    return all(
        any(run((*uses[:at], *uses[at + 1 :]), numbers) != result for numbers, result in zip(pool, full, strict=True))
        for at in range(len(uses))
    )


def cases(problem: Problem) -> list[dict[str, Any]]:
    """Calls with results, enough that every neighbour that differs fails at least one. Deterministic."""
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
    """A random question: distinct skills in random order with random numbers; only the last may reduce to a number."""
    names = rng.sample([name for name, skill in SKILLS.items() if not skill.ends], level)
    if rng.random() < 0.4:
        names[-1] = rng.choice([name for name, skill in SKILLS.items() if skill.ends])
    return Problem(tuple(Use(name, rng.choice(SKILLS[name].numbers)) for name in names))


@cache  # called repeatedly by the launcher
def listed(level: int, split: Split) -> tuple[Problem, ...]:
    """All questions of level 1."""
    every = (Problem((Use(name, number),)) for name, skill in SKILLS.items() for number in skill.numbers)
    return tuple(problem for problem in every if problem.split == split and makes_sense(problem))


def capacity(level: int, split: Split) -> int:
    """Maximum number of distinct questions; for sampled levels a bound below which sampling ends soon."""
    if level == 1:
        return len(listed(1, split))
    return {2: 20_000, 3: 200_000}[level] if split == "train" else {2: 3_000, 3: 100_000}[level]


def row(problem: Problem, chain: Chain) -> Row:
    """A question as a row, with its gold solution (fenced and bare) and its tests."""
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
