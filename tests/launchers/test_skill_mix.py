"""The skill-mix recipes: the original's numbers, warm-ups that end, both trainers, and mini runs that learn."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from launchers.plan import plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from tests.conftest import REPO, Repo

FAMILY = [name for name in compose.recipe_names() if name.startswith("skill_mix/")]
LLAMA, QWEN = "meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen2.5-14B-Instruct"


def resolved(name: str, *settings: str, scale: str | None = None) -> compose.Resolved:
    pairs = tuple((*setting.split("=", 1), f"--set {setting}") for setting in settings)
    return compose.resolve(f"skill_mix/{name}", Overrides(scale, pairs))


@pytest.mark.parametrize(
    ("name", "model", "batch", "rate", "rank"),
    [
        ("best_of_n", LLAMA, 32, 1e-5, None),
        ("best_of_n_cot", LLAMA, 32, 1e-5, None),
        ("sft_gold", LLAMA, 32, 3e-4, 8),
        ("best_of_n_qwen14b", QWEN, 64, 3e-4, 8),
        ("dpo", LLAMA, 32, 5e-4, 8),
        ("dpo_cot", LLAMA, 32, 5e-4, 8),
        ("dpo_qwen14b", QWEN, 32, 5e-4, 8),
    ],
)
def test_the_originals_numbers_where_it_gives_them(name, model, batch, rate, rank):
    recipe = resolved(name).recipe
    assert (recipe.trainer, recipe.model) == ("torchtune", model)
    assert (recipe.train.global_batch, recipe.train.learning_rate) == (batch, rate)
    assert (recipe.train.lora and recipe.train.lora.rank) == rank
    assert (recipe.method == "dpo") == (recipe.preference is not None)
    if recipe.preference:
        assert (recipe.preference.loss, recipe.preference.beta) == ("sigmoid", 0.1)


@pytest.mark.parametrize("name", [name for name in FAMILY if "grpo" not in name])
@pytest.mark.parametrize("hardware", ["h100x1", "h100x8"])
def test_one_device_and_eight_keep_the_batch_and_the_warm_up_ends(name, hardware, tmp_path):
    made = plan.build(resolved(name.split("/")[1], f"hardware={hardware}"), tmp_path)
    batch = made.main.batch
    assert batch.micro * batch.accumulation * batch.world == made.resolved.recipe.train.global_batch
    assert made.resolved.recipe.train.warmup_ratio == 0.1  # of the run, where the original's 100 steps outlast it


@pytest.mark.parametrize("name", FAMILY)
def test_each_recipe_has_a_small_world_with_questions_of_code(name):
    recipe = resolved(name.split("/")[1], scale="mini").recipe
    assert recipe.model == "recipes/mini/coder"
    assert recipe.eval.tasks == ["functions_plan" if "cot" in name else "functions"]
    assert not recipe.comparable


def test_the_readme_has_a_row_for_every_recipe_and_names_none_that_is_not():
    text = (REPO / "recipes/skill_mix/README.md").read_text()
    named = set(re.findall(r"make (?:data/)?(skill_mix/\w+)", text))
    assert named == set(FAMILY)


def test_no_held_out_pair_of_skills_is_trained_on(repo: Repo):
    """The pipelines' questions and the benchmark's, as rows: no pair of the one in that order in the other."""
    from data_prep.families.mini import curriculum, functions

    data = (REPO / "recipes/skill_mix/data.yaml").read_text()
    asked = re.findall(r"curriculum: (\{subject: functions.*\})", data)
    assert asked
    for text in asked:
        levels = {int(k): int(n) for k, n in re.findall(r"(\d): (\d+)", text)}
        assert "split: train" in text
        for row in curriculum.questions(levels, "train", seed=1, subject="functions"):
            names = row["meta"]["skills"]
            assert not any(functions.held_out(a, b) for at, a in enumerate(names) for b in names[at + 1 :])


def results(run: Path) -> dict[str, dict]:
    """By evaluation, what the run says of its benchmark."""
    found = {
        path.stem: json.loads(path.read_text()) for path in (run / "eval").glob("*.json") if ".spec" not in path.name
    }
    return {name: next(iter(one["tasks"].values())) for name, one in found.items()}


@pytest.mark.full
@pytest.mark.parametrize("name", ["best_of_n", "dpo"])
def test_pass_at_1_on_held_out_questions_rises(repo: Repo, name: str):
    done = repo.make(f"skill_mix/{name}", "SCALE=mini", "SET=controls=null")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (run,) = (repo.path / "runs" / "skill_mix" / name).iterdir()
    (compared,) = json.loads((run / "compare.json").read_text())
    assert compared["ci95"][0] > 0, compared
    assert results(run)["after"]["by"]["skills"]
