"""Shared by the builders of training data: the scored samples of each question, ordered and without duplicates.

A builder's `column` selects the training text: `code`, only the completion's last code fence, which the reward `code`
has run; or `raw_output`, the whole completion including the chain of thought. `identity` says when two samples
are duplicates: by text, by program (the default for rows with tests) or by the answer that the reward
extracted. Only one question's samples are in memory at a time.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import Field

from data_prep.core.rows import META_OF_A_COMPLETION, prompt_of, without
from data_prep.core.step import Drop, Params, Row, Step
from data_prep.core.validation import Outcomes
from rewards.code.fences import LANGUAGES, blocks, choose, language_named
from rewards.extract import cut_short
from rewards.thinking import thinking

_DIGITS = re.compile(r"([0-9]+)")


class BuilderParams(Params):
    """outcome: samples with other outcomes are dropped: a grader error or a truncated text is no evidence."""

    column: Literal["code", "raw_output"] = "raw_output"
    identity: Literal["text", "program", "answer"] | None = None  # null: program for rows with tests, else text
    outcome: Outcomes = ("scored",)
    min_samples: int = Field(1, ge=1)  # usable samples that a question needs


B = TypeVar("B", bound=BuilderParams)


class Builder(Step[B]):
    """Base of steps that build training data from scored samples."""

    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt",)
    present: ClassVar[tuple[str, ...]] = ("completion",)


@dataclass(frozen=True, eq=False)
class Candidate:
    """One sample. text: the training text."""

    row: Row
    text: str

    @cached_property
    def score(self) -> float:
        return float(self.row["score"])

    @cached_property
    def id(self) -> str:
        """The row's id, prefixed with its run if ids of several runs may collide."""
        by = self.row["meta"].get("generated_by")
        return f"{by}:{self.row['id']}" if by else str(self.row["id"])

    @cached_property
    def order(self) -> tuple[Any, ...]:
        """Sort key: the order of sampling, independent of the input order."""
        sample = self.row.get("meta", {}).get("sample")
        return sample if isinstance(sample, int) else 0, natural(self.id), self.text

    def content(self, identity: str | None) -> tuple[str, str]:
        """(kind, value) that duplicates share; kind is program, answer or text."""
        text: Any = None
        if identity == "program" or (identity is None and "tests" in self.row):
            text, kind = code_of(self.row), "code"
        elif identity == "answer":
            text, kind = self.row["meta"].get("score_details", {}).get("answer"), "answer"
        if not isinstance(text, str):
            text, kind = self.text, "text"
        return kind, "\n".join(line.rstrip() for line in text.strip().splitlines())


def by_question(rows: Sequence[Row]) -> Iterator[tuple[str, list[int]]]:
    """Questions in natural order of their ids, each with the indices of its rows."""
    places: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        places[prompt_of(row)].append(place)
    for name in sorted(places, key=natural):
        yield name, places[name]


def grouped(rows: Sequence[Row], given: BuilderParams) -> Iterator[tuple[str, list[Candidate], list[Drop]]]:
    """Each question with its usable samples in sampling order (none if they are too few), and the drops."""
    for name, places in by_question(rows):
        made = [candidate(rows[place], given) for place in places]
        samples = sorted((sample for sample in made if isinstance(sample, Candidate)), key=lambda sample: sample.order)
        drops = [sample for sample in made if isinstance(sample, Drop)]
        twice = [b for a, b in pairwise(samples) if a.id == b.id]
        drops += (Drop("id of another sample", one.id, "ids say where a row comes from", bad=True) for one in twice)
        samples = [sample for sample in samples if sample not in twice]
        if len(samples) < given.min_samples:
            drops.append(Drop("question with too few samples", name, f"{len(samples)} of {given.min_samples}"))
            samples = []
        yield name, samples, sorted(drops, key=lambda drop: (natural(drop.row_id), drop.reason, drop.detail))


def candidate(row: Row, given: BuilderParams) -> Candidate | Drop:
    """The sample in a row, or why it is unusable."""
    row, row_id = {**row, "meta": row.get("meta", {})}, str(row["id"])
    if "score" not in row:
        return Drop("missing score", row_id, "put `score` before this step", bad=True)
    if row.get("outcome", "scored") not in given.outcome:
        return Drop(f"outcome {row['outcome']}", row_id)
    if given.column == "raw_output":
        completion = row["completion"]
        return Candidate(row, completion) if completion.strip() else Drop("empty completion", row_id)
    code = code_of(row)
    return Drop("no code", row_id) if code is None else Candidate(row, fenced(code, language_of(row)))


def distinct(samples: Sequence[Candidate], identity: str | None) -> tuple[list[Candidate], list[Drop]]:
    """The first of each group of duplicates; none if a program has different scores.

    If the same program passes once and fails once, its tests are unreliable.
    """
    same: dict[tuple[str, str], list[Candidate]] = defaultdict(list)
    for sample in samples:
        same[sample.content(identity)].append(sample)
    kept: list[Candidate] = []
    drops: list[Drop] = []
    for (kind, _), group in same.items():
        if kind == "code" and len({sample.score for sample in group}) > 1:
            drops += (Drop("same code, other score", sample.id) for sample in group)
        else:
            kept.append(group[0])
            drops += (Drop(f"same {kind} as another sample", sample.id, f"as {group[0].id}") for sample in group[1:])
    return kept, drops


def pair(chosen: Candidate, rejected: Candidate, **more: Any) -> Row:
    """The question with both completions; meta records the samples' ids."""
    named = {"chosen_id": chosen.id, "rejected_id": rejected.id, "rejected_score": rejected.row["score"]}
    return {
        **chosen.row,
        "id": f"{chosen.id}>{rejected.id}",
        "completion": chosen.text,
        "rejected": rejected.text,
        "meta": about(chosen.row, **named, **more),
    }


def about(row: Row, **more: Any) -> dict[str, Any]:
    """The question's meta without fields of a sample, plus `more`."""
    return without(row.get("meta", {}), META_OF_A_COMPLETION) | more


def language_of(row: Row) -> str:
    """The language of a row's programs: from its meta, else its tests, else Python."""
    named = row.get("meta", {}).get("language") or row.get("tests", {}).get("language")
    if isinstance(named, str) and named:
        return language_named(named) or named.lower()
    return "cpp" if row.get("tests", {}).get("kind") == "gtest" else "python"


def code_of(row: Row) -> str | None:
    """The code in a row's completion that the reward `code` runs, None if there is none."""
    language = language_of(row)
    block = choose(
        blocks(thinking("think").answer_of(row["completion"])),
        language if language in LANGUAGES else "python",
        "prefer" if language in LANGUAGES else "any",
        unclosed=not cut_short(row),
    )
    return block.code if block else None


def fenced(code: str, language: str) -> str:
    """Code in a Markdown fence that is longer than any run of backticks in the code."""
    marks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    return f"{marks}{language}\n{code.strip(chr(10))}\n{marks}"


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key that puts p2 before p10."""
    parts: Iterator[str] = (part for part in _DIGITS.split(text) if part)
    return tuple((0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts)
