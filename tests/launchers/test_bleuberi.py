"""The BLEUBERI recipes: the published numbers against what verl and LlamaFactory are given."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from launchers.backends.verl import leaves
from launchers.checks import preflight
from launchers.plan import estimate, pipelines, plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides
from launchers.run import directory as rundir
from tests.conftest import REPO

FAMILY = [name.split("/")[1] for name in compose.recipe_names() if name.startswith("bleuberi/")]
GRPO = [name for name in FAMILY if name.startswith("grpo")]


def rendered(name: str, scale: str | None = None) -> dict[str, Any]:
    """Files of the training by name, each as dotted keys."""
    resolved, faults = preflight.check(compose.resolve(f"bleuberi/{name}", Overrides(scale)))
    assert faults == []
    files = rundir.files(plan.build(resolved, Path("/run")))
    read = {Path(p).name: yaml.safe_load(t) for p, t in files.items() if p.startswith("train/")}
    return {name: dict(leaves(tree)) for name, tree in read.items() if isinstance(tree, dict)}


# training/grpo.sh, and TRL 0.17's defaults where it says nothing.
PUBLISHED = {
    "actor_rollout_ref.model.path": "Qwen/Qwen2.5-7B",
    "data.train_batch_size": 4,  # 8 completions a device × 4 steps of accumulation on one GPU = 4 prompts of 8
    "actor_rollout_ref.actor.ppo_mini_batch_size": 4,
    "actor_rollout_ref.rollout.n": 8,
    "data.max_prompt_length": 512,
    "data.max_response_length": 512,
    "data.filter_overlong_prompts": True,
    "actor_rollout_ref.rollout.temperature": 0.9,
    "actor_rollout_ref.rollout.top_p": 1.0,
    "actor_rollout_ref.rollout.top_k": 50,
    "actor_rollout_ref.actor.optim.lr": 1e-6,
    "actor_rollout_ref.actor.optim.lr_scheduler_type": "constant",
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": 0.05,
    "actor_rollout_ref.actor.optim.clip_grad": 0.2,
    "actor_rollout_ref.actor.optim.betas": [0.9, 0.999],
    "actor_rollout_ref.actor.optim.weight_decay": 0.0,
    "actor_rollout_ref.actor.use_kl_loss": True,
    "actor_rollout_ref.actor.kl_loss_type": "k3",
    "actor_rollout_ref.actor.kl_loss_coef": 0.04,
    "algorithm.use_kl_in_reward": False,
    "actor_rollout_ref.actor.clip_ratio_low": 0.2,
    "actor_rollout_ref.actor.clip_ratio_high": 0.2,
    "actor_rollout_ref.actor.loss_agg_mode": "token-mean",  # TRL's "bnpo"
    "actor_rollout_ref.actor.entropy_coeff": 0.0,
    "actor_rollout_ref.actor.ppo_epochs": 1,  # num_iterations
    "algorithm.adv_estimator": "adv_group",  # scale_rewards
    "algorithm.truncated": "keep",  # mask_truncated_completions False
    "actor_rollout_ref.actor.strategy": "fsdp2",
    "trainer.total_training_steps": 1250,
    "trainer.save_freq": 250,
    "trainer.max_actor_ckpt_to_keep": 20,
    "data.seed": 42,
    "trainer.n_gpus_per_node": 8,
}


def test_grpo_is_the_published_run():
    files = rendered("grpo")
    assert {key: files["verl.yaml"].get(key) for key in PUBLISHED} == PUBLISHED
    assert files["reward.json"]["reward"] == "bleu"
    assert files["reward.json"]["params.variant"] == "nmt"


DIFFERENT = {
    "grpo_3b": {"actor_rollout_ref.model.path": "Qwen/Qwen2.5-3B"},
    "grpo_batch256": {
        "data.train_batch_size": 32,
        "actor_rollout_ref.actor.ppo_mini_batch_size": 32,
        "trainer.total_training_steps": 156,
        "trainer.save_freq": 50,
    },
    "grpo_one_gpu": {
        "trainer.n_gpus_per_node": 1,
        "actor_rollout_ref.actor.fsdp_config.offload_policy": True,  # the only key that acts during an update
    },
    "grpo_rm": {"trainer.n_gpus_per_node": 4},  # the reward model has the others
    "grpo_bleu_rm": {"trainer.n_gpus_per_node": 4},
    "grpo_llama": {"actor_rollout_ref.model.path": "meta-llama/Llama-3.1-8B"},
}


@pytest.mark.parametrize("name", GRPO)
def test_a_variant_differs_in_nothing_else(name):
    files = rendered(name)
    expected = PUBLISHED | DIFFERENT.get(name, {})
    assert {key: (files["verl.yaml"] | files.get("native.yaml", {})).get(key) for key in expected} == expected


@pytest.mark.parametrize("name", FAMILY)
def test_each_recipe_fits_its_machines(name):
    made = plan.build(compose.resolve(f"bleuberi/{name}"), Path("/run"))
    assert estimate.oversize(made) is None
    assert preflight._disk_needed(made) < 1e12  # six checkpoints of 16 bytes a weight, and the final weights


REWARDS = {
    "grpo_rouge": "rouge_l", "grpo_bleu_rouge_f1": "bleu_rouge_f1", "grpo_think": "combine", "grpo_chrf": "chrf",
    "grpo_embedding": "embedding", "grpo_keywords": "keywords", "grpo_length": "length",
    "grpo_rm": "model", "grpo_bleu_rm": "bleu_rm",
}  # fmt: skip


@pytest.mark.parametrize("name", GRPO)
def test_each_variant_has_its_reward_and_its_prompts(name):
    recipe = compose.resolve(f"bleuberi/{name}").recipe
    assert recipe.reward is not None
    assert recipe.reward.name == REWARDS.get(name, "bleu")
    data = {"grpo_easy": "easy", "grpo_medium": "medium", "grpo_random": "random", "grpo_5refs": "hard_5refs"}
    assert recipe.data == data.get(name, "hard_think" if name == "grpo_think" else "hard")


@pytest.mark.parametrize(
    ("name", "model", "steps"),
    [
        ("sft", "Qwen/Qwen2.5-7B", 156),
        ("sft_matched_steps", "Qwen/Qwen2.5-7B", 1250),
        ("sft_llama_init", "meta-llama/Llama-3.1-8B", 1562),
    ],
)
def test_sft_is_the_published_run(name, model, steps):
    (config,) = (keys for file, keys in rendered(name).items() if "per_device_train_batch_size" in keys)
    assert config["model_name_or_path"] == model
    assert config["per_device_train_batch_size"] * config["gradient_accumulation_steps"] * 8 == 32
    assert (config["learning_rate"], config["lr_scheduler_type"]) == (5e-6, "constant_with_warmup")
    assert (config["warmup_ratio"], config["max_grad_norm"]) == (0.05, 0.2)
    assert (config["cutoff_len"], config["max_steps"], config["save_steps"]) == (1024, steps, 250)
    assert "zero3_offload" in config["deepspeed"]


def test_a_recipe_is_validated_and_evaluated_with_the_system_prompt_of_its_training():
    made = plan.build(compose.resolve("bleuberi/grpo_think"), Path("/run"))
    steps = [step for spec in made.specs.values() for step in spec.steps]
    (choice,) = (step for step in steps if step.kind == "choose_by_likeness")
    loads = [step for step in steps if step.kind == "load"]
    assert len(loads) >= 2  # validation, and evaluation before and after
    assert {step.params.get("system") for step in loads} == {choice.params["system"]} == {"bleuberi_think"}


@pytest.mark.parametrize(
    ("name", "scale", "kinds"),
    [
        ("grpo", None, ["generate", "score", "choose_by_likeness", "export"]),
        ("grpo", "mini", ["generate", "score", "choose_by_likeness", "export"]),
        ("grpo_random", "mini", ["choose_by_likeness", "export"]),
        ("sft_llama_init", None, ["references_sft", "export"]),
    ],
)
def test_a_file_stands_in_for_the_pool_and_the_recipes_other_steps_follow(tmp_path, name, scale, kinds):
    path = tmp_path / "wildchat.parquet"
    path.touch()
    given = Overrides(scale, (("data", str(path), "DATA"),))
    made = plan.build(pipelines.with_local_model(compose.resolve(f"bleuberi/{name}", given)), Path("/run"))
    (source, *steps), *_ = (spec.steps for spec in made.specs.values() if spec.steps[-1].kind == "export")
    assert (source.kind, source.params["path"]) == ("reference_pool", str(path))
    assert [step.kind for step in steps] == kinds


def test_the_llama_run_begins_with_its_sft():
    assert compose.resolve("bleuberi/grpo_llama").begins_with == "bleuberi/sft_llama_init"
    assert compose.resolve("bleuberi/grpo_llama", Overrides("mini")).begins_with is None


def test_the_readme_has_a_row_for_every_recipe_and_names_none_that_is_not():
    text = (REPO / "recipes/bleuberi/README.md").read_text()
    assert set(re.findall(r"make (?:data/)?bleuberi/(\w+)", text)) == set(FAMILY)
