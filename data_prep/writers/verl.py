"""Rows in verl's data format: source, prompt, and everything that a reward may need for grading.

Columns: data_source (the row's source, by which verl groups validation), prompt (messages), reward_model
(style, ground_truth), extra_info (index, id, split, row). `rewards.serving.verl` grades the JSON in
`extra_info.row`; ground_truth is for verl's own records. Each prompt is written once, under its own id;
samples of a prompt count as the same prompt.
"""

import hashlib
import json
from typing import Any, Literal

from data_prep.core.rows import META_OF_A_COMPLETION, prompt_of
from data_prep.core.step import Drop, Row

Split = Literal["train", "validation"]

GOLDS = ("answer", "tests", "references")
FOR_REWARDS = ("prompt", *GOLDS, "source")
NO_LABELS = frozenset({"prompt_id", *META_OF_A_COMPLETION})  # meta fields that are not labels
LONGEST_LABEL = 200  # characters; longer meta values are not labels, and would be copied to every sample


def fault(row: Row, seen: dict[str, bytes], golds: bool = True) -> Drop | None:
    """Why a row is dropped, or None. seen: hashes of earlier rows' prompts by prompt id.

    golds: whether the reward needs something to compare with, so that a row without it is bad.
    """
    name = prompt_of(row)
    if golds and not any(_is_given(row.get(gold)) for gold in GOLDS):
        named = ", ".join(GOLDS)
        return Drop("no gold", name, f"a reward needs one of {named}: name it by `columns` of a load", bad=True)
    prompt = hashlib.sha256(json.dumps(row["prompt"], sort_keys=True).encode()).digest()
    if name not in seen:
        seen[name] = prompt
        return None
    if seen[name] == prompt:
        return Drop("another row of the same prompt", name)
    return Drop("id of another prompt", name, "different prompts must have different ids", bad=True)


def _is_given(gold: Any) -> bool:
    """Whether there is something to compare with: not a blank text or a list of blank texts."""
    if isinstance(gold, list):
        return any(map(_is_given, gold))
    return bool(gold.strip() if isinstance(gold, str) else gold)


def record(row: Row, index: int, split: Split) -> dict[str, Any]:
    """One row of verl's file."""
    facts = for_rewards(row)
    return {
        "data_source": str(row.get("source", "")),
        "prompt": [{"role": message["role"], "content": message["content"]} for message in row["prompt"]],
        "reward_model": {"style": "rule", "ground_truth": str(row.get("answer", ""))},
        "extra_info": {
            "index": index,
            "id": facts["id"],
            "split": split,
            "row": json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":")),
        },
    }


def for_rewards(row: Row) -> Row:
    """The prompt's row: without fields of a completion, and with only labels in meta."""
    facts = {"id": prompt_of(row), **{field: row[field] for field in FOR_REWARDS if field in row}}
    labels = {name: value for name, value in row.get("meta", {}).items() if _is_label(name, value)}
    return {**facts, "meta": labels} if labels else facts


def _is_label(name: str, value: Any) -> bool:
    short = len(value) <= LONGEST_LABEL if isinstance(value, str) else isinstance(value, bool | int | float)
    return short and name not in NO_LABELS
