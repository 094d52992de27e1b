"""Questions from a file: our JSON lines, a finished pipeline's rows, or the original's questions.json as it is.

- questions: {path: questions.json}                                    asked directly
- questions: {path: sample/questions.jsonl, prompt: cot, language: python, split: held_out, held_out: 0.2}

Fields of a record: skill_mix/questions.py. A split that the file holds stays; questions without one are split by
their skill pairs, a `held_out` share of which, and all questions that hold such a pair, are held out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from data_prep.core.fingerprint import file_hash
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.families.skill_mix.prompts import Style, content_hash
from data_prep.families.skill_mix.questions import Question, read_question
from data_prep.families.skill_mix.signatures import Language
from data_prep.families.skill_mix.skills import held_out_pairs, is_held_out, pairs_of
from data_prep.sources.files import read_records

Named = tuple[str, dict[str, Any]]


class QuestionsParams(Params):
    """Which file, how its questions are asked, and which of them."""

    path: str = Field(min_length=1)  # .json or .jsonl
    prompt: Style = "direct"
    language: Language | None = None  # only these; all by default
    default_language: Language = "cpp"  # of a record that does not say
    split: Literal["train", "held_out", "all"] = "all"
    held_out: float = Field(0.1, ge=0, le=0.9)  # share of skill pairs, for questions without a split of their own
    seed: int = 0
    limit: int | None = Field(None, ge=1)  # the first ones


class Questions(Step):
    """Source of question rows; a record at fault is a drop that names its id and field."""

    kind = "questions"
    scope = "source"
    unkeyed: ClassVar[tuple[str, ...]] = ("path",)  # its content is in the fingerprint
    growth = 4.0
    Params = QuestionsParams
    params: QuestionsParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The file and the prompts by content. Raises DataError when the file is missing."""
        path = base / self.params.path
        if not path.is_file():
            raise DataError(f"no file {path}: `path` names a file of questions, .json or .jsonl")
        return {"file": file_hash(path), "suffix": path.suffix, "prompts": content_hash()}

    def reads(self, base: Path) -> str:
        """The file."""
        return str(base / self.params.path)

    def source_bytes(self, base: Path) -> int:
        """Its size."""
        return (base / self.params.path).stat().st_size

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Rows in the file's order."""
        p = self.params
        found = [self._question(one) for one in read_named(ctx.base / p.path)]
        unsplit = [one for one in found if isinstance(one, Question) and not one.split]
        held = held_out_pairs((pair for one in unsplit for pair in pairs_of(one.skills)), p.held_out, p.seed)
        seen: set[str] = set()
        taken = 0
        for one in found:
            output = one if isinstance(one, Drop) else self._row(one, held, seen)
            if not isinstance(output, Drop) and p.limit is not None and taken == p.limit:
                output = Drop("beyond limit", output["id"])
            taken += not isinstance(output, Drop)
            yield output

    def _question(self, one: Named | Drop) -> Question | Drop:
        return one if isinstance(one, Drop) else read_question(one[1], one[0], self.params.default_language)

    def _row(self, one: Question, held: frozenset[tuple[str, str]], seen: set[str]) -> Row | Drop:
        p = self.params
        if one.id in seen:
            return Drop("duplicate id", one.id, f"question {one.id} stands in the file twice", bad=True)
        seen.add(one.id)
        if p.language and one.language != p.language:
            return Drop("another language", one.id, one.language)
        split = one.split or ("held_out" if is_held_out(one.skills, held) else "train")
        if p.split not in ("all", split):
            return Drop("another split", one.id, split)
        return replace(one, split=split).as_row(p.prompt)


def read_named(path: Path) -> Iterator[Named | Drop]:
    """Records with their names: an object's keys, or else each record's id or number. Raises DataError."""
    if path.suffix not in (".json", ".jsonl"):
        raise DataError(f"{path}: questions are read from .json and .jsonl, not {path.suffix or 'this'!r}")
    if path.suffix == ".json" and (keyed := _keyed(path)) is not None:
        for key, value in keyed.items():
            if isinstance(value, dict):
                yield key, value
            else:
                yield Drop("not an object", key, f"question {key}: a JSON {type(value).__name__}", bad=True)
        return
    for number, record in enumerate(read_records(path), 1):
        yield (record if isinstance(record, Drop) else (str(record.get("id") or record.get("qid") or number), record))


def _keyed(path: Path) -> dict[str, Any] | None:
    """The questions of one object by their names, as the original writes them; None for any other file."""
    try:
        value = json.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None  # JSON lines, which are common under this name, or what `read_records` says is wrong
    return value if isinstance(value, dict) and not {"function_name", "meta"} & value.keys() else None
