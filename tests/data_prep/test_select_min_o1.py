"""The pipelines of recipes/min_o1/data.yaml: each parses, and each selection is as specified."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from data_prep.core import pipeline
from data_prep.families.min_o1.lim import epochs, lim_scores, read_steps, sample_files
from data_prep.families.mini import curriculum
from tests.conftest import REPO

FAMILY = REPO / "recipes" / "min_o1"
WRITTEN: dict[str, list[dict[str, Any]]] = yaml.safe_load((FAMILY / "data.yaml").read_text())
SAMPLE = FAMILY / "sample" / "math3k_rl.jsonl"
LEVELS = ("easy", "medium", "hard")


def whole(name: str) -> list[dict[str, Any]]:
    """A pipeline's steps, after those of the pipeline that it extends."""
    first, *rest = WRITTEN[name]
    return [*whole(first["pipeline"]), *rest] if "pipeline" in first else [first, *rest]


PIPELINES = {name: whole(name) for name in WRITTEN}


def filled(value: Any, values: dict[str, Any]) -> Any:
    """A pipeline with a recipe's values substituted."""
    if isinstance(value, dict):
        return {key: filled(one, values) for key, one in value.items()}
    if isinstance(value, list):
        return [filled(one, values) for one in value]
    return values[value[2:-1]] if isinstance(value, str) and value.startswith("${") else value


def make_spec(folder: Path, name: str, **values: Any) -> pipeline.Spec:
    """The pipeline as the launcher runs it, with the export for verl at its end."""
    given = {"model": "recipes/mini/model", "rollout.temperature": 1.0, "rollout.max_response_length": 104, **values}
    steps, faults = pipeline.parse(name, [*filled(PIPELINES[name], given), {"export": {"format": "verl"}}])
    assert [str(fault) for fault in faults] == []
    return pipeline.Spec(name=name, base=REPO, cache=folder / "cache", steps=tuple(steps))


