"""IFBench's own checks of one answer, strict and loose."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lighteval.tasks.tasks.ifbench import evaluation_lib, instructions, instructions_registry

from data_prep.errors import DataError

# Each check would otherwise load a model of spaCy (and fetch it with a pip that is not here), which none of them uses.
instructions.RESOURCES_DOWNLOADED = True


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """The metrics of one question. Raises DataError for an unknown check, LookupError without NLTK's data."""
    if unknown := set(doc["instruction_id_list"]) - set(instructions_registry.INSTRUCTION_DICT):
        raise DataError(f"IFBench: lighteval has no check {', '.join(sorted(unknown))}")
    return {
        "prompt_level_loose_acc": _followed(evaluation_lib.test_instruction_following_loose, doc, results[0]),
        "prompt_level_strict_acc": _followed(evaluation_lib.test_instruction_following_strict, doc, results[0]),
    }


def _followed(check: Callable[..., Any], doc: Mapping[str, Any], answer: str) -> float:
    given = [{key: value for key, value in kwargs.items() if value is not None} for kwargs in doc["kwargs"]]
    asked = evaluation_lib.InputExample(doc["key"], doc["instruction_id_list"], doc["prompt"], copy.deepcopy(given))
    try:
        return float(check(asked, {doc["prompt"]: answer}).follow_all_instructions)
    except (IndexError, ZeroDivisionError):  # an answer without a word, which some checks do not expect
        return 0.0
