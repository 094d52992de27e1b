"""What the builders of training data share: the scored samples of each question, in one order, told apart by code.

A builder's parameter `column` says what is trained on: `code`, the completion's last fence alone, the one that the
reward `code` has run; or `raw_output`, all that was generated, the chain of thought included.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

from pydantic import field_validator

from data_prep.core.step import Drop, Params, Row
from data_prep.steps.select import prompt_of
from rewards import OUTCOMES
from rewards.code.fences import LANGUAGES, blocks, choose
from rewards.extract import cut_short
from rewards.thinking import thinking

Column = Literal["code", "raw_output"]

# Modules of this package and of the rewards' whose code decides what a builder makes.
OF_A_SAMPLE = ("sample", "finish_reason", "tokens", "score_details")  # fields of meta
_DIGITS = re.compile(r"([0-9]+)")


class BuilderParams(Params):
    """outcome: samples that ended otherwise are left out: a grader's fault or a cut-off text proves nothing."""

    column: Column = "raw_output"
    outcome: tuple[str, ...] = ("scored",)

    @field_validator("outcome", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("outcome")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for outcome in value:
            if outcome not in OUTCOMES:
                raise ValueError(f"no outcome {outcome!r}; outcomes are {', '.join(OUTCOMES)}")
        return value


@dataclass(frozen=True, eq=False)
class Candidate:
    """One sample. text: what would be trained on."""

    row: Row
    text: str

    @cached_property
    def score(self) -> float:
        return float(self.row["score"])

    @cached_property
    def id(self) -> str:
        """The row's id, after the run that made it where samples of several runs may be called alike."""
        by = self.row["meta"].get("generated_by")
        return f"{by}:{self.row['id']}" if by else str(self.row["id"])

    @cached_property
    def said(self) -> str:
        """Equal for samples that answer alike: the code, or the whole text where there is none, without blank ends."""
        return "\n".join(line.rstrip() for line in (code_of(self.row) or self.text).strip().splitlines())

    @cached_property
    def order(self) -> tuple[Any, ...]:
        """The place among the question's samples: as they were drawn, whatever order the rows come in."""
        sample = self.row.get("meta", {}).get("sample")
        return sample if isinstance(sample, int) else 0, natural(self.id), self.text


def grouped(rows: Sequence[Row], given: BuilderParams) -> tuple[dict[str, list[Candidate]], list[Drop]]:
    """The candidates of each question, questions and candidates in an order of their own, and the samples left out."""
    groups: dict[str, list[Candidate]] = defaultdict(list)
    drops: list[Drop] = []
    for row in rows:
        found = _candidate({**row, "meta": row.get("meta", {})}, given)
        mine = groups[prompt_of(row)]
        if isinstance(found, Drop):
            drops.append(found)
        else:
            mine.append(found)
    ordered = {name: sorted(groups[name], key=lambda one: one.order) for name in sorted(groups, key=natural)}
    for name, samples in ordered.items():
        twice = [b for a, b in pairwise(samples) if a.id == b.id]
        drops += (Drop("id of another sample", one.id, "ids say where a row comes from", bad=True) for one in twice)
        ordered[name] = [one for one in samples if one not in twice]
    return ordered, sorted(drops, key=lambda drop: (natural(drop.row_id), drop.reason, drop.detail))


def _candidate(row: Row, given: BuilderParams) -> Candidate | Drop:
    row_id = str(row["id"])
    if "score" not in row:
        return Drop("missing score", row_id, "put `score` before this step", bad=True)
    if row.get("outcome", "scored") not in given.outcome:
        return Drop(f"outcome {row['outcome']}", row_id)
    if given.column == "raw_output":
        return Candidate(row, row["completion"]) if row["completion"].strip() else Drop("nothing said", row_id)
    code = code_of(row)
    return Drop("no code", row_id) if code is None else Candidate(row, fenced(code, language_of(row)))


def distinct(found: Iterable[Candidate]) -> tuple[list[Candidate], list[Drop]]:
    """The first of each group that answers alike; where such a group has different scores, none of it.

    The same code that passes once and fails once was judged by a test that is not to be trusted.
    """
    alike: dict[str, list[Candidate]] = defaultdict(list)
    for one in found:
        alike[one.said].append(one)
    kept: list[Candidate] = []
    drops: list[Drop] = []
    for group in alike.values():
        if len({one.score for one in group}) > 1:
            drops += (Drop("same code, other score", one.id) for one in group)
        else:
            kept.append(group[0])
            drops += (Drop("same code as another sample", one.id, f"as {group[0].id}") for one in group[1:])
    return kept, drops


def about(row: Row, **more: Any) -> dict[str, Any]:
    """The question's own meta, without one sample's marks, and what is new."""
    return {name: value for name, value in row.get("meta", {}).items() if name not in OF_A_SAMPLE} | more


def language_of(row: Row) -> str:
    """The language of a row's programs: what its meta says, else its tests; Python where neither does."""
    named = row.get("meta", {}).get("language") or row.get("tests", {}).get("language")
    if isinstance(named, str) and named:
        return next((name for name, marks in LANGUAGES.items() if named.lower() in marks), named.lower())
    return "cpp" if row.get("tests", {}).get("kind") == "gtest" else "python"


def code_of(row: Row) -> str | None:
    """The code in a row's completion that the reward `code` runs, None where there is none."""
    language = language_of(row)
    block = choose(
        blocks(thinking("think").answer_of(row["completion"])),
        language if language in LANGUAGES else "python",
        "prefer" if language in LANGUAGES else "any",
        unclosed=not cut_short(row),
    )
    return block.code if block else None


def fenced(code: str, language: str) -> str:
    """Code as one Markdown block, its marks longer than any run of them in the code."""
    marks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
    return f"{marks}{language}\n{code.strip(chr(10))}\n{marks}"


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that puts p2 before p10."""
    parts: Iterator[str] = (part for part in _DIGITS.split(text) if part)
    return tuple((0, int(part), part) if part[0] in "0123456789" else (1, 0, part) for part in parts)
