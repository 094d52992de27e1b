"""A row as verl's data set wants it: who asks, what is asked, and all that a reward may need to grade it.

Columns: data_source (the row's source, by which verl groups its validation), prompt (messages), reward_model
(style, ground_truth), extra_info (index, id, split, row). `rewards.serving.verl` grades the JSON in
`extra_info.row`; ground_truth is for verl's own records. A prompt stands in the file once, called by its own id:
rows that sampling has made of it are the same prompt.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from data_prep.core.rows import META_OF_A_COMPLETION, prompt_of
from data_prep.core.step import Drop, Row

Split = Literal["train", "validation"]

GOLDS = ("answer", "tests", "references")
FOR_REWARDS = ("prompt", *GOLDS, "source")
NO_LABELS = frozenset({"prompt_id", *META_OF_A_COMPLETION})  # fields of meta
LONGEST_LABEL = 200  # characters; what is longer in meta is no label, and would travel with every sample


def fault(row: Row, seen: dict[str, bytes], golds: bool = True) -> Drop | None:
    """Why a row is not asked, or None; `seen` holds hashes of the prompts of the rows before it by their ids.

    golds: whether the reward compares with something, so that a row without it is at fault.
    """
    name = prompt_of(row)
    if golds and not any(_is_given(row.get(gold)) for gold in GOLDS):
        return Drop("no gold", name, f"a reward compares with one of {', '.join(GOLDS)}", bad=True)
    prompt = hashlib.sha256(json.dumps(row["prompt"], sort_keys=True).encode()).digest()
    if name not in seen:
        seen[name] = prompt
        return None
    if seen[name] == prompt:
        return Drop("another row of the same prompt", name)
    return Drop("id of another prompt", name, "samples are told apart by the ids of their prompts", bad=True)


def _is_given(gold: Any) -> bool:
    """Whether there is something to compare with: no blank text, nor a list of such."""
    if isinstance(gold, list):
        return any(map(_is_given, gold))
    return bool(gold.strip() if isinstance(gold, str) else gold)


def record(row: Row, index: int, split: Split) -> dict[str, Any]:
    """One line of verl's file."""
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
    """The prompt's own row: nothing of a completion that it may have had, and of meta only labels."""
    facts = {"id": prompt_of(row), **{field: row[field] for field in FOR_REWARDS if field in row}}
    labels = {name: value for name, value in row.get("meta", {}).items() if _is_label(name, value)}
    return {**facts, "meta": labels} if labels else facts


def _is_label(name: str, value: Any) -> bool:
    short = len(value) <= LONGEST_LABEL if isinstance(value, str) else isinstance(value, bool | int | float)
    return short and name not in NO_LABELS
