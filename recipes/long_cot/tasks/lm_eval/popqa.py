"""PopQA's rule: one of the possible answers is in the answer, as written or in lower case or capitalised."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The harness's metrics of one question; `possible_answers` is a JSON list of texts."""
    named = json.loads(doc["possible_answers"])
    ways = {way for answer in named for way in (answer, answer.lower(), answer.capitalize())}
    return {"accuracy": float(any(way in results[0] for way in ways))}
