"""Rows of other people's data sets: each public shape is read whole, or dropped with the reason."""

import gzip
import json
from pathlib import Path

import making
import pytest

from data_prep.core import pipeline
from data_prep.errors import DataError

ASKED = {"role": "user", "content": "How many legs have three spiders?"}
ANSWERED = {"role": "assistant", "content": "A spider has 8 legs, so 3 spiders have 24."}
WRONG = {"role": "assistant", "content": "18"}
QUESTION, GOOD, BAD = (message["content"] for message in (ASKED, ANSWERED, WRONG))


def load(folder: Path, records: list[dict], **params: object) -> tuple[list[dict], dict[str, int]]:
    making.write_jsonl(folder / "in.jsonl", records)
    spec = making.spec(folder, ("load", {"path": "in.jsonl", **params}), max_drop_share=1.0)
    manifest = pipeline.run(spec)[0]
    return list(pipeline.read_rows(pipeline.find(spec))), manifest.drops


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": QUESTION, "chosen": GOOD, "rejected": BAD},
        {"prompt": [ASKED], "chosen": [ANSWERED], "rejected": [WRONG]},
        {"prompt": QUESTION, "chosen": [ASKED, ANSWERED], "rejected": [ASKED, WRONG], "score_chosen": 8.0},
        {"chosen": [ASKED, ANSWERED], "rejected": [ASKED, WRONG]},
        {
            "chosen": f"\n\nHuman: {QUESTION}\n\nAssistant: {GOOD}",
            "rejected": f"\n\nHuman: {QUESTION}\n\nAssistant: {BAD}",
        },
        {
            "conversations": [{"from": "human", "value": QUESTION}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        {"instruction": QUESTION, "input": "", "chosen": GOOD, "rejected": BAD},
    ],
    ids=["texts", "messages", "ultrafeedback", "no prompt", "hh", "llamafactory", "alpaca"],
)
def test_preferences_of_all_public_shapes(record: dict, tmp_path: Path) -> None:
    rows, drops = load(tmp_path, [record])
    assert drops == {}
    assert (rows[0]["prompt"], rows[0]["completion"], rows[0]["rejected"]) == ([ASKED], GOOD, BAD)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [ASKED], "completion": [ANSWERED]},
        {"messages": [ASKED, ANSWERED]},
        {"messages": [{**ASKED, "content": [{"type": "text", "text": QUESTION}]}, ANSWERED]},
        {"conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": GOOD}]},
        {"instruction": QUESTION, "input": "", "output": GOOD, "history": []},
        {"messages": [ASKED, ANSWERED], "tests": "assert legs(3) == 24", "references": "24", "answer": {"n": 24}},
    ],
)
def test_conversations_of_all_public_shapes(record: dict, tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [record])
    assert (rows[0]["prompt"], rows[0]["completion"]) == ([ASKED], GOOD)


def test_a_history_stays_in_the_prompt(tmp_path: Path) -> None:
    record = {"instruction": QUESTION, "output": GOOD, "system": "Be brief.", "history": [["Hi", "Hello."]]}
    rows, _ = load(tmp_path, [record])
    assert [message["role"] for message in rows[0]["prompt"]] == ["system", "user", "assistant", "user"]


def test_gsm8k_is_a_solution_and_its_number(tmp_path: Path) -> None:
    rows, _ = load(
        tmp_path, [{"question": "1,000 hens, 10 are sold. How many remain?", "answer": "1000-10=990\n#### 990"}]
    )
    assert (rows[0]["completion"], rows[0]["answer"]) == ("1000-10=990\n#### 990", "990")


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"messages": [ASKED, {**ANSWERED, "reasoning_content": "8 times 3"}]}, "reasoning_content"),
        ({"messages": [ASKED, ANSWERED], "images": ["a.png"]}, "images, video or audio"),
        ({"messages": [{**ASKED, "content": [{"type": "image_url"}]}, ANSWERED]}, "images, video or audio"),
        ({"messages": [ASKED, {**ANSWERED, "tool_calls": [{"id": "1"}]}]}, "tool calls"),
        ({"messages": [ASKED, ANSWERED], "tools": [{"name": "search"}]}, "tools"),
        ({"messages": [ASKED, ANSWERED, {"role": "system", "content": "x"}, ASKED]}, "system message among the turns"),
        ({"messages": [ASKED, {**ANSWERED, "weight": 0}, ASKED, ANSWERED]}, "an answer of weight 0"),
        ({"prompt": "p", "chosen": [ASKED, ANSWERED], "rejected": [WRONG]}, "the prompt is not what chosen answers"),
        ({"messages": []}, "empty prompt"),
    ],
)
def test_what_a_row_cannot_hold_is_a_counted_drop(record: dict, reason: str, tmp_path: Path) -> None:
    rows, drops = load(tmp_path, [{"messages": [ASKED, ANSWERED]}, record])
    assert len(rows) == 1
    assert drops == {reason: 1}


def test_a_thought_is_kept_in_the_thinking_format(tmp_path: Path) -> None:
    rows, _ = load(tmp_path, [{"messages": [ASKED, {**ANSWERED, "reasoning_content": "8 times 3"}]}], thinking="think")
    assert rows[0]["completion"] == f"<think>\n8 times 3\n</think>\n\n{GOOD}"


def read(folder: Path, path: str) -> int:
    spec = making.spec(folder, ("load", {"path": path}))
    return pipeline.run(spec)[0].rows_out


def test_files_compressed_in_folders_and_by_globs(tmp_path: Path) -> None:
    line = json.dumps({"messages": [ASKED, ANSWERED]}) + "\n"
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "A.JSONL").write_text(line)
    (tmp_path / "all" / "b.ndjson.gz").write_bytes(gzip.compress((line * 2).encode()))
    (tmp_path / "c.tsv").write_text(f"question\tanswer\n{QUESTION}\t24\n")
    (tmp_path / "d.json").write_text(json.dumps({"version": 1, "data": [{"messages": [ASKED, ANSWERED]}] * 3}))
    assert [read(tmp_path, path) for path in ("all", "all/*.gz", "c.tsv", "d.json")] == [3, 2, 1, 3]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        ('{"a": 1}\n'.encode("utf-16"), "UTF-16.*iconv"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
    ],
)
def test_files_that_are_something_else_are_named(content: bytes, what: str, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=what):
        read(tmp_path, "in.jsonl")


def test_the_same_ids_in_two_inputs_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        making.write_jsonl(tmp_path / f"{name}.jsonl", [{"id": "0", "prompt": f"question {name}"}])
    steps = [
        {
            "name": name,
            "kind": "load",
            "params": {"path": f"{name}.jsonl", **({"id_prefix": name} if name == "b" else {})},
        }
        for name in ("a", "b")
    ]
    both = {"name": "dedup", "kind": "dedup", "params": {}, "inputs": ["a", "b"]}
    spec = {"name": "x", "base": str(tmp_path), "cache": str(tmp_path / "c"), "steps": [*steps, both]}
    assert pipeline.run(pipeline.Spec.model_validate(spec))[-1].rows_out == 2
    steps[1]["params"].pop("id_prefix")
    with pytest.raises(DataError, match=r'a row of id "0".*id_prefix'):
        pipeline.run(pipeline.Spec.model_validate(spec))
