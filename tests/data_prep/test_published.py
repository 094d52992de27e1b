"""Recipes' data.yaml pipelines that use published data instead of paid requests, on our own rows."""

import json
from pathlib import Path
from typing import Any

import making
import yaml

from data_prep.core import pipeline
from data_prep.core.manifest import Manifest
from data_prep.sources.tasks import ROOT

PIPELINES = {
    name: steps
    for family in ("sky_t1", "long_cot")
    for name, steps in yaml.safe_load((ROOT / "recipes" / family / "data.yaml").read_text()).items()
}
SYSTEM = "Your role as an assistant involves thoroughly exploring questions through a systematic thinking process."
THOUGHT = "<|begin_of_thought|>\n\n{}\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\n{}\n\n<|end_of_solution|>"
QUESTION = "Return your final response within \\boxed{}. Evaluate $1 + 2 + \\dots + 100$."
LONG = THOUGHT.format(
    "Pair the first and the last term. Let me check with fewer terms first.", "It is $\\boxed{5050}$."
)
SHORT = THOUGHT.format("Pair the terms.", "It is $\\boxed{5050}$.")
BENCHMARK = "How many positive whole-number divisors does the integer 196 have, counting both 1 and the integer itself?"


def run(
    folder: Path, name: str, records: list[dict[str, Any]], **recipe: str
) -> tuple[list[Manifest], list[dict[str, Any]]]:
    """A pipeline whose Hub data set is a local file, and whose benchmark is one problem.

    recipe: values for parameters of its name that the recipe gives.
    """
    (folder / "published.json").write_text(json.dumps(records))
    making.write_jsonl(folder / "math500.jsonl", [{"problem": BENCHMARK, "answer": "9", "level": 3, "subject": "x"}])
    items = []
    for kind, params in (next(iter(item.items())) for item in PIPELINES[name]):
        local = {key: value for key, value in params.items() if key not in ("hub", "revision")}
        local |= {key: value for key, value in recipe.items() if key in local}
        if "hub" in params:
            local["path"] = "published.json"
        if kind == "decontaminate":
            local |= {"against": ["math500"], "paths": {"math500": "math500.jsonl"}}
        items.append((kind, local))
    spec = making.spec(folder, *items)
    return pipeline.run(spec), list(pipeline.read_rows(pipeline.find(spec)))


def test_sky_t1_17k(tmp_path: Path) -> None:
    records = [
        {"system": SYSTEM, "conversations": [{"from": "user", "value": text}, {"from": "assistant", "value": LONG}]}
        for text in (QUESTION, "Which planet is the largest?", QUESTION, BENCHMARK)
    ]
    manifests, rows = run(tmp_path, "sky_t1_17k_published", records)
    assert [manifest.drops for manifest in manifests] == [{}, {"duplicate": 1}, {"repeats math500": 1}]
    assert [[message["role"] for message in row["prompt"]] for row in rows] == [["system", "user"]] * 2
    assert rows[0]["prompt"][0]["content"] == SYSTEM
    assert rows[0]["completion"] == LONG


def test_sky_t1_flash(tmp_path: Path) -> None:
    record = {
        "conversations": [{"from": "system", "value": SYSTEM}, {"from": "human", "value": QUESTION}],
        "chosen": {"from": "gpt", "value": SHORT},
        "rejected": {"from": "gpt", "value": LONG},
    }
    _, rows = run(tmp_path, "sky_t1_flash_published", [record, record])
    assert [(row["completion"], row["rejected"]) for row in rows] == [(SHORT, LONG)]
    assert [message["content"] for message in rows[0]["prompt"]] == [SYSTEM, QUESTION]


def test_rlmts_thoughts_and_answers(tmp_path: Path) -> None:
    asked = {"role": "user", "content": "Plan a rainy day in Edinburgh."}
    answered = {"thought": "Indoors, cheap.", "response": "Visit a museum."}
    earlier = {"role": "assistant", "content": "Stay in bed."}
    records = [{"id": str(n), "source": "wildchat", "messages": messages, **answered}
               for n, messages in enumerate(([asked], [asked, earlier]))]  # fmt: skip
    think, nothink = (run(tmp_path, "sft_published", records, thinking=name)[1] for name in ("think", "none"))
    assert [row["id"] for row in think] == [row["id"] for row in nothink] == ["0", "1"]
    assert {row["completion"] for row in think} == {"<think>\nIndoors, cheap.\n</think>\n\nVisit a museum."}
    assert {row["completion"] for row in nothink} == {"Visit a museum."}
    assert [row["prompt"] for row in think] == [[asked]] * 2


def test_rlmts_prompts(tmp_path: Path) -> None:
    asked = [{"role": "user", "content": QUESTION}]
    record = {"data_source": "wildchat", "prompt": asked, "ability": "chat",
              "reward_model": {"style": "model"}, "extra_info": {"split": "train", "index": 0}}  # fmt: skip
    _, rows = run(tmp_path, "wildchat_if_published", [record])
    assert [row["prompt"] for row in rows] == [asked]


def test_published_labels_stand_in_for_the_step_label(tmp_path: Path) -> None:
    loads = [params for item in PIPELINES["maths_thoughts_labelled"] for kind, params in item.items() if kind == "load"]
    (published,) = (params for params in loads if params["name"] == "labels")
    labels = {key: value for key, value in published.items() if key not in ("name", "hub", "revision")}
    problems = ("Add 1 and 2.", "Find all primes $p$ with $p + 2$ prime.", "No label.")
    numina = [{"source": "math", "problem": text, "solution": f"\\boxed{{{n}}}"} for n, text in enumerate(problems)]
    making.write_jsonl(tmp_path / "numina.jsonl", numina)
    judged = [{"problem": text, "gpt_difficulty_parsed": 2.0 + 4 * n} for n, text in enumerate(problems[:2])]
    making.write_jsonl(tmp_path / "labels.jsonl", judged)
    steps = [
        {"name": "math", "kind": "load",
         "params": {"task": "numina_math", "instructions": "user", "paths": {"numina_math": "numina.jsonl"}}},
        {"name": "labels", "kind": "load", "params": {**labels, "path": "labels.jsonl"}},
        {"name": "join", "kind": "join", "inputs": ["math", "labels"],
         "params": {"labels": "labels", "fields": ["difficulty"]}},
        {"name": "kept", "kind": "select", "inputs": ["join"], "params": {"between": {"difficulty": [4, 9]}}},
    ]  # fmt: skip
    spec = pipeline.Spec.model_validate(
        {"name": "t", "base": str(tmp_path), "cache": str(tmp_path / "c"), "steps": steps}
    )
    assert pipeline.run(spec)[2].drops == {"problem without a label": 1}
    (row,) = pipeline.read_rows(pipeline.find(spec))
    assert (row["answer"], row["meta"]["difficulty"]) == ("1", 6.0)
