"""What a model replies, taken out of its text and checked: an exercise, a critique, test cases."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from data_prep.families.skill_mix.cases import TestCase, read_cases
from data_prep.families.skill_mix.signatures import Language, Signature, SignatureError, read
from data_prep.inference.api.objects import FENCE, NoObject, found_object

MOST_PROBLEMS = 8

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]
T = TypeVar("T")
Read = Callable[[str], T]


class ReplyError(ValueError):
    """A reply that cannot be used; `problems` are for the model that wrote it."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems[:MOST_PROBLEMS])


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)  # more keys than asked for are the model's thoughts


ReplyT = TypeVar("ReplyT", bound=_Reply)


class Draft(_Reply):
    """An exercise."""

    function_name: Text
    function_signature: Text
    function_docstring: Text
    problem_statement: Text
    solution: Text


class Critique(_Reply):
    """A reviewer's verdict, with what to change unless it passes."""

    verdict: Literal["pass", "revise"]
    feedback: str = ""


class _Cases(_Reply):
    cases: list[Any] = Field(min_length=1, max_length=200)


def _checked(model: type[ReplyT], text: str) -> ReplyT:
    """The reply as `model`. Raises ReplyError."""
    try:
        return model.model_validate(found_object(text))
    except NoObject as error:
        raise ReplyError([str(error)]) from error
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)
        raise ReplyError([f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in details]) from error


def read_draft(text: str, language: Language) -> tuple[Draft, Signature]:
    """An exercise whose parts fit together; nothing is run. Raises ReplyError."""
    draft = _checked(Draft, text)
    if fence := FENCE.fullmatch(draft.solution):  # models put one around code even within JSON
        draft = draft.model_copy(update={"solution": fence.group(1)})
    try:
        signature = read(draft.function_signature, language)
    except SignatureError as error:
        raise ReplyError([f"function_signature: {error}"]) from error
    name = draft.function_name
    problems = (_faults_of_cpp if language == "cpp" else _faults_of_python)(draft.solution, name)
    if name != signature.name:
        problems.insert(0, f"function_signature: it is of {signature.name!r}, and function_name is {name!r}")
    if problems:
        raise ReplyError(problems)
    return draft, signature


def _faults_of_cpp(solution: str, function: str) -> list[str]:
    faults = []
    if not re.search(rf"\b{re.escape(function)}\s*\(", solution):
        faults.append(f"solution: no function {function!r} in it")
    if re.search(r"\bmain\s*\(", solution):
        faults.append("solution: it must not have a main function")
    return faults


def _faults_of_python(solution: str, function: str) -> list[str]:
    try:
        body = ast.parse(solution).body
    except (SyntaxError, ValueError, RecursionError) as error:
        return [f"solution: not Python: {error}"]
    defined = any(isinstance(node, ast.FunctionDef) and node.name == function for node in body)
    return [] if defined else [f"solution: no function {function!r} at its top level"]


def read_critique(text: str) -> Critique:
    """A verdict; one that asks for a revision says which. Raises ReplyError."""
    critique = _checked(Critique, text)
    if critique.verdict == "revise" and not critique.feedback.strip():
        raise ReplyError(['feedback: say what to change, or give the verdict "pass"'])
    return critique


def read_test_cases(text: str, signature: Signature, least: int) -> list[TestCase]:
    """Cases that fit the signature, no two with the same arguments. Raises ReplyError."""
    given, problems = read_cases(_checked(_Cases, text).cases, signature)
    first: dict[str, TestCase] = {}
    for case in given:
        first.setdefault(json.dumps(case.args), case)
    cases = list(first.values())
    if len(cases) < least:
        problems.append(f"cases: {len(cases)} usable ones with arguments of their own; at least {least} are needed")
    if problems:
        raise ReplyError(problems)
    return cases
