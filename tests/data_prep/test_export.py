"""Export: files that trainers read, complete, with every dropped row reported."""

import json

import making
import pytest
from datasets import load_dataset, load_from_disk

from data_prep.core import pipeline
from data_prep.errors import DataError, LimitExceeded

SYSTEM = {"role": "system", "content": "Think."}
USER = {"role": "user", "content": "2+2?\u2028é"}
LONG = "step " * 40_000


def export(folder, rows: list[dict], load: dict | None = None, **params):
    folder.mkdir(exist_ok=True)
    making.write_jsonl(folder / "in.jsonl", rows)
    chain = making.spec(folder, ("load", {"path": "in.jsonl"} | (load or {})), ("export", params))
    manifest = pipeline.run(chain)[-1]
    return manifest, pipeline.find(chain) / "export"


def test_sharegpt_with_messages(tmp_path):
    rows = [
        {"prompt": [SYSTEM, USER], "completion": LONG, "answer": "4"},
        {"prompt": "q", "completion": "c", "answer": "5"},
    ]
    manifest, folder = export(tmp_path, rows, dataset="short")
    assert manifest.rows_out == 2
    info = json.loads((folder / "dataset_info.json").read_text())["short"]
    assert info["file_name"] == "short.jsonl"
    assert info["columns"] == {"messages": "messages"}
    lines = [json.loads(line) for line in (folder / "short.jsonl").read_bytes().split(b"\n") if line]
    assert lines[0] == {"messages": [SYSTEM, USER, {"role": "assistant", "content": LONG}], "source": "in"}
    assert [message[info["tags"]["role_tag"]] for message in lines[1]["messages"]] == [
        info["tags"]["user_tag"],
        info["tags"]["assistant_tag"],
    ]


def test_the_datasets_library_reads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    from datasets import load_dataset

    _, folder = export(tmp_path, [{"prompt": [USER], "completion": f"c {n}"} for n in range(20)])
    found = load_dataset("json", data_files=str(folder / "train.jsonl"), split="train", cache_dir=str(tmp_path / "hf"))
    assert len(found) == 20
    assert found[3]["messages"] == [USER, {"role": "assistant", "content": "c 3"}]


def test_rows_have_source_columns_and_a_common_schema(tmp_path):
    rows = [{"prompt": f"{source} {n}", "completion": "c", "source": source} for source in "abc" for n in range(3)]
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    parts = {"first": {"sources": ["a", "b"]}, "second": {"sources": ["c"]}}
    chain = making.spec(tmp_path, ("load", {"path": "in.jsonl"}), ("mix", {"parts": parts}), ("export", {}))
    pipeline.run(chain)
    found = making.lines(pipeline.find(chain) / "export" / "train.jsonl")
    category = {"a": "first", "b": "first", "c": "second"}
    assert len(found) == 9
    for line in found:
        source = line["messages"][0]["content"][0]
        assert (line["category"], line["source"]) == (category[source], source)
    rows = [{"prompt": "p", "completion": "c", "meta": {"category": one}} for one in ("x", 3, None)]
    _, folder = export(tmp_path / "some", rows)
    assert [line["category"] for line in making.lines(folder / "train.jsonl")] == ["x", None, None]
    _, folder = export(tmp_path / "later", [*rows[::-1], {"prompt": "p", "completion": "c"}])
    assert {tuple(line) for line in making.lines(folder / "train.jsonl")} == {("messages", "source")}


def test_a_hugging_face_data_set_with_its_card(tmp_path):
    rows = [
        {"id": "a", "prompt": [SYSTEM, USER], "completion": LONG, "answer": 4.0, "references": ["4", "four"]},
        {"prompt": "What is $2^{10}$?", "completion": "1024", "source": "powers", "meta": {"category": "maths"}},
    ]
    _, folder = export(tmp_path, rows, format="huggingface", dataset="sums")
    (split,) = load_dataset(str(folder / "sums"), cache_dir=str(tmp_path / "hf")).values()
    assert split[0]["messages"] == [SYSTEM, USER, {"role": "assistant", "content": LONG}]
    assert (split[0]["id"], split[0]["answer"], split[0]["references"]) == ("a", "4", ["4", "four"])
    assert (split[1]["source"], split[1]["answer"], json.loads(split[1]["meta"])) == (
        "powers",
        None,
        {"category": "maths"},
    )
    assert load_from_disk(str(folder / "sums.saved")).to_list() == split.to_list()
    card = (folder / "sums" / "README.md").read_text()
    assert card.startswith("---\nconfigs:\n")
    assert "2 conversations" in card
    assert "| powers | 1 |" in card


def test_pairs_as_a_hugging_face_data_set(tmp_path):
    right, wrong = ([{"role": "assistant", "content": text}] for text in "45")
    pair = {"prompt": [USER], "chosen": right, "rejected": wrong}
    _, folder = export(tmp_path, [pair], format="huggingface", preference=True)
    row = load_from_disk(str(folder / "train.saved"))[0]
    assert {name: row[name] for name in pair} == pair


def test_rows_unusable_for_training_are_dropped(tmp_path):
    good = [{"prompt": [USER], "completion": "c"}] * 100
    bad = [
        {"prompt": [USER], "completion": ""},
        {"prompt": [USER, USER], "completion": "c"},
        {"prompt": [SYSTEM, {"role": "assistant", "content": "x"}, USER], "completion": "c"},
        {"prompt": [USER, {"role": "assistant", "content": "x"}], "completion": "c"},
    ]
    kept = {"columns": {"prompt": "prompt", "completion": "completion"}}  # a map keeps an empty text
    manifest, folder = export(tmp_path, good + bad, kept)
    assert manifest.drops == {"empty completion": 1, "roles do not alternate": 3}
    assert len((folder / "train.jsonl").read_bytes().split(b"\n")) == 101


def test_prompts_without_completions_are_rejected(tmp_path):
    with pytest.raises(LimitExceeded, match="5 missing completion"):
        export(tmp_path, [{"prompt": f"q {n}"} for n in range(5)])


def test_a_dataset_name_cannot_be_a_path(tmp_path):
    found = pipeline.parse("p", [{"load": {"path": "x"}}, {"export": {"dataset": "../../x"}}])[1]
    assert [fault.path for fault in found] == [(1, "export", "dataset")]
    with pytest.raises(DataError):
        making.spec(tmp_path, ("export", {})) and pipeline.Spec.read(tmp_path / "absent.json")
