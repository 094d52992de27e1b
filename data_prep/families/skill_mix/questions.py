"""A question, read from a record of our files or of the original's questions.json, and as a row.

A record names its fields as the original does (function_name, function_signature, function_docstring,
problem_statement, gold_solution, unit_tests) or as our rows' meta does (function, signature, docstring, statement),
with the gold in `gold_solution`, `solution` or `references`, and its tests as `unit_tests` (source text), `tests`
(a suite, rewards/code/suites.py) or `cases` (data, skill_mix/cases.py). GoogleTest source becomes calls where it can
(skill_mix/assertions.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_prep.core.step import Drop, Row
from data_prep.errors import nearest
from data_prep.families.skill_mix.assertions import cases
from data_prep.families.skill_mix.cases import CaseError, read_case, suite
from data_prep.families.skill_mix.cpp_text import NotConvertible
from data_prep.families.skill_mix.prompts import Style, chat
from data_prep.families.skill_mix.signatures import Language, SignatureError, read
from rewards.code.cpp.declaration import DeclarationError, read_declaration
from rewards.code.suites import read as read_suite
from rewards.errors import RewardError

SOURCE = "skill_mix"
LANGUAGES: Mapping[str, Language] = {
    "python": "python", "python3": "python", "py": "python",
    "cpp": "cpp", "c++": "cpp", "cc": "cpp", "cxx": "cpp", "c++17": "cpp",
}  # fmt: skip
# Field -> its names, the first of which a message names.
NAMES: Mapping[str, tuple[str, ...]] = {
    "function": ("function_name", "function"),
    "signature": ("function_signature", "signature"),
    "docstring": ("function_docstring", "docstring"),
    "statement": ("problem_statement", "statement"),
    "gold": ("gold_solution", "solution"),
}


@dataclass(frozen=True)
class Question:
    """gold: bare code. tests: as a row has them. split: "train", "held_out", or "" where its file does not say."""

    id: str
    language: Language
    skills: tuple[str, ...]
    function: str
    signature: str
    docstring: str
    statement: str
    gold: str
    tests: dict[str, Any]
    split: str = ""

    def as_row(self, style: Style) -> Row:
        """The row that asks it in that style."""
        return {
            "id": self.id,
            "prompt": chat(style, self.language, self.statement, self.signature, self.docstring),
            "references": [self.gold],
            "tests": self.tests,
            "source": SOURCE,
            "meta": {
                "k": len(self.skills),
                "skills": list(self.skills),
                "language": self.language,
                "function": self.function,
                "signature": self.signature,
                "docstring": self.docstring,
                "statement": self.statement,
                "split": self.split,
            },
        }


def read_question(record: Mapping[str, Any], name: str, language: str = "cpp") -> Question | Drop:
    """The question of a record called `name`; `language` holds where the record does not say one."""
    flat = {**record, **meta} if isinstance(meta := record.get("meta"), dict) else dict(record)
    if flat.get("verification_status") is False and not flat.get("unit_tests"):
        return Drop("unverified", name, "the original's own verification_status is false, and there are no tests")
    given = str(flat.get("language") or language)
    if given.lower() not in LANGUAGES:
        return Drop("unknown language", name, f"{given!r}{nearest(given.lower(), LANGUAGES)}", bad=True)
    found: dict[str, str] = {}
    for field, names in NAMES.items():
        value = _gold(flat) if field == "gold" else next((flat[one] for one in names if flat.get(one)), None)
        if value is None:
            return Drop(f"missing {names[0]}", name, f"question {name}: no {' or '.join(names)}", bad=True)
        if not isinstance(value, str) or not value.strip():
            return Drop(f"{names[0]} is not a text", name, f"question {name}: {type(value).__name__}", bad=True)
        found[field] = value
    skills = _skills(flat.get("skills"))
    if not skills:
        return Drop("missing skills", name, f"question {name}: a list of names, or names with commas between", bad=True)
    tests = _tests(flat, LANGUAGES[given.lower()], found)
    if not tests:
        return Drop("missing unit_tests", name, f"question {name}: no unit_tests, tests or cases", bad=True)
    if isinstance(tests, str):
        return Drop("unusable tests", name, f"question {name}: {tests}", bad=True)
    split = flat.get("split")
    return Question(
        id=name,
        language=LANGUAGES[given.lower()],
        skills=skills,
        tests=tests,
        split=split if split in ("train", "held_out") else "",
        **found,
    )


def _gold(flat: Mapping[str, Any]) -> Any:
    references = flat.get("references")
    first = references[0] if isinstance(references, list) and references else None
    return next((one for one in (flat.get("gold_solution"), flat.get("solution"), first) if one), None)


def _skills(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        given = given.split(",")
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        return ()
    return tuple(one.strip() for one in given if one.strip())


def _tests(flat: Mapping[str, Any], language: Language, found: Mapping[str, str]) -> dict[str, Any] | str:
    """A suite, empty where there are no tests, or what is wrong with them."""
    if (tests := flat.get("tests")) is None and (source := flat.get("unit_tests")):
        if not isinstance(source, str):
            return f"unit_tests are {type(source).__name__}, not a text"
        kind = "gtest" if language == "cpp" else "asserts"
        tests = {"kind": kind, "language": language, "source": source}
        tests = (_calls(source, found) if language == "cpp" else None) or tests
    if tests is None and flat.get("cases"):
        made = _from_cases(flat["cases"], language, found)
        if isinstance(made, str):
            return made
        tests = made
    if tests is None:
        return {}
    try:
        suite_ = read_suite(tests)
    except RewardError as problem:
        return str(problem)
    if suite_.language != language:
        return f"the tests are {suite_.language}'s, and the question's language is {language}"
    return tests if isinstance(tests, dict) else "tests are not an object"


def _calls(source: str, found: Mapping[str, str]) -> dict[str, Any] | None:
    """GoogleTest source as calls, None where it says more or less than values of calls."""
    structs = [
        match.group()
        for match in re.finditer(r"\bstruct\s+(\w+)\s*\{[^{}()]*\};", found["gold"])
        if re.search(rf"\b{match[1]}\b", found["signature"])
    ]
    declaration = "\n".join([*structs, f"{found['signature'].rstrip(';{ ')};"])
    try:
        declared = read_declaration(declaration)
        if declared.function != found["function"]:
            return None
        made = cases(source, declared)
    except (DeclarationError, NotConvertible):
        return None
    return {
        "kind": "call", "language": "cpp", "declaration": declaration, "function": found["function"], "cases": made
    }  # fmt: skip


def _from_cases(given: Any, language: Language, found: Mapping[str, str]) -> dict[str, Any] | str:
    if not isinstance(given, Sequence) or isinstance(given, str):
        return "cases are not a list"
    try:
        signature = read(found["signature"], language)
    except SignatureError as error:
        return f"function_signature: {error}"
    read_cases = []
    for number, case in enumerate(given):
        try:
            read_cases.append(read_case(case, signature))
        except CaseError as error:
            return f"cases[{number}]: {error}"
    return suite(found["function"], signature, read_cases, language)
