"""Thoughts in separate fields: written in the thinking format, or omitted if it has none; never lost silently."""

from pathlib import Path

import pytest
from test_shapes import ANSWERED, ASKED, GOOD, QUESTION, WRONG, load


@pytest.mark.parametrize("thought", ["8 times 3", "八乘以三。", "Multiplying.", GOOD, GOOD[:3]])
@pytest.mark.parametrize(
    "record",
    [
        lambda thought: {"messages": [ASKED, {**ANSWERED, "reasoning_content": thought}]},
        lambda thought: {"messages": [ASKED, {**ANSWERED, "reasoning_content": [{"type": "text", "text": thought}]}]},
        lambda thought: {"messages": [ASKED, {**ANSWERED, "reasoning": {"content": thought, "effort": "high"}}]},
        lambda thought: {"messages": [ASKED, {**ANSWERED, "reasoning_details": [{"type": "x", "text": thought}]}]},
        lambda thought: {"messages": [ASKED, {**ANSWERED, "thinking_blocks": [{"thinking": thought}]}]},
        lambda thought: {"prompt": QUESTION, "response": GOOD, "thought": thought, "reasoning": "off"},
        lambda thought: {"prompt": [ASKED], "completion": [ANSWERED], "Reasoning_Trace": thought},
        lambda thought: {"input": QUESTION, "reasoning_content": thought, "content": GOOD},
        lambda thought: {"messages": [ASKED], "reasoning": thought, "answer": GOOD},
        lambda thought: {"problem": QUESTION, "deepseek_reasoning": thought, "deepseek_solution": GOOD},
    ],
)
def test_a_thought_is_kept_in_the_thinking_format(record: object, thought: str, tmp_path: Path) -> None:
    given = record(thought)
    columns = {"columns": {"prompt": "prompt", "completion": "response"}} if "response" in given else {}
    for params in ({}, columns):
        rows, _ = load(tmp_path, [given], thinking="think", **params)
        assert rows[0]["completion"] == f"<think>\n{thought}\n</think>\n\n{GOOD}"


@pytest.mark.parametrize("flag", ["off", "High", "", True, 3, None, [], {"effort": "low"}])
def test_a_flag_and_a_thought_within_the_answer_lose_nothing(flag: object, tmp_path: Path) -> None:
    records = [
        {"messages": [ASKED, {**ANSWERED, "reasoning": flag}], "thinking": flag},
        {"prompt": QUESTION, "response": f"<think>8 times 3</think>\n{GOOD}", "thought": "8  times 3\n"},
    ]
    rows, drops = load(tmp_path, records)
    assert (len(rows), drops) == (2, {})


@pytest.mark.parametrize(
    ("thinking", "completion"),
    [
        ("think", f"<think>\n8 times 3\n</think>\n\n{GOOD}"),
        ("none", GOOD),
        ("zero_nothink", f"<response>\n{GOOD}\n</response>"),
    ],
)
@pytest.mark.parametrize(
    "record",
    [
        {"messages": [ASKED, {**ANSWERED, "reasoning_content": "8 times 3"}]},
        {"messages": [ASKED], "thought": "8 times 3", "response": GOOD},
        {"messages": [ASKED, WRONG], "thought": "8 times 3", "response": GOOD},  # another sample's
        {"prompt": QUESTION, "thought": "8 times 3", "response": GOOD},
    ],
)
def test_a_thought_is_omitted_if_the_format_has_none(
    record: dict, thinking: str, completion: str, tmp_path: Path
) -> None:
    rows, drops = load(tmp_path, [record], thinking=thinking)
    assert (drops, rows[0]["prompt"], rows[0]["completion"]) == ({}, [ASKED], completion)


def test_a_column_map_keeps_the_thought(tmp_path: Path) -> None:
    columns = {"prompt": "q", "completion": "a"}
    rows, _ = load(tmp_path, [{"q": QUESTION, "a": GOOD, "thought": "8 times 3"}], columns=columns, thinking="think")
    assert rows[0]["completion"] == f"<think>\n8 times 3\n</think>\n\n{GOOD}"


@pytest.mark.parametrize("field", ["thinking", "value"])
def test_a_thinking_part_is_the_thought(field: str, tmp_path: Path) -> None:
    parts = [{"type": "thinking", field: "8 times 3"}, {"type": "text", "text": GOOD}]
    rows, _ = load(tmp_path, [{"messages": [ASKED, {"role": "assistant", "content": parts}]}], thinking="think")
    assert rows[0]["completion"] == f"<think>\n8 times 3\n</think>\n\n{GOOD}"
