"""Export of pairs and for torchtune: the files that the trainers' own readers expect."""

import json
import os
import subprocess

import making
import pytest
from test_export import SYSTEM, USER, export

from data_prep.core import pipeline
from launchers import envs

PAIR = {"prompt": [SYSTEM, USER], "completion": "4\u2028", "rejected": "5"}
# What LlamaFactory makes of a data set of ours, printed as JSON.
READING = """
import json, sys
from datasets import load_dataset
from llamafactory.data.converter import align_dataset
from llamafactory.data.parser import get_dataset_list
from llamafactory.hparams import DataArguments
from transformers import Seq2SeqTrainingArguments

cache, *folders = sys.argv[1:]
for folder in folders:
    (attr,) = get_dataset_list(["train"], folder)
    rows = load_dataset("json", data_files=f"{folder}/{attr.dataset_name}", split="train", cache_dir=cache)
    data = DataArguments(dataset_dir=folder, dataset="train")
    found = align_dataset(rows, attr, data, Seq2SeqTrainingArguments(output_dir=cache, use_cpu=True))
    print(json.dumps([attr.ranking, found.to_list()]))
"""

# What torchtune's own transforms make of the first row of a chat and a preference file of ours.
TUNING = """
import json, sys
from torchtune.data import ChosenRejectedToMessages, OpenAIToMessages

transforms = (
    OpenAIToMessages(column_map={"messages": "messages"}),
    ChosenRejectedToMessages(column_map={"chosen": "chosen_conversations", "rejected": "rejected_conversations"}),
)
for path, transform in zip(sys.argv[1:], transforms):
    with open(path) as file:
        found = transform(json.loads(file.readline()))
    print(json.dumps({key: [[m.role, m.text_content, m.masked] for m in told] for key, told in found.items()}))
"""


def lines(folder) -> list[dict]:
    return making.lines(folder / "train.jsonl")


def test_torchtune_chat(tmp_path):
    _, folder = export(tmp_path, [{"prompt": [USER], "completion": "4\u2028é"}], format="torchtune")
    assert lines(folder) == [{"messages": [USER, {"role": "assistant", "content": "4\u2028é"}]}]
    assert [path.name for path in folder.iterdir()] == ["train.jsonl"]


def test_torchtune_pairs_are_whole_conversations(tmp_path):
    manifest, folder = export(tmp_path, [PAIR], format="torchtune", preference=True)
    assert manifest.rows_out == 1
    assert lines(folder) == [
        {
            "chosen_conversations": [SYSTEM, USER, {"role": "assistant", "content": "4\u2028"}],
            "rejected_conversations": [SYSTEM, USER, {"role": "assistant", "content": "5"}],
        }
    ]


def test_llamafactory_reads_the_pairs_as_ranking_data(tmp_path, llamafactory_python):
    first = {**PAIR, "meta": {"category": "sums"}}  # the other row has no category
    rows = [first, {"prompt": "q", "completion": "good", "rejected": "bad", "score": 1.0}]
    folder = str(export(tmp_path / "pairs", rows, preference=True)[1])
    done = subprocess.run(
        [str(llamafactory_python), "-c", READING, str(tmp_path / "hf"), folder],
        capture_output=True, text=True, timeout=300,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "hf")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "abnormal" not in done.stdout + done.stderr
    for line in done.stdout.splitlines()[-1:]:
        ranking, found = json.loads(line)
        assert ranking is True
        assert {name for one in found for name in one if not name.startswith("_")} == set(), "columns are all its own"
        said = [[{"role": "assistant", "content": text} for text in two] for two in (("4\u2028", "5"), ("good", "bad"))]
        assert [(one["_system"], one["_prompt"], one["_response"]) for one in found] == [
            ("Think.", [USER], said[0]),
            ("", [{"role": "user", "content": "q"}], said[1]),
        ]


@pytest.mark.full  # chat data and pairs are trained on in tests/plugins; to import torchtune takes its time
def test_torchtune_reads_both_shapes(tmp_path):
    rows = [{**PAIR, "prompt": [USER]}]
    shapes = {"chat": {}, "pairs": {"preference": True}}
    files = [
        str(export(tmp_path / name, rows, format="torchtune", **params)[1] / "train.jsonl")
        for name, params in shapes.items()
    ]
    python = envs.ensure("torchtune", "cpu")
    done = subprocess.run([str(python), "-c", TUNING, *files], capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    asked = ["user", USER["content"], True]
    good, bad = ["assistant", "4\u2028", False], ["assistant", "5", False]
    assert [json.loads(line) for line in done.stdout.splitlines()[-2:]] == [
        {"messages": [asked, good]},
        {"chosen": [asked, good], "rejected": [asked, bad]},
    ]


def test_equal_or_incomplete_pairs_are_dropped(tmp_path):
    good = [{**PAIR, "completion": f"c {n}"} for n in range(60)]
    bad = [{**PAIR, "rejected": PAIR["completion"]}, {"prompt": "q", "completion": "c"}, {**PAIR, "rejected": ""}]
    manifest, folder = export(tmp_path, good + bad, preference=True)
    assert manifest.drops == {"rejected equals completion": 1, "missing rejected": 1, "empty rejected": 1}
    assert len(lines(folder)) == 60


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"format": "verl", "preference": True}, "pairs need format sharegpt or torchtune or hugg"),
        ({"shape": "instruct"}, "no such parameter"),
        ({"format": "torchtun"}, "'torchtune'"),
    ],
)
def test_conflicting_parameters_fail_before_anything_runs(params, told):
    (fault,) = pipeline.parse("p", [{"load": {"path": "x"}}, {"export": params}])[1]
    assert told in fault.message


def test_line_n_is_row_n(tmp_path):
    rows = [{"id": f"r{n}", "prompt": f"q {n}", "completion": f"c {n}", "rejected": f"d {n}"} for n in range(7)]
    making.write_jsonl(tmp_path / "in.jsonl", rows)
    chain = making.spec(
        tmp_path, ("load", {"path": "in.jsonl"}), ("export", {"format": "torchtune", "preference": True})
    )
    pipeline.run(chain)
    ids = [row["id"] for row in pipeline.read_rows(pipeline.find(chain))]
    said = [one["rejected_conversations"][-1]["content"] for one in lines(pipeline.find(chain) / "export")]
    assert [f"d {name.removeprefix('r')}" for name in ids] == said
