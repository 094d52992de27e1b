"""Parses and validates model replies: an exercise, a critique, test cases."""

import ast
import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo, field_validator

from data_prep.families.skill_mix.cases import Case, read_cases
from data_prep.families.skill_mix.signatures import Language, read
from data_prep.inference.api.objects import FENCE, NoObject, extract_object
from rewards.code.cpp.declaration import Declaration

MOST_PROBLEMS = 8

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20_000)]


class ReplyError(ValueError):
    """An unusable reply; `problems` are fed back to the model."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems[:MOST_PROBLEMS])


class _Reply(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)  # extra keys are ignored

    @classmethod
    def read(cls, text: str, language: Language = "cpp") -> Self:
        """Parse a reply with code in `language`, without running anything. Raises ReplyError."""
        try:
            return cls.model_validate(extract_object(text), context=language)
        except NoObject as error:
            raise ReplyError([str(error)]) from error
        except ValidationError as error:
            details = [(detail["loc"], detail["msg"].removeprefix("Value error, ")) for detail in error.errors()]
            raise ReplyError([f"{'.'.join(map(str, place))}: {message}" for place, message in details]) from error


class Draft(_Reply):
    """An exercise with consistent parts."""

    function_name: Text
    function_signature: Text
    function_docstring: Text
    problem_statement: Text
    solution: Text

    @field_validator("function_signature")
    @classmethod
    def _names_the_function(cls, text: str, info: ValidationInfo) -> str:
        name = read(text, info.context or "cpp").function
        if name != (given := info.data.get("function_name")):
            raise ValueError(f"it declares {name!r}, but function_name is {given!r}")
        return text

    @field_validator("solution")
    @classmethod
    def _defines_the_function(cls, text: str, info: ValidationInfo) -> str:
        fence = FENCE.fullmatch(text)  # models put a code fence even inside JSON
        code, name = fence[1] if fence else text, info.data.get("function_name", "")
        if info.context == "python":
            _check_python(code, name)
        elif not re.search(rf"\b{re.escape(name)}\s*\(", code):
            raise ValueError(f"no function {name!r} in it")
        elif re.search(r"\bmain\s*\(", code):
            raise ValueError("it must not have a main function")
        return code


def _check_python(code: str, function: str) -> None:
    try:
        body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError) as error:
        raise ValueError(f"not Python: {error}") from error
    if not any(isinstance(node, ast.FunctionDef) and node.name == function for node in body):
        raise ValueError(f"no function {function!r} at its top level")


class Critique(_Reply):
    """A reviewer's verdict, with the changes to make unless it passes."""

    verdict: Literal["pass", "revise"]
    feedback: str = Field("", validate_default=True)

    @field_validator("feedback")
    @classmethod
    def _says_what_to_change(cls, text: str, info: ValidationInfo) -> str:
        if info.data.get("verdict") == "revise" and not text.strip():
            raise ValueError('say what to change, or give the verdict "pass"')
        return text


class _Cases(_Reply):
    cases: list[Any] = Field(min_length=1, max_length=200)


def read_test_cases(text: str, signature: Declaration, least: int) -> list[Case]:
    """Cases that fit the signature, with distinct arguments. Raises ReplyError."""
    given, problems = read_cases(_Cases.read(text).cases, signature)
    first: dict[str, Case] = {}
    for case in given:
        first.setdefault(json.dumps(case["args"]), case)
    if len(first) < least:
        problems.append(f"cases: {len(first)} usable cases with distinct arguments; at least {least} are needed")
    if problems:
        raise ReplyError(problems)
    return list(first.values())
