"""Tuples of skills to ask questions about.

- skill_tuples: {skills: skills/cpp.txt, k: [1, 2], per_tuple: 5, language: cpp, seed: 1}
- skill_tuples: {skills: [a.txt, b.txt], exclusions: not_together.json, k: [3], n: 100, held_out: 0.1}

A row has an id and, in meta, k, skills, descriptions, language, split and questions (how many `synthesize` makes of
it). `held_out` is a share of the skill pairs; a tuple that holds such a pair is held out too, so of larger tuples it
is a larger share. Tuples of one skill are all for training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator

from data_prep.core.fingerprint import file_hash
from data_prep.core.step import Context, Output, Params, Row, Step
from data_prep.core.validation import ONE_OR_MORE
from data_prep.errors import DataError
from data_prep.families.skill_mix.skills import (
    Skill,
    by_size,
    held_out_pairs,
    is_held_out,
    read_exclusions,
    read_skills,
    tuples,
)


class SkillTuplesParams(Params):
    """Which skills, how many of them together, and how many questions about each tuple."""

    skills: Annotated[tuple[str, ...], ONE_OR_MORE] = Field(min_length=1)  # files; see skill_mix/skills.py
    exclusions: str | None = None  # a JSON file
    language: Literal["python", "cpp"]
    k: Annotated[tuple[int, ...], ONE_OR_MORE] = Field((1, 2), min_length=1)
    n: int | dict[int, int] | None = None  # tuples of each k, or by k; all of them where absent
    per_tuple: int = Field(1, ge=1)  # questions
    held_out: float = Field(0.0, ge=0, le=0.9)  # share of skill pairs kept for evaluation
    seed: int = 0

    @field_validator("k")
    @classmethod
    def _sizes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1 or len(set(value)) < len(value):
            raise ValueError("give numbers of skills from 1 up, each once, such as [1, 2]")
        return value

    @field_validator("n")
    @classmethod
    def _counts(cls, value: int | dict[int, int] | None) -> int | dict[int, int] | None:
        if value is not None and min([value] if isinstance(value, int) else value.values(), default=1) < 1:
            raise ValueError("give at least 1 tuple, or leave n out for all of them")
        return value


class SkillTuples(Step):
    """Source of one row per tuple."""

    kind = "skill_tuples"
    scope = "source"
    unkeyed: ClassVar[tuple[str, ...]] = ("skills", "exclusions")  # their content is in the fingerprint
    Params = SkillTuplesParams
    params: SkillTuplesParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The files by content. Raises DataError for what is wrong in them: it is told before anything runs."""
        self._read(base)
        given = self.params.exclusions
        return {
            "skills": [file_hash(path) for path in self._files(base)],
            "exclusions": file_hash(base / given) if given else None,
        }

    def reads(self, base: Path) -> str:
        """The skills files, by name."""
        return ", ".join(map(str, self._files(base)))

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Tuples by size, in alphabetical order."""
        skills, excluded = self._read(ctx.base)
        p, names = self.params, [skill.name for skill in skills]
        described = {skill.name: skill.description for skill in skills}
        pairs = (pair for pair in combinations(names, 2) if pair not in excluded)
        kept = held_out_pairs(pairs, p.held_out, p.seed)
        for k in sorted(p.k):
            for one in tuples(names, k, excluded, by_size(p.n, k), p.seed):
                yield self._row(one, described, "held_out" if is_held_out(one, kept) else "train")

    def _row(self, one: tuple[str, ...], described: dict[str, str], split: str) -> Row:
        p = self.params
        meta = {
            "k": len(one),
            "skills": list(one),
            "descriptions": [described[name] for name in one],
            "language": p.language,
            "split": split,
            "questions": p.per_tuple,
        }
        return {"id": f"{p.language}/{'+'.join(one).replace(' ', '_')}", "source": "skill_mix", "meta": meta}

    def _read(self, base: Path) -> tuple[list[Skill], frozenset[tuple[str, str]]]:
        skills = read_skills(list(self._files(base)))
        names = [skill.name for skill in skills]
        if max(self.params.k) > len(names):
            raise DataError(f"{self.reads(base)}: {len(names)} skills, fewer than the {max(self.params.k)} of k")
        given = self.params.exclusions
        return skills, read_exclusions(base / given, names) if given else frozenset()

    def _files(self, base: Path) -> Iterator[Path]:
        return (base / name for name in self.params.skills)
