"""Samples that the original's generate_solutions.py wrote, put to the questions that they answer.

- questions: {path: questions.json}
- generations: {path: training_data/cache/Llama3.1-8B-Instruct/core_N=50.json}

The file is {question id: {system, user, responses: [{raw_output, code}]}}; one that the original has scored
({solution: {raw_output, code}, score, message}) is read too, without its scores. What is judged is raw_output:
its `code` is the first fence, of a chain of thought often a part only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from data_prep.core.fingerprint import file_hash
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError, nearest
from data_prep.sources.files import read_json
from data_prep.steps.candidates import fenced, language_of


class GenerationsParams(Params):
    """`path` names the file of generations; the questions are the step's input."""

    path: str = Field(min_length=1)


class Generations(Step):
    """Question rows in, a row per sample out."""

    kind = "generations"
    scope = "whole"
    needs: ClassVar[tuple[str, ...]] = ("prompt", "tests")
    unkeyed: ClassVar[tuple[str, ...]] = ("path",)  # its content is in the fingerprint
    growth = 50.0
    Params = GenerationsParams
    params: GenerationsParams

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The file's content. Raises DataError when it is missing."""
        path = base / self.params.path
        if not path.is_file():
            raise DataError(f"no file {path}: `path` names a file of generations")
        return {"file": file_hash(path)}

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Samples in the file's order."""
        path = ctx.base / self.params.path
        questions = {str(row["id"]): row for row in rows}
        found = read_generations(path)
        for name, answered in found.items():
            if name not in questions:
                detail = f"{name!r} is in the generations and not in the questions{nearest(name, questions)}"
                yield Drop("no such question", name, detail[:300], bad=True)
            elif not isinstance(answered, dict) or not isinstance(answered.get("responses"), list):
                yield Drop("no responses", name, f"{path.name}: {name!r} has no list `responses`", bad=True)
            else:
                yield from _samples(questions[name], answered)
        if silent := [name for name in questions if name not in found]:
            yield Drop("questions without responses", "", f"{len(silent):,}: {', '.join(silent)}"[:200])


def read_generations(path: Path) -> dict[str, Any]:
    """The document. Raises DataError when it is none of this kind."""
    found = read_json(path)
    if not isinstance(found, dict):
        shape = "{question id: {system, user, responses: [{raw_output, code}]}}"
        raise DataError(f"{path}: a JSON {type(found).__name__}, not {shape}; rows of samples are .jsonl")
    documents: dict[str, Any] = found
    return documents


def _samples(question: Row, answered: dict[str, Any]) -> Iterator[Row | Drop]:
    asked = [
        {"role": role, "content": answered[role]} for role in ("system", "user") if isinstance(answered.get(role), str)
    ]
    prompt = asked if any(one["role"] == "user" for one in asked) else question["prompt"]
    for number, response in enumerate(answered["responses"]):
        name = f"{question['id']}/{number}"
        text = _said(response, language_of(question))
        if text is None:
            yield Drop("no raw_output", name, f"responses[{number}] of {question['id']!r} has no text", bad=True)
            continue
        about = {"prompt_id": question["id"], "sample": number}
        meta = {**question.get("meta", {}), **about}
        yield {**question, "id": name, "prompt": prompt, "completion": text, "meta": meta}


def _said(response: Any, language: str) -> str | None:
    """What the model said; where only code was kept, that."""
    if isinstance(response, dict) and isinstance(response.get("solution"), dict):
        response = response["solution"]
    if not isinstance(response, dict):
        return None
    if isinstance(raw := response.get("raw_output"), str):
        return raw
    return fenced(code, language) if isinstance(code := response.get("code"), str) else None
