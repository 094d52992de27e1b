"""Records of programming benchmarks as rows: their columns as prompt, tests and gold.

A task says `programs: apps` in place of a column map; local files of the same columns are read alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from data_prep.core.step import Drop, Row
from data_prep.sources.shapes import as_text
from data_prep.sources.tasks import Programs
from rewards.code.suites import from_apps, from_humaneval, from_livecodebench, from_mbpp, read
from rewards.errors import RewardError

Record = Mapping[str, Any]

# The columns that a record must have; of MBPP its sanitized config calls the task `prompt`, the full one `text`.
COLUMNS: dict[Programs, tuple[str, ...]] = {
    "humaneval": ("prompt", "test", "entry_point"),
    "mbpp": ("test_list",),
    "apps": ("question", "input_output"),
    "taco": ("question", "input_output"),
    "livecodebench": ("question_content", "public_test_cases", "private_test_cases"),
}
IDS = ("task_id", "question_id", "problem_id", "id")
LABELS = ("difficulty", "platform", "contest_date", "url")  # kept in meta


def missing(programs: Programs, found: Record) -> list[str]:
    """Columns that a file of that shape would have and this one lacks."""
    absent = [name for name in COLUMNS[programs] if name not in found]
    return absent + (["prompt"] if programs == "mbpp" and not {"prompt", "text"} & set(found) else [])


def convert(record: Record, programs: Programs) -> Row | Drop:
    """The record as a row, or why it is none."""
    given = next((record[name] for name in IDS if record.get(name) is not None), "")
    row_id = str(as_text(given))
    try:
        row = _SHAPES[programs](record)
    except RewardError as problem:
        return Drop("tests cannot be read", row_id, str(problem), bad=True)
    except _NoTests:
        return Drop("no tests", row_id)
    except _NoPrompt as problem:
        return Drop("no prompt", row_id, f"column {problem}", bad=True)
    return row if not row_id else {"id": row_id, **row}


class _NoTests(Exception):
    """The record says that it has none; nothing is wrong with it, but it cannot be judged."""


class _NoPrompt(Exception):
    """The column that should hold the question does not."""


def _humaneval(record: Record) -> Row:
    """The prompt is a program's beginning; the gold is all of it."""
    prompt, tests, solution = _question(record, "prompt"), from_humaneval(record), record.get("canonical_solution")
    gold = {"references": [prompt + solution]} if isinstance(solution, str) else {}
    asked = f"```python\n{prompt.rstrip()}\n```"
    return {"prompt": _user(asked), **gold, "tests": tests, "meta": _meta(tests["function"])}


def _mbpp(record: Record) -> Row:
    """The task with its tests, as Austin et al. 2021 (arXiv 2108.07732, section 3) ask it: they name the function."""
    tests, prompt = from_mbpp(record), _question(record, "prompt", "text")
    code = record.get("code")
    gold = {"references": [code]} if isinstance(code, str) else {}
    asked = "\n".join([prompt.strip(), "", "It must pass these tests:", "", *record["test_list"]])
    return {"prompt": _user(asked), **gold, "tests": tests, "meta": _meta()}


def _apps(record: Record) -> Row:
    """APPS's columns, which are TACO's too. Of many solutions the first is the gold."""
    if record["input_output"] in (None, "", "{}"):
        raise _NoTests
    tests = from_apps(record)
    if not tests["cases"]:
        raise _NoTests
    return _contest(record, "question", tests) | _first(record.get("solutions"))


def _livecodebench(record: Record) -> Row:
    """Public and private tests; the metadata names a function where one is to be written."""
    return _contest(record, "question_content", from_livecodebench(record))


def _contest(record: Record, column: str, tests: dict[str, Any]) -> Row:
    """A problem of a contest, with the code that it wants to be continued."""
    function = read(tests).function  # a test that cannot be run is found here, before anything is generated
    question, starter = _question(record, column).strip(), record.get("starter_code")
    if isinstance(starter, str) and starter.strip():
        question += f"\n\nContinue from this code:\n\n```python\n{starter.rstrip()}\n```"
    labels = {name: record[name] for name in LABELS if isinstance(record.get(name), str) and record[name]}
    return {"prompt": _user(question), "tests": tests, "meta": _meta(function) | labels}


def _first(solutions: Any) -> dict[str, list[str]]:
    """The first of solutions, a list or its JSON text; a question without one is a question too."""
    if isinstance(solutions, str):
        try:
            solutions = json.loads(solutions)
        except (ValueError, RecursionError):
            return {}
    first = solutions[0] if isinstance(solutions, list) and solutions else None
    return {"references": [first]} if isinstance(first, str) else {}


_SHAPES: dict[Programs, Callable[[Record], Row]] = {
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "apps": _apps,
    "taco": _apps,
    "livecodebench": _livecodebench,
}


def _question(record: Record, *columns: str) -> str:
    found = next((record[name] for name in columns if record.get(name)), None)
    if not isinstance(found, str) or not found.strip():
        raise _NoPrompt(" or ".join(columns))
    return found


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _meta(function: str | None = None) -> dict[str, str]:
    return {"language": "python", **({"function": function} if function else {})}
