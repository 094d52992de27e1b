"""The Sky-T1 family: what its recipes say of the original, and its pipelines whole, with real servers and trainers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from data_prep.core.rows import read_jsonl
from launchers.plan import pipelines as sources
from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from tests.conftest import REPO, Repo

FAMILY = sorted(name for name in compose.recipe_names() if name.startswith("sky_t1/"))
ORIGINAL = {  # batch, learning rate, epochs, longest sequence, as the repository's configs have them
    "sky_t1/sft": (96, 1e-5, 3, 16384),
    "sky_t1/sft_lora": (96, 1e-4, 3, 16384),
    "sky_t1/flash": (96, 5e-7, 1, 10240),  # a pair of 16,384 each does not fit
}
LIKE = 0.15  # of a training loss; that of seeds differs by as much


@pytest.mark.parametrize("name", list(ORIGINAL))
def test_the_numbers_are_the_originals(name: str) -> None:
    recipe = compose.resolve(name).recipe
    train = recipe.train
    assert (train.global_batch, train.learning_rate, train.epochs, train.max_length) == ORIGINAL[name]
    assert (train.schedule, train.warmup_ratio, train.precision) == ("cosine", 0.1, "bf16")
    assert recipe.eval
    assert recipe.thinking == recipe.system_prompt == "sky_t1"
    assert recipe.native["deepspeed"] == ("zero3" if train.lora else "zero3_offload")
    if train.lora:
        assert (train.lora.rank, train.lora.targets) == (64, ["all"])
    if recipe.preference:
        said = (recipe.preference.loss, recipe.preference.beta, recipe.native["simpo_gamma"])
        assert said == ("simpo", 2.0, 0.3)


@pytest.mark.parametrize("name", FAMILY)
def test_what_is_trained_on_is_asked_as_the_benchmarks_are(name: str) -> None:
    """A task's own instructions stand at the head of the question, under the format's system prompt."""
    resolved = compose.resolve(name)
    asked = [step.params for step in sources.data_steps(resolved, {}) if step.kind == "load"]
    for params in asked:
        assert params.get("instructions") == "user" or params["task"] == "still_2"  # which has none
    (evaluated,) = [s.params for s in plan.eval_spec(resolved, "after", "m", None).steps if s.kind == "load"]
    assert (evaluated["system"], evaluated["instructions"]) == ("sky_t1", "user")


def test_the_fast_recipe_differs_in_nothing_that_is_learnt() -> None:
    plain, fast = (compose.resolve(f"sky_t1/{name}").recipe.model_dump() for name in ("sft", "sft_fast"))
    assert {key for key in plain if plain[key] != fast[key]} == {"train", "native"}
    differs = {key for key in plain["train"] if plain["train"][key] != fast["train"][key]}
    assert differs == {"packing", "global_batch"}


def test_the_readme_names_every_recipe_and_none_that_is_not() -> None:
    text = (REPO / "recipes/sky_t1/README.md").read_text()
    assert set(re.findall(r"\bsky_t1/\w+", text)) == set(FAMILY)


@pytest.mark.parametrize("name", FAMILY)
def test_every_recipe_has_a_mini_scale_that_claims_nothing(name: str) -> None:
    recipe = compose.resolve(name, Overrides("mini")).recipe
    assert recipe.hardware == "cpu"
    assert not recipe.comparable


def a_tenth(repo: Repo) -> None:
    """The family's mini pipelines with a tenth of their questions."""
    path = repo.path / "recipes/sky_t1/data.yaml"
    head, mini = path.read_text().split("mini_sources:")
    mini = re.sub(r"(?<=\d: )(\d+)0\b|(?<=n: )(\d+)0\b", lambda m: m[1] or m[2], mini)
    path.write_text(f"{head}mini_sources:{mini.replace('least: 0.7', 'least: 0.3')}")


def ran(repo: Repo, name: str, *words: str) -> tuple[Path, dict[tuple[str, str], Any]]:
    """The run of a recipe at mini scale, and its comparisons of after and before by task."""
    done = repo.make(f"sky_t1/{name}", "SCALE=mini", *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (run,) = (repo.path / "runs" / "sky_t1" / name).iterdir()
    return run, {(one["task"], one["b"]): one for one in json.loads((run / "compare.json").read_text())}


@pytest.mark.full
def test_the_whole_pipeline_on_a_tenth_of_the_questions(repo: Repo) -> None:
    a_tenth(repo)
    few = "SET=controls=null train.steps=4 train.save_every=null eval.limit=20"
    looked = repo.make("data/sky_t1/sft", "SCALE=mini", few, "STEP=still_2")
    assert looked.returncode == 0, looked.stderr
    assert "<|begin_of_thought|>" in looked.stdout
    run, _ = ran(repo, "sft", few)
    manifests = {
        one["name"]: one for path in (run / "manifests").rglob("*.json") for one in [json.loads(path.read_text())]
    }
    assert manifests["label"]["counts"] == {"unlabelled": 95}  # so small a model writes no JSON
    assert set(manifests["difficulty"]["counts"]) == {"by pass rate"}
    assert manifests["rewrite"]["counts"]["rewritten by boundary"] > 300
    assert {label.split(": ")[0] for label in manifests["mix"]["counts"]} == {"code", "math", "science and puzzles"}
    (file,) = (repo.path / ".cache/steps").glob("export-*/export/train.jsonl")
    rows = list(read_jsonl(file))
    marks = ("<|begin_of_thought|>", "<|end_of_thought|>", "<|begin_of_solution|>", "<|end_of_solution|>")
    for row in rows:
        said = row["messages"][-1]["content"]
        assert [said.count(mark) for mark in marks] == [1] * 4
        assert sorted(marks, key=said.index) == list(marks)
    assert {row["category"] for row in rows} == {"code", "math", "science and puzzles"}
    page = (run / "report.html").read_text()
    assert "95 of 95 labels could not be read" in page


@pytest.mark.full
def test_distillation_beats_ungraded_samples_and_flash_shortens_without_loss(repo: Repo) -> None:
    _, compared = ran(repo, "sft")
    for task in ("arithmetic", "functions_plan"):
        assert compared[task, "ungraded"]["ci95"][0] > 0
    assert compared["arithmetic", "before"]["ci95"][0] > 0
    _, shortened = ran(repo, "flash")
    found = shortened["arithmetic", "before"]
    assert found["tokens"]["ci95"][1] < -4  # percent
    assert found["ci95"][1] >= 0  # no loss that could be shown


def last_loss(folder: Path) -> float:
    """Mean training loss of a training's last tenth."""
    log = [
        one["loss"] for one in json.loads((folder / "trainer_state.json").read_text())["log_history"] if "loss" in one
    ]
    return fmean(log[-len(log) // 10 :])


@pytest.mark.full
def test_packed_rows_are_learnt_as_well_as_padded_ones(repo: Repo) -> None:
    run, compared = ran(repo, "sft_fast")
    packed, padded = last_loss(run / "train"), last_loss(run / "controls/padded/train")
    assert packed == pytest.approx(padded, rel=LIKE)
    for task in ("arithmetic", "functions_plan"):
        low, high = compared[task, "padded"]["ci95"]
        assert low <= 0 <= high or low > 0


@pytest.mark.full
def test_rl_goes_on_from_sft(repo: Repo) -> None:
    run, compared = ran(repo, "7b")
    assert json.loads((run / "resolved.json").read_text())["model"].startswith(str(repo.path / "runs/sky_t1/7b_sft"))
    assert compared["arithmetic", "before"]["ci95"][0] > 0
