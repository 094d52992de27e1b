"""Records of multiple-choice benchmarks as rows: the options as lettered lines, the letter of the right one as answer.

A task says in `choices` which columns hold what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from data_prep.core.step import Drop, Row
from data_prep.sources.shapes import as_text, pick
from data_prep.sources.tasks import Choices, Columns

Record = Mapping[str, Any]


def missing(choices: Choices, found: Record) -> list[str]:
    """Columns that are named and not there."""
    return [name for name in choices.columns if name not in found]


def convert(record: Record, choices: Choices, beside: Columns) -> Row | Drop:
    """The record as a row, or why it is none; `beside` maps its id and meta."""
    row_id = as_text(pick(record, beside.get("id", "id")))
    row_id = row_id if isinstance(row_id, str) else ""
    question = record.get(choices.question)
    if not isinstance(question, str) or not question.strip():
        return Drop("no prompt", row_id, f"column {choices.question}", bad=True)
    found = _listed(record, choices) if choices.options else _apart(record, choices, row_id or question)
    if isinstance(found, str):
        return Drop("no choices", row_id, found, bad=True)
    options, answer = found
    lines = [f"{letter}) {option}" for letter, option in zip(ascii_uppercase, options, strict=False)]
    meta = {name: pick(record, path) for name, path in beside.items() if name.startswith("meta.")}
    row: Row = {
        "prompt": [{"role": "user", "content": "\n".join([question.strip(), "", *lines])}],
        "answer": ascii_uppercase[answer],
    }
    if row_id:
        row = {"id": row_id, **row}
    if kept := {name.removeprefix("meta."): value for name, value in meta.items() if value is not None}:
        row["meta"] = kept
    return row


Found = tuple[list[str], int] | str  # options and the place of the right one, or what is wrong


def _listed(record: Record, choices: Choices) -> Found:
    options, answer = record.get(str(choices.options)), record.get(str(choices.answer))
    if not isinstance(options, list):
        return f"column {choices.options} is {type(options).__name__}, not a list"
    options = [as_text(option) for option in options]
    if fault := _fault(options):
        return fault
    if isinstance(answer, str) and len(answer.strip()) == 1:
        answer = ascii_uppercase.find(answer.strip().upper())
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(options):
        return f"column {choices.answer} names none of {len(options)} options: {record.get(str(choices.answer))!r:.60}"
    return options, answer


def _apart(record: Record, choices: Choices, key: str) -> Found:
    """In an order that hangs on the row alone: neither on its neighbours, nor on what was loaded before."""
    options = [as_text(record.get(name)) for name in (str(choices.correct), *choices.wrong)]
    if fault := _fault(options):
        return fault
    order = sorted(range(len(options)), key=lambda place: hashlib.sha256(f"{place}:{key}".encode()).digest())
    return [options[place] for place in order], order.index(0)


def _fault(options: list[Any]) -> str:
    if not 2 <= len(options) <= len(ascii_uppercase):
        return f"{len(options)} options"
    empty = [place for place, one in enumerate(options) if not isinstance(one, str) or not one.strip()]
    return f"option {empty[0] + 1} is {options[empty[0]]!r:.60}" if empty else ""
