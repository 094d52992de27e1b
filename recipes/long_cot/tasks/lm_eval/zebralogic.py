"""Logic grid puzzles: the prompt, and the share of cells that the answer's last JSON object has right."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.errors import DataError


def prompt(doc: Mapping[str, Any]) -> str:
    """The puzzle, and the form of its solution. Raises DataError for a data set without solutions."""
    houses = _cells(doc)
    form = {house: dict.fromkeys(cells, "...") for house, cells in houses.items()}
    if any(set(cell) <= set("_ ") for cells in houses.values() for cell in cells.values()):
        raise DataError(f"ZebraLogic: puzzle {doc['id']} has no solution: take a data set with solutions")
    return (
        f"{doc['puzzle']}\n\nFind the one arrangement that agrees with every clue. End your answer with a JSON object "
        f"of this form, the values spelled as in the puzzle:\n\n{json.dumps(form, indent=1)}"
    )


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The metrics of one puzzle; cells are compared without case."""
    given = _last_object(results[0])
    given = given["solution"] if isinstance(given.get("solution"), dict) else given
    right = [
        isinstance(given.get(house), dict) and _same(given[house].get(name), value)
        for house, cells in _cells(doc).items()
        for name, value in cells.items()
    ]
    return {"puzzle_accuracy": float(all(right)), "cell_accuracy": sum(right) / len(right)}


def _cells(doc: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """House to its values by the column's name."""
    header, rows = doc["solution"]["header"], doc["solution"]["rows"]
    return {f"House {row[0]}": dict(zip(header[1:], row[1:], strict=True)) for row in rows}


def _same(given: object, value: str) -> bool:
    return isinstance(given, str) and given.strip().lower() == value.strip().lower()


def _last_object(text: str) -> dict[str, Any]:
    """The JSON object between the last pair of outermost braces, or an empty one: ZeroEval's rule."""
    depth, start, last = 0, 0, ""
    for brace in re.finditer("[{}]", text):
        if brace[0] == "{":
            start = start if depth else brace.start()
            depth += 1
        elif depth:
            depth -= 1
            last = last if depth else text[start : brace.end()]
    try:
        return dict(json.loads(last, strict=False))  # line breaks within strings pass
    except (ValueError, RecursionError):
        return {}
