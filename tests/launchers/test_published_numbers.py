"""Every number that the originals publish, beside what is rendered for the trainer.

Sources: GAIR-NLP/cs2916 2025/hw1/scripts; NovaSky-AI/SkyThought train/LLaMA-Factory/examples/train_full and train_lora;
jiatong-yu/code-mix post_training/configs. A value that differs on purpose is a Differs, with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from launchers.checks import preflight
from launchers.plan import plan
from launchers.recipe import compose


@dataclass(frozen=True)
class Differs:
    """A published value, ours, and why."""

    published: Any
    ours: Any
    why: str


COURSE = {
    "batch": 256, "learning_rate": 1e-5, "schedule": "cosine_with_min_lr", "min_lr": 0.1, "warmup": 0.03,
    "weight_decay": 0.0, "betas": (0.9, 0.95), "clip": 1.0, "optimizer": "adamw_torch", "lora": None,
    "packing": Differs(True, False, "the course's packing changes no batch: rows are counted before they are packed"),
}  # fmt: skip
SKY = {
    "batch": 96, "learning_rate": 1e-5, "schedule": "cosine", "min_lr": None, "warmup": 0.1, "weight_decay": 0.0,
    "betas": (0.9, 0.999), "clip": 1.0, "optimizer": "adamw_torch", "epochs": 3, "length": 16384, "lora": None,
}  # fmt: skip
SHORT_RUN = Differs("100 steps", 0.1, "100 warm-up steps are more than a whole epoch over these rows")
MIX_LORA = (
    ["q_proj", "v_proj", "output_proj"],
    True,
    False,
    8,
    16,
    0.0,
)  # attention, MLP, output; rank, alpha, dropout
MIX = {"batch": 32, "epochs": 1, "warmup": SHORT_RUN, "schedule": "cosine", "optimizer": "torch.optim.AdamW",
       "lora": MIX_LORA, "learning_rate": 3e-4, "weight_decay": 0.01}  # fmt: skip
MIX_FULL = MIX | {
    "learning_rate": 1e-5, "lora": None,
    "optimizer": Differs("bitsandbytes.optim.PagedAdamW8bit", "torch.optim.AdamW", "8-bit states save memory only"),
}  # fmt: skip
MIX_DPO = MIX | {"learning_rate": 5e-4, "weight_decay": 0.05, "beta": 0.1, "label_smoothing": 0.0}
RL = {
    "batch": 256, "prompts": 64, "samples": 8, "learning_rate": 1e-6, "schedule": "cosine", "min_lr": 0.1, "epochs": 10,
    "betas": (0.9, 0.95), "clip": 1.0, "warmup": Differs("10 of 450 steps", 0.0223, "as a share: 10 / 450, rounded up"),
    "prompt": 350, "response": 1024, "kl": ("k1", 0.01), "clip_range": (0.2, 0.2), "temperature": 1.0, "gamma": 1.0,
    "save": 10,
}  # fmt: skip
PUBLISHED: dict[str, dict[str, Any]] = {
    "min_o1/sft_short": COURSE | {"epochs": 3, "length": 2048},
    "min_o1/sft_long": COURSE | {"epochs": 5, "length": 16384},
    "min_o1/grpo": RL,
    "sky_t1/sft": SKY,
    "sky_t1/sft_lora": SKY | {"learning_rate": 1e-4, "lora": ("all", 64, 128)},
    "sky_t1/flash": SKY | {
        "learning_rate": 5e-7, "epochs": 1, "preference": ("simpo", 2.0, 0.3),
        "length": Differs(16384, 10240, "logits of chosen and rejected in fp32 do not fit into 80 GB at 16384"),
    },
    "skill_mix/best_of_n": MIX_FULL,
    "skill_mix/best_of_n_cot": MIX_FULL,
    "skill_mix/sft_gold": MIX,
    "skill_mix/best_of_n_qwen14b": MIX | {"batch": 64},
    "skill_mix/dpo": MIX_DPO,
    "skill_mix/dpo_cot": MIX_DPO,
    "skill_mix/dpo_qwen14b": MIX_DPO,
}  # fmt: skip


def _llamafactory(said: dict[str, Any]) -> dict[str, Any]:
    lora = said["finetuning_type"] == "lora"
    return {
        "learning_rate": said["learning_rate"], "schedule": said["lr_scheduler_type"],
        "min_lr": (said.get("lr_scheduler_kwargs") or {}).get("min_lr_rate"), "warmup": said["warmup_ratio"],
        "weight_decay": said["weight_decay"], "betas": (said["adam_beta1"], said["adam_beta2"]),
        "clip": said["max_grad_norm"], "optimizer": said["optim"], "epochs": said["num_train_epochs"],
        "length": said["cutoff_len"], "packing": said["packing"],
        "lora": (said["lora_target"], said["lora_rank"], said["lora_alpha"]) if lora else None,
        "preference": (said.get("pref_loss"), said.get("pref_beta"), said.get("simpo_gamma")),
    }  # fmt: skip


def _torchtune(said: dict[str, Any]) -> dict[str, Any]:
    model, loss = said["model"], said["loss"]
    keys = ("lora_attn_modules", "apply_lora_to_mlp", "apply_lora_to_output", "lora_rank", "lora_alpha", "lora_dropout")
    return {
        "learning_rate": said["optimizer"]["lr"], "weight_decay": said["optimizer"]["weight_decay"],
        "optimizer": said["optimizer"]["_component_"], "schedule": said["lr_scheduler"]["shape"],
        "warmup": said["lr_scheduler"]["warmup_ratio"], "epochs": said["posttrain"]["epochs"],
        "lora": tuple(model[key] for key in keys) if "lora_rank" in model else None,
        "beta": loss.get("beta"), "label_smoothing": loss.get("label_smoothing"),
    }  # fmt: skip


def _verl(said: dict[str, Any]) -> dict[str, Any]:
    actor, rollout, data = (
        said["actor_rollout_ref"]["actor"], said["actor_rollout_ref"]["rollout"], said["data"],
    )  # fmt: skip
    optim, algorithm = actor["optim"], said["algorithm"]
    assert algorithm["use_kl_in_reward"]
    return {
        "prompts": data["train_batch_size"], "samples": rollout["n"], "learning_rate": optim["lr"],
        "schedule": optim["lr_scheduler_type"], "min_lr": optim["min_lr_ratio"], "betas": tuple(optim["betas"]),
        "warmup": optim["lr_warmup_steps_ratio"], "clip": optim["clip_grad"], "prompt": data["max_prompt_length"],
        "response": data["max_response_length"], "kl": (algorithm["kl_penalty"], algorithm["kl_ctrl"]["kl_coef"]),
        "clip_range": (actor["clip_ratio_low"], actor["clip_ratio_high"]), "temperature": rollout["temperature"],
        "gamma": algorithm["gamma"], "epochs": said["trainer"]["total_epochs"], "save": said["trainer"]["save_freq"],
    }  # fmt: skip


READ = {"llamafactory": _llamafactory, "torchtune": _torchtune, "verl": _verl}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_rendered_is_what_was_published(name: str) -> None:
    resolved, faults = preflight.check(compose.resolve(name))
    assert faults == []
    made = plan.build(resolved, Path("/run"))
    trainer = resolved.recipe.trainer
    (config,) = [
        text for path, text in made.backend.render(made.main, made.run).items() if path.endswith(f"{trainer}.yaml")
    ]
    rendered = READ[trainer](yaml.safe_load(config)) | {"batch": made.main.batch.global_batch}
    expected = {key: one.ours if isinstance(one, Differs) else one for key, one in PUBLISHED[name].items()}
    assert {key: rendered[key] for key in expected} == expected
    assert all(one.published != one.ours and one.why for one in PUBLISHED[name].values() if isinstance(one, Differs))


def test_every_recipe_with_a_published_original_is_in_the_table() -> None:
    """The others are ours: variants that say so, and steps that only make data."""
    ours = {"min_o1/grpo_clip_higher", "sky_t1/sft_fast", "sky_t1/sft_2x8", "sky_t1/7b_sft", "sky_t1/7b",
            "skill_mix/generate", "skill_mix/questions", "skill_mix/grpo", "skill_mix/grpo_cot"}  # fmt: skip
    known = {name for name in compose.recipe_names() if name.split("/")[0] in ("min_o1", "sky_t1", "skill_mix")}
    assert known - ours == set(PUBLISHED)
