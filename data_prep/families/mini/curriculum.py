"""Seeded questions for mini scale, with gold completions: sums (arithmetic.py) and functions (functions.py).

- curriculum: {split: train, levels: {2: 500, 3: 500}, chain: short}
- curriculum: {subject: functions, split: test, levels: {1: 30, 2: 100}}
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import model_validator

from data_prep.core.step import Context, Output, Params, Step
from data_prep.families.mini import arithmetic, functions
from data_prep.families.mini.arithmetic import Chain, Row, Split

# A subject is a module with LEVELS; listed: all questions of a level up to ENUMERABLE; drawn: a random one above it;
# makes_sense: whether a random question is usable; capacity: maximum of distinct questions; row: question and gold.
SUBJECTS: dict[str, Any] = {"arithmetic": arithmetic, "functions": functions}


class CurriculumParams(Params):
    """`levels` maps a level (1 to 5; functions: 1 to 3) to its number of questions."""

    subject: Literal["arithmetic", "functions"] = "arithmetic"
    split: Split = "train"
    levels: dict[int, int]
    chain: Chain = "short"
    seed: int = 0
    references: bool = False  # sums: every right wording of the chain is a reference
    source: str | None = None  # default: the subject; set it to distinguish sources

    @model_validator(mode="after")
    def _exist(self) -> Self:
        check(self.levels, self.split, subject=self.subject)
        if self.references and self.subject != "arithmetic":
            raise ValueError("references: only for sums, which have several right wordings; functions have their own")
        return self


class Curriculum(Step):
    """Source of generated questions; deterministic given the parameters."""

    kind = "curriculum"
    scope = "source"
    Params = CurriculumParams
    params: CurriculumParams

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        given = self.params
        for row in questions(given.levels, given.split, chain=given.chain, seed=given.seed, subject=given.subject):
            wordings = {"references": arithmetic.wordings(row)} if given.references else {}
            yield {**row, **wordings, "source": given.source or row["source"]}


def check(levels: Mapping[int, int], split: Split, distinct: bool = True, subject: str = "arithmetic") -> None:
    """Raises ValueError, with a message for the user, for an unknown level or a count that cannot be met."""
    known = SUBJECTS[subject]
    for level, count in levels.items():
        if level not in known.LEVELS:
            raise ValueError(f"no level {level}; levels are {known.LEVELS[0]} to {known.LEVELS[-1]}")
        if count < 1:
            raise ValueError(f"level {level} has count {count}; remove the level or request at least one question")
        if distinct and count > (most := known.capacity(level, split)):
            raise ValueError(f"level {level}: {count} distinct {split} questions requested, only {most} exist")


def questions(
    levels: Mapping[int, int],
    split: Split = "train",
    *,
    chain: Chain = "short",
    seed: int = 0,
    distinct: bool = True,
    subject: str = "arithmetic",
) -> list[Row]:
    """Rows in shuffled order; `levels` maps a level to its count. Deterministic given the arguments.

    Repetitions of a question (if not `distinct`) have `#2`, `#3` … in their ids.

    Raises ValueError for an unknown level or more questions than exist.
    """
    check(levels, split, distinct, subject)
    own = SUBJECTS[subject]
    rng = random.Random(f"{subject} {split} {seed}")  # noqa: S311 - reproducible, not secret
    problems = [
        problem for level in sorted(levels) for problem in drawn(own, level, split, levels[level], rng, distinct)
    ]
    rng.shuffle(problems)
    made = [own.row(problem, chain) for problem in problems]
    seen: dict[str, int] = {}
    for each in made:
        times = seen[each["id"]] = seen.get(each["id"], 0) + 1
        each["id"] += f"#{times}" if times > 1 else ""
    return made


def drawn(subject: Any, level: int, split: Split, count: int, rng: random.Random, distinct: bool) -> list[Any]:
    """`count` problems of one level and split."""
    if level <= subject.ENUMERABLE:
        pool = subject.listed(level, split)
        return rng.sample(pool, count) if distinct else rng.choices(pool, k=count)
    seen: set[Any] = set()
    problems: list[Any] = []
    while len(problems) < count:
        problem = subject.drawn(level, rng)
        if problem.split == split and not (distinct and problem in seen) and subject.makes_sense(problem):
            seen.add(problem)
            problems.append(problem)
    return problems
