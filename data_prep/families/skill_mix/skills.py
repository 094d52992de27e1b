"""Skills, the tuples of skills that questions are written for, and which tuples are held out.

- skill_tuples: {skills: skills/cpp.txt, k: [1, 2], per_tuple: 5, language: cpp, seed: 1}
- skill_tuples: {skills: [a.txt, b.txt], exclusions: not_together.json, k: [3], n: 100, held_out: 0.1}

A skills file has one skill per line, `name | description`; `#` starts a comment line. Exclusions are JSON,
`{"skill": ["skills that it is never paired with"]}`. A row has an id and, in meta, k, skills, descriptions, language,
split and questions (how many `synthesize` writes). `held_out` is a share of the skill pairs; every tuple that contains
a held-out pair is held out, so the share grows with tuple size. Single-skill tuples are all for training.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import Field, PositiveInt, TypeAdapter, ValidationError

from data_prep.core.fingerprint import file_hash
from data_prep.core.step import Context, Output, Params, Row, Step
from data_prep.core.validation import ONE_OR_MORE
from data_prep.errors import DataError, nearest, os_errors
from data_prep.families.skill_mix.signatures import Language
from data_prep.sources.files import read_json

Pair = tuple[str, str]
SkillTuple = tuple[str, ...]
SkillsT = TypeVar("SkillsT", bound=SkillTuple)

MOST_TUPLES = 1_000_000  # that may be enumerated
_EXCLUSIONS = TypeAdapter(dict[str, list[str]])


class SkillTuplesParams(Params):
    """Which skills, the tuple sizes, and the number of questions per tuple."""

    skills: Annotated[tuple[str, ...], ONE_OR_MORE] = Field(min_length=1)  # files
    exclusions: str | None = None  # a JSON file
    language: Language
    k: Annotated[tuple[PositiveInt, ...], ONE_OR_MORE] = Field((1, 2), min_length=1)
    n: PositiveInt | dict[int, PositiveInt] | None = None  # tuples per k, or a map from k; default: all
    per_tuple: int = Field(1, ge=1)  # questions
    held_out: float = Field(0.0, ge=0, le=0.9)  # share of skill pairs kept for evaluation
    seed: int = 0


class SkillTuples(Step):
    """Source of a row per tuple."""

    kind = "skill_tuples"
    scope = "source"
    unkeyed: ClassVar[tuple[str, ...]] = ("skills", "exclusions")  # the files' content is in the fingerprint
    Params = SkillTuplesParams
    params: SkillTuplesParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """Content hashes of the files. Raises DataError for errors in them, before anything runs."""
        self._read(base)
        given = self.params.exclusions
        skills = [file_hash(path) for path in self._files(base)]
        return {"skills": skills, "exclusions": file_hash(base / given) if given else None}

    def reads(self, base: Path) -> str:
        return ", ".join(map(str, self._files(base)))

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        p = self.params
        described, excluded = self._read(ctx.base)
        kept = held_out_pairs((pair for pair in pairs_of(described) if pair not in excluded), p.held_out, p.seed)
        for k in sorted(set(p.k)):
            n = p.n.get(k) if isinstance(p.n, dict) else p.n
            for skills in tuples(list(described), k, excluded, n, p.seed):
                yield self._row(skills, described, "held_out" if is_held_out(skills, kept) else "train")

    def _row(self, skills: SkillTuple, described: dict[str, str], split: str) -> Row:
        language, descriptions = self.params.language, [described[name] for name in skills]
        meta = {"k": len(skills), "skills": list(skills), "descriptions": descriptions, "language": language}
        meta |= {"split": split, "questions": self.params.per_tuple}
        return {"id": f"{language}/{'+'.join(skills).replace(' ', '_')}", "source": "skill_mix", "meta": meta}

    def _read(self, base: Path) -> tuple[dict[str, str], frozenset[Pair]]:
        skills = read_skills(self._files(base))
        if max(self.params.k) > len(skills):
            raise DataError(f"{self.reads(base)}: {len(skills)} skills, fewer than k = {max(self.params.k)}")
        given = self.params.exclusions
        return skills, read_exclusions(base / given, skills) if given else frozenset()

    def _files(self, base: Path) -> list[Path]:
        return [base / name for name in self.params.skills]


def read_skills(paths: Sequence[Path]) -> dict[str, str]:
    """The skills of one or more files in alphabetical order, with descriptions. Raises DataError naming the line."""
    described: dict[str, str] = {}
    places: dict[str, str] = {}  # by name without case and spacing, in which ids do not differ
    for path in paths:
        with os_errors(path):
            try:
                lines = path.read_text("utf-8-sig").splitlines()
            except UnicodeDecodeError as error:
                raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            name, _, description = (part.strip() for part in line.partition("|"))
            folded = name.casefold().replace(" ", "_").replace("-", "_")
            if fault := _fault(name, description, places.get(folded)):
                raise DataError(f"{path}:{number}: {fault}")
            described[name], places[folded] = description, f"{path}:{number}"
    if not described:
        raise DataError(f"{', '.join(map(str, paths))}: no skills found; write one per line: `name | description`")
    return dict(sorted(described.items()))


def _fault(name: str, description: str, earlier: str | None) -> str:
    """The error in a line of a skills file, "" if there is none."""
    if not name:
        return "no name before the |; write `name | description`"
    if "," in name or "+" in name:
        return f"{name!r} has a comma or a plus, which separate the skills of a question; rename it"
    if not description:
        return f"{name!r} has no description; write `{name} | what a question about it asks for`"
    return f"{name!r} is already in {earlier}; remove one of them" if earlier else ""


def read_exclusions(path: Path, names: Iterable[str]) -> frozenset[Pair]:
    """Pairs of skills that no tuple may contain, each sorted. Raises DataError for an unknown name."""
    known = set(names)
    try:
        given = _EXCLUSIONS.validate_python(read_json(path), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ": ".join(map(str, (path, *first["loc"])))
        raise DataError(f'{where}: {first["msg"]}; write {{"skill": ["skill", …]}}') from error
    for name, others in given.items():
        if unknown := [excluded for excluded in (name, *others) if excluded not in known]:
            raise DataError(f"{path}: {name}: no skill {unknown[0]!r} in the skills files{nearest(unknown[0], known)}")
        if name in others:
            raise DataError(f"{path}: {name} excludes itself; remove the skill from the skills file instead")
    return frozenset(pair for name, others in given.items() for other in others for pair in pairs_of((name, other)))


def tuples(names: Sequence[str], k: int, excluded: frozenset[Pair], n: int | None, seed: int) -> list[SkillTuple]:
    """Sorted tuples of `k` distinct skills without excluded pairs: all, or a seeded sample of `n`.

    Raises DataError if there are too many to enumerate.
    """
    if (total := math.comb(len(names), k)) > MOST_TUPLES:
        raise DataError(f"{total:,} tuples of {k} out of {len(names)} skills, more than {MOST_TUPLES:,}: lower k")
    fitting = [combination for combination in combinations(sorted(names), k) if not is_held_out(combination, excluded)]
    return fitting if n is None else sorted(_drawn(fitting, n, f"draw:{seed}"))


def held_out_pairs(pairs: Iterable[Pair], share: float, seed: int) -> frozenset[Pair]:
    """The pairs held out for evaluation: those with the lowest hashes, a `share` of all and at least one."""
    every = set(pairs)
    return frozenset(_drawn(every, max(1, round(share * len(every))), f"held out:{seed}") if share else ())


def is_held_out(skills: SkillTuple, pairs: frozenset[Pair]) -> bool:
    """Whether a tuple contains one of these pairs; such a tuple of any size is never trained on."""
    return not pairs.isdisjoint(pairs_of(skills))


def pairs_of(skills: Iterable[str]) -> Iterator[Pair]:
    """All pairs of the skills, each sorted."""
    return combinations(sorted(skills), 2)


def _drawn(candidates: Iterable[SkillsT], count: int, salt: str) -> list[SkillsT]:
    """The candidates with the lowest hashes. Each purpose has its own salt, or it would draw the held-out tuples."""

    def rank(skills: SkillsT) -> str:
        return hashlib.sha256(f"{salt}:{json.dumps(skills)}".encode()).hexdigest()

    return sorted(candidates, key=rank)[:count]
