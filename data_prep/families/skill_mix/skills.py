"""Skills, tuples of them, and which tuples are held out.

A skills file has one skill a line, `name | description`; `#` starts a comment line. Exclusions are JSON,
`{"skill": ["skills that it is not paired with"]}`.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from data_prep.errors import DataError, explain, nearest
from data_prep.sources.files import read_json

Pair = tuple[str, str]
SkillTuple = tuple[str, ...]

MOST_DENSE = 1_000_000  # tuples that may be listed; more must be drawn
FAULTS_SHOWN = 5


@dataclass(frozen=True)
class Skill:
    """name: as questions carry it. description: one sentence, shown to the model that writes questions."""

    name: str
    description: str


def read_skills(paths: Sequence[Path]) -> list[Skill]:
    """Skills of one or more files, sorted by name. Raises DataError that names each line at fault."""
    found: dict[str, tuple[Skill, str]] = {}
    faults: list[str] = []
    for path in paths:
        for number, line in enumerate(_text(path).splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            where = f"{path}:{number}"
            skill, fault = _skill(line)
            earlier = found.get(_folded(skill.name))
            if earlier and not fault:
                fault = f"{skill.name!r} stands in {earlier[1]} already; remove one of them"
            if fault:
                faults.append(f"{where}: {fault}")
            else:
                found[_folded(skill.name)] = skill, where
    if faults:
        more = [f"… and {len(faults) - FAULTS_SHOWN} more such lines"] if len(faults) > FAULTS_SHOWN else []
        raise DataError("\n".join([*faults[:FAULTS_SHOWN], *more]))
    if not found:
        raise DataError(f"{', '.join(map(str, paths))}: no skill in it; write one a line: `name | description`")
    return sorted((skill for skill, _ in found.values()), key=lambda skill: skill.name)


def _skill(line: str) -> tuple[Skill, str]:
    """The skill of a line, and what is wrong with it."""
    name, _, description = (part.strip() for part in line.partition("|"))
    skill = Skill(name, description)
    if not name:
        return skill, "no name before the |; write `name | description`"
    if "," in name or "+" in name:
        return skill, f"{name!r} has a comma or a plus, which separate the skills of a question; rename it"
    if not description:
        return skill, f"{name!r} has no description; write `{name} | what a question about it asks for`"
    return skill, ""


def _folded(name: str) -> str:
    """A name as it is compared: two that differ in case or spacing would be one in questions' ids."""
    return name.casefold().replace(" ", "_").replace("-", "_")


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}") from error
    except OSError as error:
        raise explain(error, path) from error


def read_exclusions(path: Path, names: Iterable[str]) -> frozenset[Pair]:
    """Pairs of skills that no tuple holds, each in sorted order. Raises DataError for an unknown name."""
    known = set(names)
    given = read_json(path)
    if not isinstance(given, dict):
        raise DataError(f'{path}: expected {{"skill": ["skill", …]}}, found a JSON {type(given).__name__}')
    pairs = set()
    for name, others in given.items():
        if not isinstance(others, list) or not all(isinstance(one, str) for one in others):
            raise DataError(f"{path}: {name}: expected a list of skills, found {str(others)[:60]}")
        for one in (name, *others):
            if one not in known:
                raise DataError(f"{path}: {name}: no skill {one!r} in the skills files{nearest(one, known)}")
        if name in others:
            raise DataError(f"{path}: {name} excludes itself; leave the skill out of the skills file instead")
        pairs |= {_pair(name, other) for other in others}
    return frozenset(pairs)


def tuples(names: Sequence[str], k: int, excluded: frozenset[Pair], n: int | None, seed: int) -> list[SkillTuple]:
    """Tuples of `k` distinct skills in sorted order, without excluded pairs: all, or `n` that the seed draws.

    Raises DataError when there are too many to list and no `n`.
    """
    names = sorted(names)
    total = math.comb(len(names), k)
    if total > MOST_DENSE:
        if n is None:
            raise DataError(f"{total:,} tuples of {k} out of {len(names)} skills: give `n`, so many to draw")
        return sorted(_drawn(names, k, excluded, n, seed))
    fitting = [one for one in combinations(names, k) if not excluded.intersection(combinations(one, 2))]
    if n is not None and n < len(fitting):
        fitting = sorted(sorted(fitting, key=lambda one: _rank(f"draw:{seed}", one))[:n])
    return fitting


def _drawn(names: Sequence[str], k: int, excluded: frozenset[Pair], n: int, seed: int) -> set[SkillTuple]:
    """`n` tuples out of too many to list; fewer where exclusions leave hardly any."""
    rng = random.Random(f"{seed}:{k}")  # noqa: S311 - no secret depends on it
    found: set[SkillTuple] = set()
    for _ in range(100 * n):
        if len(found) == n:
            break
        one = tuple(sorted(rng.sample(names, k)))
        if not excluded.intersection(combinations(one, 2)):
            found.add(one)
    return found


def held_out_pairs(pairs: Iterable[Pair], share: float, seed: int) -> frozenset[Pair]:
    """The pairs kept for evaluation: `share` of them, at least one, those whose hash comes first."""
    every = sorted(set(pairs), key=lambda one: _rank(f"held out:{seed}", one))
    return frozenset(every[: max(1, round(share * len(every)))] if share else ())


def is_held_out(skills: SkillTuple, pairs: frozenset[Pair]) -> bool:
    """Whether a tuple holds a held-out pair: it is then never trained on, however large it is."""
    return any(pair in pairs for pair in pairs_of(skills))


def pairs_of(skills: Sequence[str]) -> Iterator[Pair]:
    """Each two of a tuple's skills, in sorted order."""
    return combinations(sorted(skills), 2)


def by_size(wanted: int | Mapping[int, int] | None, k: int) -> int | None:
    """How many tuples of `k` are wanted, None for all: one number for every size, or a number for each."""
    return wanted.get(k) if isinstance(wanted, Mapping) else wanted


def _pair(a: str, b: str) -> Pair:
    return (a, b) if a < b else (b, a)


def _rank(salt: str, skills: SkillTuple) -> str:
    """A place in a shuffle; another salt for another purpose, or what is drawn would be what is held out."""
    return hashlib.sha256(f"{salt}:{json.dumps(skills)}".encode()).hexdigest()
