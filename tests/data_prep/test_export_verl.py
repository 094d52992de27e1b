"""Export for verl: each prompt once with its gold, readable by verl's data set and our adapter."""

import json
import os
import subprocess

import making
import pyarrow.parquet as pq
import pytest

from data_prep.core import pipeline
from data_prep.errors import LimitExceeded
from launchers import envs
from rewards.serving import verl
from tests.conftest import REPO

SYSTEM = {"role": "system", "content": "Think."}
USER = {"role": "user", "content": "12+30=?\u2028é"}
SUM = {"id": "sums/1", "prompt": [SYSTEM, USER], "answer": "42", "source": "sums", "meta": {"level": 2}}


def export(folder, rows: list[dict], **params):
    making.write_jsonl(folder / "in.jsonl", rows)
    chain = making.spec(folder, ("load", {"path": "in.jsonl"}), ("export", {"format": "verl", **params}))
    manifest = pipeline.run(chain)[-1]
    name = params.get("dataset", "train")
    return manifest, pipeline.find(chain) / "export" / f"{name}.parquet"


def test_columns(tmp_path):
    other = {**SUM, "id": "sums/2", "prompt": [USER]}
    manifest, path = export(tmp_path, [SUM, other], dataset="mine", split="validation")
    assert manifest.rows_out == 2
    found = pq.read_table(path).to_pylist()
    row = found[0]["extra_info"].pop("row")
    assert found[0] == {
        "data_source": "sums",
        "prompt": [SYSTEM, USER],
        "reward_model": {"style": "rule", "ground_truth": "42"},
        "extra_info": {"index": 0, "id": "sums/1", "split": "validation"},
    }
    assert json.loads(row) == SUM
    assert [one["extra_info"]["index"] for one in found] == [0, 1]


@pytest.mark.parametrize("gold", [{"tests": {"inputs": ["ab"], "outputs": ["ba"]}}, {"references": ["so", "thus"]}])
def test_golds_other_than_short_answers(tmp_path, gold):
    (found,) = pq.read_table(export(tmp_path, [{"prompt": "q", **gold}])[1]).to_pylist()
    assert found["reward_model"]["ground_truth"] == ""
    told = json.loads(found["extra_info"]["row"])
    assert {name: told[name] for name in gold} == gold


def test_source_identifies_the_task(tmp_path):
    chain = making.spec(tmp_path, ("load", {"tasks": ["arithmetic"], "limit": 3}), ("export", {"format": "verl"}))
    pipeline.run(chain)
    found = pq.read_table(pipeline.find(chain) / "export" / "train.parquet").to_pylist()
    assert [one["data_source"] for one in found] == ["arithmetic"] * 3


def test_fields_of_a_completion_are_removed(tmp_path):
    about = {"prompt_id": "p", "finish_reason": "length", "tokens": 7, "score_details": {"parsed": "41"}}
    labels = {"level": 2, "subject": "sums", "essay": "x" * 1000, "tags": ["a"]}
    sampled = [
        {"id": f"p/{k}", "prompt": "q", "completion": f"{k}", "answer": "4", "score": 0.0, "outcome": "scored",
         "meta": {**labels, **about, "sample": k}}
        for k in range(3)
    ]  # fmt: skip
    manifest, path = export(tmp_path, sampled)
    assert manifest.drops == {"another row of the same prompt": 2}
    (found,) = pq.read_table(path).to_pylist()
    assert found["extra_info"]["id"] == "p"
    assert json.loads(found["extra_info"]["row"]) == {
        "id": "p",
        "prompt": [{"role": "user", "content": "q"}],
        "answer": "4",
        "source": "in",
        "meta": {"level": 2, "subject": "sums"},
    }


def test_unusable_prompts_are_dropped(tmp_path):
    good = [{"prompt": f"q {n}", "answer": "1"} for n in range(200)]
    bad = [
        {"prompt": "no gold", "answer": ""},
        {"prompt": "no gold either", "answer": "", "references": []},
        {"prompt": "blank references", "answer": " ", "references": [" ", "\f"]},
        {"prompt": [USER, {"role": "assistant", "content": "x"}], "answer": "1"},
        {"prompt": "q", "answer": "1", "meta": {"prompt_id": "same"}},
        {"prompt": "another q", "answer": "1", "meta": {"prompt_id": "same"}},
    ]
    manifest, path = export(tmp_path, good + bad)
    assert manifest.drops == {"no gold": 3, "roles do not alternate": 1, "id of another prompt": 1}
    assert manifest.bad == 5
    assert pq.read_metadata(path).num_rows == 201
    with pytest.raises(LimitExceeded, match="5 no gold"):
        export(tmp_path, [{"prompt": f"q {n}", "completion": "c"} for n in range(5)])


@pytest.mark.parametrize("params", [{"split": "test"}, {"format": "verl2"}])
def test_wrong_parameters(params):
    found = pipeline.parse("p", [{"load": {"path": "x"}}, {"export": {"format": "verl", **params}}])[1]
    assert [fault.path for fault in found] == [(1, "export", *params)]


def test_our_reward_grades_what_is_in_the_file(tmp_path):
    _, path = export(tmp_path, [SUM], split="validation")
    (found,) = pq.read_table(path).to_pylist()
    asked = (found["data_source"], "\\boxed{42}", found["reward_model"]["ground_truth"], found["extra_info"])
    told = verl.compute_score(*asked, reward="math")
    assert (told["score"], told["outcome"]) == (1.0, "scored")


READ = """
import json, sys
from omegaconf import OmegaConf
from transformers import AutoTokenizer
from verl.utils.dataset.rl_dataset import RLHFDataset, collate_fn

file, model, cache = sys.argv[1:]
config = OmegaConf.create({"max_prompt_length": 24, "filter_overlong_prompts": True, "cache_dir": cache,
                           "filter_overlong_prompts_workers": None, "truncation": "error", "return_raw_chat": True})
data = RLHFDataset([file], AutoTokenizer.from_pretrained(model), config)
batch = collate_fn([data[at] for at in range(len(data))])
keys = ("data_source", "raw_prompt", "reward_model", "extra_info")
print("FOUND " + json.dumps({key: batch[key].tolist() for key in keys}))
"""


def test_verls_own_data_set_reads_it(tmp_path, mini_model):
    asked = [{"role": "user", "content": "12+30=?"}]
    sums = [{**SUM, "prompt": asked}, {**SUM, "id": "long", "prompt": [{"role": "user", "content": "1+" * 20 + "1=?"}]}]
    _, path = export(tmp_path, sums)
    environ = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    words = [str(envs.ensure("verl", "cpu")), "-c", READ, str(path), str(mini_model), str(tmp_path / "verl")]
    done = subprocess.run(words, cwd=REPO, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = (one for one in done.stdout.splitlines() if one.startswith("FOUND "))
    found = json.loads(line.removeprefix("FOUND "))
    assert found["data_source"] == ["sums"]  # the other prompt is too long
    assert found["raw_prompt"] == [asked]
    assert found["reward_model"] == [{"style": "rule", "ground_truth": "42"}]
    (info,) = found["extra_info"]
    assert json.loads(info.pop("row")) == {**SUM, "prompt": asked}
    assert info == {"index": 0, "id": "sums/1", "split": "train"}