def run(spec: pipeline.Spec, python: str | Path = sys.executable, steps: str | None = None) -> None:
    path = spec.cache.parent / f"{spec.name}.json"
    path.write_text(spec.model_dump_json())
    words = [str(python), "-m", "data_prep", "run", str(path), *(["--steps", steps] if steps else [])]
    done = subprocess.run(words, cwd=REPO, env={**os.environ, "PYTHONPATH": str(REPO)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def exported(spec: pipeline.Spec) -> list[dict[str, Any]]:
    """The rows that verl reads."""
    table = pq.read_table(pipeline.find(spec) / "export" / "train.parquet")
    return [json.loads(one["extra_info"]["row"]) for one in table.to_pylist()]


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_parses(name: str, tmp_path: Path) -> None:
    assert make_spec(tmp_path, name, from_run="run").steps


def pool() -> set[str]:
    (source,) = PIPELINES["mini_pool"]
    return {
        row["id"] for row in curriculum.questions(source["curriculum"]["levels"], seed=source["curriculum"]["seed"])
    }


@pytest.mark.parametrize(
    ("name", "levels"), [("mini_easy", {2: 96}), ("mini_medium", {3: 96}), ("mini_hard", {4: 96}), ("mini_mixed", None)]
)
def test_mini_selections_are_96_prompts_of_the_pool(name: str, levels: dict[int, int] | None, tmp_path: Path) -> None:
    spec = make_spec(tmp_path, name)
    run(spec)
    found = exported(spec)
    assert {row["id"] for row in found} < pool()
    counts = Counter(row["meta"]["level"] for row in found)
    assert counts == levels if levels else (sum(counts.values()), len(counts)) == (96, 3)


def test_mini_rl_has_its_questions_and_the_pool_is_whole(tmp_path: Path) -> None:
    for name, levels in (("mini_rl", {2: 500, 3: 1000, 4: 700}), ("mini_pool", {2: 96, 3: 96, 4: 96})):
        spec = make_spec(tmp_path, name)
        run(spec)
        assert Counter(row["meta"]["level"] for row in exported(spec)) == levels


def test_mini_lim_takes_the_96_best(tmp_path: Path) -> None:
    """An invented run over the pool: three epochs of 18 steps, each prompt improving at its own pace."""
    rng, names = random.Random(0), sorted(pool())
    pace = {name: rng.random() for name in names}
    folder = tmp_path / "run" / "train" / "samples"
    folder.mkdir(parents=True)
    for epoch in range(3):
        rng.shuffle(names)
        for at in range(18):
            lines = [
                json.dumps({"id": name, "acc": float(rng.random() < pace[name] * epoch), "step": epoch * 18 + at + 1})
                for name in names[at * 16 : (at + 1) * 16]
                for _ in range(8)
            ]
            (folder / f"{epoch * 18 + at + 1}.jsonl").write_text("\n".join(lines))
    spec = make_spec(tmp_path, "mini_lim", from_run=str(tmp_path / "run"))
    run(spec)
    scores = lim_scores(epochs(read_steps(sample_files(tmp_path / "run"))[0]))
    found = {row["id"]: row["meta"]["lim"] for row in exported(spec)}
    assert len(found) == 96
    assert sorted(found.values()) == sorted(scores.values())[-96:]
    assert all(scores[name] == score for name, score in found.items())


@pytest.mark.full
def test_mini_passrate_samples_from_the_real_model(tmp_path: Path, vllm_python: Path) -> None:
    spec = make_spec(tmp_path, "mini_passrate")
    run(spec, vllm_python, "curriculum,generate")
    run(spec)
    found = exported(spec)
    assert len(found) == 96
    assert {row["id"] for row in found} < pool()
    rights = Counter(
        row["meta"]["prompt_id"] for row in pipeline.read_rows(pipeline.find(spec, "score")) if row["score"] == 1
    )
    assert all(1 <= rights[row["id"]] <= 7 for row in found)
    assert not any("completion" in row or "sample" in row["meta"] for row in found)


def on_sample(name: str) -> list[dict[str, Any]]:
    """A pipeline of the course's prompts, on our own rows in their schema."""
    load, *rest = PIPELINES[name]
    kept = {key: value for key, value in load["load"].items() if key not in ("url", "git_blob")}
    return [{"load": {**kept, "path": str(SAMPLE)}}, *rest]


@pytest.mark.parametrize("level", LEVELS)
def test_course_levels(level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PIPELINES, "sample", on_sample(f"math3k_rl_{level}"))
    spec = make_spec(tmp_path, "sample")
    run(spec)
    found = exported(spec)
    assert len(found) == 4
    assert all(row["meta"] == {"difficulty": level} and row["source"] == "math3k" for row in found)
    assert all("\\boxed" in row["prompt"][0]["content"] for row in found)


def test_all_course_pipelines_start_from_the_same_pinned_file() -> None:
    loads = [steps[0] for name, steps in PIPELINES.items() if name.startswith("math3k_rl")]
    assert len(loads) == 7
    assert all(one == loads[0] for one in loads)
    numbers = [steps[-1] for name, steps in PIPELINES.items() if name.startswith("math3k_rl_")]
    assert {one.get("select", one.get("lim"))["n"] for one in numbers} == {768}


def test_a_gold_that_cannot_be_parsed_is_named_at_preparation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = [json.dumps({"prompt": f"{n}+{n}?", "answer": str(2 * n), "meta": {}}) for n in range(60)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*sums, json.dumps({"prompt": "?", "answer": "\\frac{1}{"})]))
    load, *_ = on_sample("math3k_rl")
    monkeypatch.setitem(PIPELINES, "broken", [{"load": {**load["load"], "path": str(tmp_path / "rows.jsonl")}}])
    spec = make_spec(tmp_path, "broken")
    run(spec)
    manifest = pipeline.read_manifest(pipeline.find(spec, "load"))
    assert manifest is not None
    assert manifest.drops == {"reference answer fails its own grader": 1}
    assert "frac" in json.dumps(manifest.examples)
