"""Seeded questions for the mini world, with gold completions: sums (arithmetic.py) and functions (functions.py).

- curriculum: {split: train, levels: {2: 500, 3: 500}, chain: short}
- curriculum: {subject: functions, split: test, levels: {1: 30, 2: 100}}
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import model_validator

from data_prep.core.step import Context, Output, Params, Step
from data_prep.families.mini import arithmetic, functions
from data_prep.families.mini.arithmetic import Chain, Row, Split

# A subject is a module. LEVELS; listed: all questions of a level up to ENUMERABLE; drawn: any one of a level above;
# makes_sense: whether a drawn question may be asked; capacity: most distinct questions; row: a question with its gold.
SUBJECTS: dict[str, Any] = {"arithmetic": arithmetic, "functions": functions}


class CurriculumParams(Params):
    """`levels` maps a level (1 to 5, of functions 1 to 3) to how many questions of it."""

    subject: Literal["arithmetic", "functions"] = "arithmetic"
    split: Split = "train"
    levels: dict[int, int]
    chain: Chain = "short"
    seed: int = 0
    references: bool = False  # of sums: give every right wording of the chain, each order of the terms, as a reference
    source: str | None = None  # in place of the subject, where a pipeline's sources are to be told apart

    @model_validator(mode="after")
    def _exist(self) -> Self:
        check(self.levels, self.split, subject=self.subject)
        if self.references and self.subject != "arithmetic":
            raise ValueError("references: only sums have several right wordings; functions come with their own")
        return self


class Curriculum(Step):
    """Source of generated questions; the same parameters give the same rows."""

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
    """Raises ValueError, in words for the user: a level that does not exist, a count that cannot be met."""
    known = SUBJECTS[subject]
    for level, count in levels.items():
        if level not in known.LEVELS:
            raise ValueError(f"no level {level}; levels are {known.LEVELS[0]} to {known.LEVELS[-1]}")
        if count < 1:
            raise ValueError(f"level {level} asks for {count} questions; leave the level out or ask for one or more")
        if distinct and count > (most := known.capacity(level, split)):
            raise ValueError(f"level {level} asks for {count} distinct {split} questions; there are {most}")


def questions(
    levels: Mapping[int, int],
    split: Split = "train",
    *,
    chain: Chain = "short",
    seed: int = 0,
    distinct: bool = True,
    subject: str = "arithmetic",
) -> list[Row]:
    """Rows in shuffled order: `levels` maps a level to how many. The same arguments give the same rows.

    A question that comes again (if not `distinct`) has `#2`, `#3` … in its id.

    Raises ValueError for a level that does not exist and for more questions than there are.
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
