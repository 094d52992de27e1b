"""Records of programming benchmarks as rows: HumanEval's and MBPP's columns as prompt, tests and gold.

A task says `programs: humaneval` in place of a column map; local files of the same columns are read alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_prep.step import Drop, Row
from data_prep.tasks import Programs
from rewards.base import RewardError
from rewards.programs.tests import from_humaneval, from_mbpp

Record = Mapping[str, Any]

# The columns that a record must have; of MBPP its sanitized config calls the task `prompt`, the full one `text`.
COLUMNS: dict[str, tuple[str, ...]] = {
    "humaneval": ("prompt", "test", "entry_point"),
    "mbpp": ("test_list",),
}


def missing(programs: Programs, found: Record) -> list[str]:
    """Columns that a file of that shape would have and this one lacks."""
    absent = [name for name in COLUMNS[programs] if name not in found]
    return absent + (["prompt"] if programs == "mbpp" and not {"prompt", "text"} & set(found) else [])


def convert(record: Record, programs: Programs) -> Row | Drop:
    """The record as a row, or why it is none."""
    row_id = str(record.get("task_id", ""))
    try:
        row = _humaneval(record) if programs == "humaneval" else _mbpp(record)
    except RewardError as problem:
        return Drop("tests cannot be read", row_id, str(problem), bad=True)
    return row if isinstance(row, Drop) or not row_id else {"id": row_id, **row}


def _humaneval(record: Record) -> Row | Drop:
    """The prompt is a program's beginning; the gold is all of it."""
    tests, prompt, solution = from_humaneval(record), record.get("prompt"), record.get("canonical_solution")
    if not isinstance(prompt, str) or not prompt.strip():
        return Drop("no prompt", str(record.get("task_id", "")), "column prompt", bad=True)
    gold = {"references": [prompt + solution]} if isinstance(solution, str) else {}
    asked = f"```python\n{prompt.rstrip()}\n```"
    return {"prompt": _user(asked), **gold, "tests": tests, "meta": _meta(tests["function"])}


def _mbpp(record: Record) -> Row | Drop:
    """The task with its tests, as Austin et al. 2021 (arXiv 2108.07732, section 3) ask it: they name the function."""
    tests, prompt = from_mbpp(record), record.get("prompt") or record.get("text")
    if not isinstance(prompt, str) or not prompt.strip():
        return Drop("no prompt", str(record.get("task_id", "")), "column prompt or text", bad=True)
    code = record.get("code")
    gold = {"references": [code]} if isinstance(code, str) else {}
    asked = "\n".join([prompt.strip(), "", "It must pass these tests:", "", *record["test_list"]])
    return {"prompt": _user(asked), **gold, "tests": tests, "meta": _meta()}


def _user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def _meta(function: str | None = None) -> dict[str, str]:
    return {"language": "python", **({"function": function} if function else {})}
