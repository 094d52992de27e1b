"""The RLMT family: every recipe against the published values (arXiv 2509.20357 and its repository's configs)."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from data_prep.families.long_cot import zero
from data_prep.inference.vllm.reward_check import HALF_TOLERANCE
from launchers.checks import preflight
from launchers.plan import pipelines, plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides, parse_settings
from launchers.run import directory
from tests.conftest import REPO

FAMILY = sorted(name.split("/")[1] for name in compose.recipe_names() if name.startswith("long_cot/"))
MODELS = {
    ("llama", "base"): "meta-llama/Llama-3.1-8B",
    ("llama", "zero"): "meta-llama/Llama-3.1-8B",
    ("llama", "instruct"): "meta-llama/Llama-3.1-8B-Instruct",
    ("qwen", "base"): "Qwen/Qwen2.5-7B",
    ("qwen", "zero"): "Qwen/Qwen2.5-7B",
    ("qwen", "instruct"): "Qwen/Qwen2.5-7B-Instruct",
}
# recipe: learning rate, prompts a step, temperature, top_p, prompt tokens, epochs, save_every, thinking, strict
ONLINE: dict[str, tuple[Any, ...]] = {
    "grpo_llama_base_think": (1e-6, 64, 0.7, 1.0, 1024, 2, 45, "think", False),
    "grpo_llama_base_nothink": (1e-6, 64, 0.7, 1.0, 1024, 2, 45, "none", False),
    "grpo_llama_zero_think": (1e-6, 64, 0.7, 1.0, 896, 4, 45, "zero", False),
    "grpo_llama_zero_nothink": (1e-6, 64, 0.7, 1.0, 896, 4, 45, "zero_nothink", False),
    "grpo_llama_instruct_think": (3e-7, 64, 0.7, 1.0, 1024, 2, 45, "think", True),
    "grpo_llama_instruct_think_as_published": (3e-7, 128, 0.8, 0.95, 1024, 2, 45, "think", True),
    "grpo_llama_instruct_nothink": (3e-7, 64, 0.7, 1.0, 1024, 2, 45, "none", True),
    "grpo_qwen_base_think": (1e-6, 64, 0.7, 1.0, 1024, 2, 45, "think", False),
    "grpo_qwen_base_nothink": (1e-6, 64, 0.7, 1.0, 1024, 2, 45, "none", False),
    "grpo_qwen_base_nothink_as_published": (1e-6, 128, 0.8, 0.95, 1024, 2, 45, "none", False),
    "grpo_qwen_zero_think": (1e-6, 64, 0.7, 1.0, 896, 2, 50, "zero", False),
    "grpo_qwen_zero_nothink": (1e-6, 64, 0.7, 1.0, 896, 2, 45, "zero_nothink", False),
    "grpo_qwen_instruct_think": (3e-7, 64, 0.7, 1.0, 1024, 2, 45, "think", True),
    "grpo_qwen_instruct_think_as_published": (3e-7, 128, 0.8, 0.95, 1024, 2, 45, "think", True),
    "grpo_qwen_instruct_nothink": (3e-7, 64, 0.7, 1.0, 1024, 2, 45, "none", True),
    "ppo_llama_base_think": (1e-6, 64, 0.7, 1.0, 896, 2, 55, "think", False),
    "ppo_llama_base_nothink": (1e-6, 64, 0.7, 1.0, 896, 2, 55, "none", False),
}
FORMAT = re.compile(r'"(?:thinking|format)": ?"(?!sharegpt|verl)(\w+)"')
SFT = [f"sft_{model}_{kind}_{mode}" for model in ("llama", "qwen") for kind in ("base", "instruct")
       for mode in ("think", "nothink")]  # fmt: skip
DPO = [name.replace("sft_", "dpo_") for name in SFT]


def test_the_family_is_whole() -> None:
    assert (
        sorted([*SFT, "sft_qwen_32b_think", *DPO, "dpo_llama_base_think_as_published", *ONLINE, "grpo_2x8"]) == FAMILY
    )


@pytest.mark.parametrize("name", ONLINE)
def test_online_recipes_have_the_published_values(name: str) -> None:
    recipe = compose.resolve(f"long_cot/{name}").recipe
    train, rollout, reward, algorithm = recipe.train, recipe.rollout, recipe.reward, recipe.algorithm
    assert rollout
    assert reward
    assert algorithm
    assert ONLINE[name] == (
        train.learning_rate, rollout.prompts, rollout.temperature, rollout.top_p, rollout.max_prompt_length,
        train.epochs, train.save_every, recipe.thinking, reward.params.get("strict", False),
    )  # fmt: skip
    critic = name.startswith("ppo_")
    assert rollout.samples == (1 if critic else 8)
    assert train.global_batch == 64 * rollout.samples  # the published mini-batch of 64 prompts
    assert (rollout.max_response_length, rollout.top_k, rollout.tensor_parallel) == (4096, -1, 2)
    assert (train.weight_decay, train.max_grad_norm, train.schedule, train.warmup_ratio) == (0.01, 1.0, "constant", 0)
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.entropy_coef) == (0.2, 0.2, 0.001)
    assert (algorithm.advantages, algorithm.kl, algorithm.kl_coef) == (
        ("gae", "none", 0.0) if critic else ("group", "loss", 0.001)
    )
    if critic:
        assert algorithm.critic
        assert algorithm.critic.learning_rate == 1e-5
    assert recipe.reward_model
    assert recipe.reward_model.model == "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"
    assert recipe.eval
    _, model, kind, mode = name.removesuffix("_as_published").split("_")
    assert recipe.model == MODELS[model, kind]
    assert recipe.model_of == (None if kind == "zero" else f"long_cot/sft_{model}_{kind}_{mode}")


@pytest.mark.parametrize("name", ONLINE)
def test_held_out_reward_and_evaluation_are_the_training_reward(name: str) -> None:
    made = plan.build(compose.resolve(f"long_cot/{name}"), Path("/run"))
    files = directory.files(made)
    trained, judged = (json.loads(files[f"train/{file}.json"]) for file in ("reward", "judge"))
    assert trained["validation"]["wildchat_if_val"] == {"reward": trained["reward"], "params": trained["params"]}
    scores = [step.params for step in made.specs["eval/after.spec.json"].steps if step.kind == "score"]
    assert [given["params"] for given in scores if given["reward"] == "model"] == [trained["params"]]
    assert judged["params"] == {**trained["params"], "url": judged["params"]["url"]}
    assert judged["params"]["url"] != trained["params"]["url"]


@pytest.mark.parametrize("name", FAMILY)
def test_one_word_swaps_the_format_of_data_reward_and_evaluation(name: str) -> None:
    for scale in (None, "mini") if compose.scales_of(f"long_cot/{name}") else (None,):
        given = Overrides(scale, tuple(parse_settings(["thinking=answer_tags"])))
        resolved, faults = preflight.check(compose.resolve(f"long_cot/{name}", given))
        assert [fault.key for fault in faults] == (["thinking"] if resolved.recipe.zero else [])
        made = plan.build(resolved, Path("/run"))
        texts = [spec.model_dump_json() for spec in made.specs.values()]
        texts += [text for path, text in directory.files(made).items() if path.endswith(("reward.json", "judge.json"))]
        formats = {match[1] for text in texts for match in FORMAT.finditer(text)}
        assert formats == {"answer_tags"}


def test_a_zero_model_begins_with_no_trained_one_and_is_read_in_its_own_format() -> None:
    """A format that the template does not ask for makes every completion malformed."""
    given = Overrides(settings=tuple(parse_settings(["zero=zero"])))
    _, faults = preflight.check(compose.resolve("long_cot/grpo_llama_base_think", given))
    assert [fault.key for fault in faults] == ["zero", "thinking"]
    assert "set it to zero" in faults[1].message


@pytest.mark.parametrize("name", SFT)
def test_sft_recipes_have_the_papers_values(name: str) -> None:
    recipe = compose.resolve(f"long_cot/{name}").recipe
    train = recipe.train
    assert (train.global_batch, train.learning_rate, train.epochs, train.max_length) == (16, 4e-6, 2, 20000)
    assert (train.schedule, train.warmup_ratio, train.weight_decay) == ("cosine", 0.1, 1e-4)
    assert (train.adam_beta1, train.adam_beta2) == (0.9, 0.95)
    assert recipe.native["fsdp_config"] == "full_shard"
    _, model, kind, mode = name.split("_")
    assert (recipe.model, recipe.data) == (MODELS[model, kind], "sft")
    assert recipe.thinking == ("think" if mode == "think" else "none")


@pytest.mark.parametrize("name", DPO)
def test_dpo_recipes_have_the_papers_values(name: str) -> None:
    recipe = compose.resolve(f"long_cot/{name}").recipe
    train = recipe.train
    assert recipe.preference
    assert (recipe.preference.loss, recipe.preference.beta) == ("sigmoid", 0.1)
    assert (train.global_batch, train.learning_rate, train.epochs, train.max_length) == (128, 3e-7, 2, 4096)
    assert (train.schedule, train.warmup_ratio, train.weight_decay) == ("cosine", 0.05, 1e-4)
    assert recipe.model_of == f"long_cot/{name.replace('dpo_', 'sft_')}"
    batch = plan.build(compose.resolve(f"long_cot/{name}"), Path("/run")).main.batch
    assert (batch.micro, batch.accumulation, batch.world) == (1, 16, 8)  # the reward server has ended by then


@pytest.mark.parametrize("scale", [None, "mini"])
@pytest.mark.parametrize("name", DPO)
def test_dpo_measures_its_loss_on_the_prompts_that_its_data_hold_out(name: str, scale: str | None) -> None:
    made = plan.build(pipelines.with_local_model(compose.resolve(f"long_cot/{name}", Overrides(scale))), Path("/run"))
    trained, held_out = (made.specs[f"data/{part}.json"].steps for part in ("train", "validation"))
    assert trained[:-2] == held_out[:-2]
    assert {**trained[-2].params, "part": "validation"} == held_out[-2].params
    files = directory.files(made)
    config = yaml.safe_load(files["train/llamafactory.yaml"])
    assert (config["dataset"], config["eval_dataset"], config["eval_steps"]) == ("train", "validation", 0.1)
    assert config["dataset_dir"] == "/run/train"
    info = json.loads(files["train/dataset_info.json"])
    assert info["validation"]["ranking"]
    assert {Path(entry["file_name"]).parent for entry in info.values()} == {made.main.dataset, made.main.validation}
    (command,) = (c for c in made.commands if "data/validation.json" in c.argv)
    assert command.argv[-1] == "split,export"  # the samples and their scores are the training's


@pytest.mark.parametrize("name", DPO)
def test_dpo_is_evaluated_as_the_online_recipe_of_its_name(name: str) -> None:
    scored = [
        [step.params for step in made.specs["eval/after.spec.json"].steps if step.params.get("reward") == "model"]
        for recipe in (name, name.replace("dpo_", "grpo_"))
        for made in [plan.build(compose.resolve(f"long_cot/{recipe}"), Path("/run"))]
    ]
    assert scored[0] == scored[1] != []


@pytest.mark.parametrize(
    ("name", "limit", "margin"),
    [*((name, 4096, HALF_TOLERANCE) for name in DPO), ("dpo_llama_base_think_as_published", 8192, 0.0)],
)
def test_pairs_fit_training_and_differ_by_more_than_noise_but_as_published(
    name: str, limit: int, margin: float
) -> None:
    steps = {step.kind: step.params for step in pipelines.data_steps(compose.resolve(f"long_cot/{name}"), {})}
    assert steps["token_limit"]["max_tokens"] == limit
    assert steps["pairs"].get("margin", 0.0) == margin


@pytest.mark.parametrize("name", [name for name in FAMILY if name.endswith("_think")])
def test_a_twin_without_thoughts_differs_in_format_and_length_only(name: str) -> None:
    twin = name.removesuffix("_think") + "_nothink"
    if twin not in FAMILY:
        assert name == "sft_qwen_32b_think"
        return
    think, nothink = (compose.resolve(f"long_cot/{recipe}").recipe.model_dump() for recipe in (name, twin))
    differs = {key for key in think if think[key] != nothink[key]}
    allowed = {"extends", "thinking", "data", "eval", "model_of", "reward", "zero"}
    if name == "grpo_qwen_zero_think":  # the published files save and validate at other steps
        allowed |= {"train", "validation"}
    assert differs <= allowed


@pytest.mark.parametrize(
    ("name", "stop"), [("zero_think", ["</response>"]), ("zero_nothink", ["</response>"]), ("base_think", None)]
)
def test_sampling_ends_with_the_answers_mark(name: str, stop: list[str] | None) -> None:
    resolved = compose.resolve(f"long_cot/grpo_llama_{name}")
    (generate,) = (s.params for s in plan.eval_spec(resolved, "after", "m", None).steps if s.kind == "generate")
    assert generate.get("sampling") == ({"include_stop_str_in_output": True} if stop else None)
    assert generate.get("stop") == (stop and tuple(stop))
    config = yaml.safe_load(directory.files(plan.build(resolved, Path("/run")))["train/verl.yaml"])
    assert config["actor_rollout_ref"]["rollout"].get("custom") == (stop and {"stop": stop})


@pytest.mark.parametrize("name", FAMILY)
def test_the_papers_figures_stand_beside_ours(name: str) -> None:
    """A trained model's evaluations by _eval_rules and _eval_alpaca have the paper's rows of its model."""
    recipe = compose.resolve(f"long_cot/{name}").recipe
    if "32b" not in name:  # not in the paper
        row = {"sft": "SFT", "dpo": "GRPO", "ppo": "GRPO", "grpo": "GRPO"}[recipe.method]
        model = recipe.model.partition("/")[2] + (" zero" if recipe.zero else "")
        mode = "no thought" if recipe.thinking in ("none", "zero_nothink") else "thought"
        assert {"alpaca_eval_lc", "popqa", "ifbench", "mmlu_redux_generative"} <= set(
            recipe.reference[f"{model} {row}, {mode}"]
        )


@pytest.mark.parametrize("thinking", ["zero", "zero_nothink"])
def test_dpo_of_a_zero_model_samples_scores_and_trains_in_its_format(thinking: str, tmp_path: Path) -> None:
    copy = zero.write_copy(str(REPO / "recipes/mini/model"), None, thinking, tmp_path / "copy")  # type: ignore[arg-type]
    given = {"data": "dpo_prompted", "model": str(copy), "revision": "null", "model_of": "null", "thinking": thinking}
    overrides = Overrides(settings=tuple((key, value, "--set") for key, value in given.items()))
    resolved, faults = preflight.check(compose.resolve("long_cot/dpo_llama_base_think", overrides))
    assert faults == []
    built = plan.build(resolved, tmp_path / "run")
    steps = {step.name: step.params for step in built.specs["data/train.json"].steps}
    assert (steps["generate"]["model"], steps["generate"]["stop"]) == (str(copy), ["</response>"])
    assert steps["score"]["params"]["thinking"] == thinking
    assert yaml.safe_load(directory.files(built)["train/llamafactory.yaml"])["template"] is None  # the model's own


def test_dpo_scores_samples_in_the_recipes_format() -> None:
    """A model whose chat template opens the thought writes no opening mark: in another format all were malformed."""
    overrides = Overrides(settings=(("thinking", "think_prefilled", "--set"),))
    built = plan.build(compose.resolve("long_cot/dpo_llama_base_think", overrides), Path("/run"))
    (score,) = (step.params for step in built.specs["data/train.json"].steps if step.kind == "score")
    assert score["params"]["thinking"] == "think_prefilled"


def test_mini_recipes_claim_nothing() -> None:
    for name in FAMILY:
        if compose.scales_of(f"long_cot/{name}"):
            recipe = compose.resolve(f"long_cot/{name}", Overrides("mini")).recipe
            assert recipe.hardware == "cpu"
            assert not recipe.comparable
