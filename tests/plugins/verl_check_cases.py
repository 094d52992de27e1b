"""check.py on good and bad configs: run by test_verl_check.py with the interpreter of verl's environment."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from omegaconf import DictConfig

from launchers.plugins.verl import check, dump_keys
from tests.plugins.verl_check_making import CRITIC, FUNCTION, POLICY, REPO, ROLLOUT, Training, found_in


def test_a_good_config_has_no_fault(training: Training) -> None:
    assert training.faults() == []
    assert training.said == ["prompts over the limit: 0 of 40", "validation prompts over the limit: 0 of 4"]


def test_nor_has_its_overlay_for_a_cpu(training: Training) -> None:
    assert training.faults(name="cpu") == []
    assert check.compose(training.path, "cpu").trainer.device == "cpu"
    assert check.compose(training.path, "verl").trainer.device == "cuda"


@pytest.mark.parametrize(
    "overrides",
    [
        CRITIC,
        (f"{POLICY}.use_kl_loss=true", f"{POLICY}.kl_loss_coef=0.01", f"{POLICY}.kl_loss_type=k3"),
        ("algorithm.use_kl_in_reward=true", "algorithm.kl_penalty=k1", "algorithm.kl_ctrl.kl_coef=0.01"),
        (f"{POLICY}.policy_loss.loss_mode=clip_higher", f"{POLICY}.clip_ratio_high=0.28"),
        (
            f"{POLICY}.policy_loss.loss_mode=dr_grpo",
            f"{POLICY}.loss_agg_mode=seq-mean-token-sum-norm",
            f"{POLICY}.loss_scale_factor=72",
            "algorithm.adv_estimator=adv_none",
        ),
        ("+algorithm.truncated=mask", "+algorithm.truncated_limit=72"),
        (f"+{POLICY}.fsdp_config.mixed_precision.param_dtype=fp32",),
        (f"{POLICY}.strategy=fsdp",),
        (f"+{ROLLOUT}.engine_kwargs.vllm.swap_space=4",),
        ("trainer.total_training_steps=3", "trainer.logger=wandb"),
        ("algorithm.rollout_correction=null",),
    ],
)
def test_what_verl_or_our_plugin_reads_is_no_fault(good: DictConfig, overrides: tuple[str, ...]) -> None:
    assert found_in(good, overrides) == []


# Overrides, the key that is at fault, a word of the message.
MISTAKES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "an old tree": (
        ("custom_reward_function.path=/nope.py",),
        "custom_reward_function.path",
        f"set {FUNCTION}.path",
    ),
    "an old key that has moved": (
        ("reward_model.model.path=/rm",),
        "reward_model.model.path",
        "set reward.reward_model.model_path",
    ),
    "an old sandbox": (("sandbox_fusion.url=http://x",), "sandbox_fusion.url", "set reward.sandbox_fusion.url"),
    "unknown in data": (("+data.max_promt_length=5",), "data.max_promt_length", "'data.max_prompt_length'"),
    "unknown in trainer": (("+trainer.train_batch_size=5",), "trainer.train_batch_size", "'data.train_batch_size'"),
    "unknown in a dataclass": ((f"+{POLICY}.klloss_coef=1",), f"{POLICY}.klloss_coef", "kl_loss_coef'"),
    "unknown tree": (("+rollout.n=8",), "rollout.n", f"{ROLLOUT}.n'"),
    "a mapping for a value": (("data.train_batch_size={a:1}",), "data.train_batch_size.a", "is a single value"),
    "a value for a mapping": (("reward.reward_manager=naive",), "reward.reward_manager", "keys of its own"),
    "verl's class changed": ((f"{POLICY}._target_=nope",), f"{POLICY}._target_", "take it away"),
    "mandatory": ((f"{ROLLOUT}.name='???'",), f"{ROLLOUT}.name", "has no value: give one of"),
    "mandatory in our own": (
        (f"{FUNCTION}.reward_kwargs.config='???'",),
        f"{FUNCTION}.reward_kwargs.config",
        "no value",
    ),
    "unresolvable": (("data.seed=${nope}",), "data.seed", "${nope} cannot be resolved"),
    "a word for a number": (("trainer.n_gpus_per_node=four",), "trainer.n_gpus_per_node", "type int, not 'four'"),
    "a number for a switch": ((f"{POLICY}.use_kl_loss=3",), f"{POLICY}.use_kl_loss", "type bool, not 3"),
    "nothing for a number": (("data.train_batch_size=null",), "data.train_batch_size", "must have a value"),
    "nan": ((f"{POLICY}.optim.lr=nan",), f"{POLICY}.optim.lr", "finite"),
    "below its range": ((f"{POLICY}.optim.lr=-1e-6",), f"{POLICY}.optim.lr", "more than 0"),
    "zero": ((f"{ROLLOUT}.tensor_model_parallel_size=0",), f"{ROLLOUT}.tensor_model_parallel_size", "at least 1"),
    "above its range": ((f"{ROLLOUT}.top_p=1.5",), f"{ROLLOUT}.top_p", "at most 1, not 1.5"),
    "estimator": (("algorithm.adv_estimator=grpoo",), "algorithm.adv_estimator", "did you mean 'grpo'"),
    "loss": ((f"{POLICY}.policy_loss.loss_mode=dr_grp",), f"{POLICY}.policy_loss.loss_mode", "'dr_grpo'"),
    "aggregation": (
        (f"{POLICY}.policy_loss.loss_mode=gspo",),
        f"{POLICY}.loss_agg_mode",
        "token-mean is not what loss gspo does: take seq-mean-token-mean",
    ),
    "no scale for dr_grpo": (
        (f"{POLICY}.policy_loss.loss_mode=dr_grpo", f"{POLICY}.loss_agg_mode=seq-mean-token-sum-norm"),
        f"{POLICY}.loss_scale_factor",
        "take data.max_response_length (72)",
    ),
    "clip range of clip_higher": (
        (f"{POLICY}.policy_loss.loss_mode=clip_higher",),
        f"{POLICY}.clip_ratio_high",
        "clip_ratio_low < clip_ratio_high",
    ),
    "clip range of ppo_clip": (
        (f"{POLICY}.clip_ratio_high=0.3",),
        f"{POLICY}.clip_ratio_high",
        "take loss clip_higher",
    ),
    "rollout engine": ((f"{ROLLOUT}.name=vlm",), f"{ROLLOUT}.name", "did you mean 'vllm'"),
    "logger": (("trainer.logger=[console,wandbb]",), "trainer.logger", "did you mean 'wandb'"),
    "resume mode": (("trainer.resume_mode=never",), "trainer.resume_mode", "auto, disable, resume_path"),
    "resume path": (("trainer.resume_mode=resume_path",), "trainer.resume_from_path", "is not set"),
    "resume path of no step": (
        ("trainer.resume_mode=resume_path", "trainer.resume_from_path=/nope/last"),
        "trainer.resume_from_path",
        "global_step_<n>",
    ),
    "trainer mode": (("trainer.v1.trainer_mode=syncc",), "trainer.v1.trainer_mode", "did you mean 'sync'"),
    "the other trainer": (("trainer.use_v1=true",), "trainer.use_v1", "must be false"),
    "strategy": ((f"{POLICY}.strategy=fsdp3",), f"{POLICY}.strategy", "'fsdp"),
    "precision": (
        (f"+{POLICY}.fsdp_config.mixed_precision={{param_dtype:fp8}}",),
        f"{POLICY}.fsdp_config.mixed_precision.param_dtype",
        "none of fp32, bf16, fp16",
    ),
    "rollout precision": ((f"{ROLLOUT}.dtype=fp32",), f"{ROLLOUT}.dtype", "float32"),
    "tensor parallel": (
        (f"{ROLLOUT}.tensor_model_parallel_size=3",),
        f"{ROLLOUT}.tensor_model_parallel_size",
        "1, 2, 4",
    ),
    "batch and mini batch": (
        ("data.train_batch_size=6", f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=2"),
        f"{POLICY}.ppo_mini_batch_size",
        "4 does not divide the 6 prompts of a step: take 1, 2, 3, 6",
    ),
    "completions and GPUs": (
        ("trainer.n_gpus_per_node=3", f"{POLICY}.use_dynamic_bsz=true"),
        "data.train_batch_size",
        "4 prompts × 4 samples = 16 completions do not divide by 3 GPUs",
    ),
    "an update and GPUs": (
        ("trainer.n_gpus_per_node=3", f"{POLICY}.use_dynamic_bsz=true", "data.train_batch_size=12"),
        f"{POLICY}.ppo_mini_batch_size",
        "16 completions an update do not divide by 3 GPUs",
    ),
    "mini and micro batch": (
        (f"{POLICY}.ppo_micro_batch_size_per_gpu=3",),
        f"{POLICY}.ppo_micro_batch_size_per_gpu",
        "3 does not divide the 4 completions that a GPU gets: take 1, 2, 4",
    ),
    "no micro batch": (
        (f"{POLICY}.ppo_micro_batch_size_per_gpu=null",),
        f"{POLICY}.ppo_micro_batch_size_per_gpu",
        "must be set",
    ),
    "the old micro batch": ((f"{POLICY}.ppo_micro_batch_size=4",), f"{POLICY}.ppo_micro_batch_size", "no longer used"),
    "agent workers": ((f"{ROLLOUT}.agent.num_workers=3",), f"{ROLLOUT}.agent.num_workers", "take 1, 2, 4, 8, 16"),
    "a group of one": (
        (
            f"{ROLLOUT}.n=1",
            f"{POLICY}.ppo_micro_batch_size_per_gpu=1",
            f"{ROLLOUT}.agent.num_workers=4",
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=1",
        ),
        f"{ROLLOUT}.n",
        "adv_group has nothing to compare",
    ),
    "a critic without gae": (("critic.enable=true", *CRITIC[1:]), "critic.enable", "adv_group has no use for"),
    "the critic's model": ((*CRITIC, "critic.model.path=/nope"), "critic.model.path", "no folder /nope"),
    "the critic's micro batch": (
        (*CRITIC, "critic.ppo_micro_batch_size_per_gpu=3"),
        "critic.ppo_micro_batch_size_per_gpu",
        "3 does not divide the 4",
    ),
    "the critic's mini batch": (
        (*CRITIC, "critic.ppo_mini_batch_size=3", "critic.ppo_micro_batch_size_per_gpu=3"),
        "critic.ppo_mini_batch_size",
        "3 does not divide the 4 prompts",
    ),
    "KL twice": (
        ("algorithm.use_kl_in_reward=true", f"{POLICY}.use_kl_loss=true"),
        f"{POLICY}.use_kl_loss",
        "charged twice",
    ),
    "KL of nothing": (
        (f"{POLICY}.use_kl_loss=true", f"{POLICY}.kl_loss_coef=0"),
        f"{POLICY}.kl_loss_coef",
        "0 charges nothing",
    ),
    "KL in the reward of nothing": (
        ("algorithm.use_kl_in_reward=true", "algorithm.kl_ctrl.kl_coef=0"),
        "algorithm.kl_ctrl.kl_coef",
        "0 charges nothing",
    ),
    "KL of no kind": ((f"{POLICY}.kl_loss_type=k4",), f"{POLICY}.kl_loss_type", "'k4' is not one"),
    "truncation policy that gae does not read": (
        (*CRITIC, "+algorithm.truncated=mask", "+algorithm.truncated_limit=72"),
        "algorithm.truncated",
        "not by gae",
    ),
    "truncation limit": (
        ("+algorithm.truncated=mask", "+algorithm.truncated_limit=64"),
        "algorithm.truncated_limit",
        "64 must be data.max_response_length (72)",
    ),
    "greedy that samples": (
        (f"{ROLLOUT}.val_kwargs.do_sample=false",),
        f"{ROLLOUT}.val_kwargs.do_sample",
        "is not read",
    ),
    "gradient clip that is not read": ((f"{POLICY}.grad_clip=0.5",), f"{POLICY}.grad_clip", "optim.clip_grad to 0.5"),
    "clip ratio that is not read": ((f"{POLICY}.clip_ratio=0.3",), f"{POLICY}.clip_ratio", "is not read"),
    "precision that is not read": ((f"{POLICY}.fsdp_config.dtype=float32",), f"{POLICY}.fsdp_config.dtype", "not read"),
    "asynchronous checkpoints": (
        (f"{POLICY}.checkpoint.async_save=true",),
        f"{POLICY}.checkpoint.async_save",
        "nothing resumes",
    ),
    "checkpoints without the optimizer": (
        (f"{POLICY}.checkpoint.save_contents=[model]",),
        f"{POLICY}.checkpoint.save_contents",
        "lacks optimizer, extra",
    ),
    "log probabilities for bypass_mode": (
        ("algorithm.rollout_correction.bypass_mode=true", f"{ROLLOUT}.calculate_log_probs=false"),
        f"{ROLLOUT}.calculate_log_probs",
        "must be true",
    ),
    "no reward": ((f"{FUNCTION}.path=null",), f"{FUNCTION}.path", "names no reward"),
    "no such reward file": ((f"{FUNCTION}.path=/nope.py",), f"{FUNCTION}.path", "/nope.py"),
    "no such reward module": ((f"{FUNCTION}.path=pkg://rewards.nope",), f"{FUNCTION}.path", "rewards.nope"),
    "no such reward function": ((f"{FUNCTION}.name=compute_scor",), f"{FUNCTION}.name", "did you mean 'compute_score'"),
    "reward function of other arguments": (
        (f"{FUNCTION}.path=pkg://rewards.errors", f"{FUNCTION}.name=nearest"),
        f"{FUNCTION}.name",
        "cannot be called",
    ),
    "reward manager": (("reward.reward_manager.name=batch",), "reward.reward_manager.name", "known: "),
    "reward manager that swallows": (
        ("reward.reward_manager.name=rate_limited",),
        "reward.reward_manager.name",
        "naive",
    ),
    "no settings of the reward": (
        (f"{FUNCTION}.reward_kwargs.config=/nope.json",),
        f"{FUNCTION}.reward_kwargs",
        "/nope.json",
    ),
    "no such reward": (
        (f"{FUNCTION}.reward_kwargs={{reward:mth}}",),
        f"{FUNCTION}.reward_kwargs",
        "did you mean 'math'",
    ),
    "the model": (("actor_rollout_ref.model.path=/nope",), "actor_rollout_ref.model.path", "no folder /nope"),
    "a folder without a model": (
        ("actor_rollout_ref.model.path=HERE",),
        "actor_rollout_ref.model.path",
        "cannot be loaded: ",
    ),
    "more tokens than positions": (
        ("data.max_response_length=100000", f"{ROLLOUT}.max_model_len=null"),
        "data.max_response_length",
        "positions: take at most",
    ),
    "more than the engine's": ((f"{ROLLOUT}.max_model_len=90",), f"{ROLLOUT}.max_model_len", "24 prompt + 72 response"),
    "no data": (("data.train_files=/nope.parquet",), "data.train_files", "no file /nope.parquet"),
    "no validation data": (("data.val_files=[/nope.parquet]",), "data.val_files", "no file /nope.parquet"),
    "data of another kind": (
        ("data.train_files=HERE/cpu.yaml",),
        "data.train_files",
        "verl reads .parquet, .json and .jsonl",
    ),
    "data that is none": (("data.train_files=HERE/broken.parquet",), "data.train_files", "cannot be read"),
    "columns": (
        ("data.train_files=HERE/other.parquet",),
        "data.train_files",
        "no column 'prompt'; did you mean 'promt'?",
    ),
    "less than a batch": (
        ("data.train_batch_size=64",),
        "data.train_batch_size",
        "40 of 40 prompts are left",
    ),
    "all too long": (
        ("data.train_files=HERE/long.parquet",),
        "data.max_prompt_length",
        "0 of 40 prompts are left (40 have more",
    ),
    "cut prompts": (
        ("data.filter_overlong_prompts=false", "data.train_files=HERE/mixed.parquet"),
        "data.filter_overlong_prompts",
        "cut from the left",
    ),
    "a sample of less than a batch": (
        ("data.train_max_samples=3",),
        "data.train_max_samples",
        "3 prompts are less than one batch of 4: take at least 4",
    ),
    "a v1 mode": (("trainer.v1.trainer_mode=colocate_async",), "trainer.v1.trainer_mode", "take sync"),
    "no hybrid engine": (("actor_rollout_ref.hybrid_engine=false",), "actor_rollout_ref.hybrid_engine", "must be true"),
    "validation only, and never": (
        ("trainer.val_only=true", "trainer.val_before_train=false"),
        "trainer.val_only",
        "val_before_train=True",
    ),
    "resume path that is not there": (
        ("trainer.resume_mode=resume_path", "trainer.resume_from_path=/nope/global_step_3"),
        "trainer.resume_from_path",
        "no folder /nope/global_step_3",
    ),
    "hdfs": (("trainer.default_hdfs_dir=hdfs://a",), "trainer.default_hdfs_dir", "cannot resume"),
    "tensor parallel across nodes": (
        (
            "trainer.nnodes=2",
            "trainer.n_gpus_per_node=3",
            f"{ROLLOUT}.tensor_model_parallel_size=2",
            "data.train_batch_size=12",
            f"{POLICY}.ppo_mini_batch_size=12",
        ),
        f"{ROLLOUT}.tensor_model_parallel_size",
        "2 does not divide the 3 GPUs of a node: take 1, 3",
    ),
    "tensor parallel and heads": (
        (
            "trainer.n_gpus_per_node=8",
            f"{ROLLOUT}.tensor_model_parallel_size=8",
            f"{POLICY}.ppo_micro_batch_size_per_gpu=2",
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=2",
        ),
        f"{ROLLOUT}.tensor_model_parallel_size",
        "8 does not divide the model's 4 attention heads",
    ),
    "shards": ((f"{POLICY}.fsdp_config.fsdp_size=3",), f"{POLICY}.fsdp_config.fsdp_size", "3 does not divide 4 GPUs"),
    "sequence parallel": (
        (f"{POLICY}.ulysses_sequence_parallel_size=3",),
        f"{POLICY}.ulysses_sequence_parallel_size",
        "3 does not divide 4 GPUs",
    ),
    "batches of generation": (("data.gen_batch_size=8",), "data.gen_batch_size", "must be data.train_batch_size (4)"),
    "dynamic batches on one side": (
        (f"{ROLLOUT}.log_prob_use_dynamic_bsz=true",),
        f"{ROLLOUT}.log_prob_use_dynamic_bsz",
        f"{POLICY}.use_dynamic_bsz",
    ),
    "lengths said twice": ((f"{ROLLOUT}.response_length=64",), f"{ROLLOUT}.response_length", "(72): leave it out"),
    "more than positions for the engine": (
        (f"{ROLLOUT}.max_model_len=100000",),
        f"{ROLLOUT}.max_model_len",
        "100000 is more than the model's",
    ),
    "tokens of a dynamic batch": (
        (f"{POLICY}.use_dynamic_bsz=true", f"{POLICY}.ppo_max_token_len_per_gpu=80"),
        f"{POLICY}.ppo_max_token_len_per_gpu",
        "80 tokens do not hold one completion of 96",
    ),
    "dro without its number": (
        (f"{POLICY}.policy_loss.loss_mode=dro",),
        f"{POLICY}.policy_loss.dro_beta",
        "must be set",
    ),
    "another trainer's scaling": (
        ("algorithm.norm_adv_by_std_in_grpo=false",),
        "algorithm.norm_adv_by_std_in_grpo",
        "take adv_none",
    ),
    "filter": (("algorithm.filter_groups.enable=true",), "algorithm.filter_groups.enable", "v1 trainer only"),
    "penalty of nothing": (
        ("+algorithm.truncated=penalise", "+algorithm.truncated_limit=72"),
        "algorithm.truncated_penalty",
        "give one below 0",
    ),
    "adaptive KL": (
        ("algorithm.use_kl_in_reward=true", "algorithm.kl_ctrl.type=adaptive", "algorithm.kl_ctrl.horizon=0"),
        "algorithm.kl_ctrl.horizon",
        "more than 0",
    ),
    "no sampling": ((f"{ROLLOUT}.do_sample=false",), f"{ROLLOUT}.do_sample", "is not read"),
    "greedy samples": (
        (f"{ROLLOUT}.val_kwargs.temperature=0", f"{ROLLOUT}.val_kwargs.n=3"),
        f"{ROLLOUT}.val_kwargs.n",
        "all 3 samples are the same",
    ),
    "repetition penalty": ((f"+{ROLLOUT}.repetition_penalty=1.1",), f"{ROLLOUT}.repetition_penalty", "is not read"),
    "precision of nothing": (
        (f"+{POLICY}.fsdp_config.mixed_precision.parm_dtype=fp32",),
        f"{POLICY}.fsdp_config.mixed_precision.parm_dtype",
        "is none of param_dtype",
    ),
    "a reward manager of one's own": (
        (
            "reward.reward_manager.source=importlib",
            "reward.reward_manager.name=Mine",
            "reward.reward_manager.module.path=/nope.py",
        ),
        "reward.reward_manager.module.path",
        "/nope.py",
    ),
    "no function": ((f"{FUNCTION}.name=REFERENCES",), f"{FUNCTION}.name", "is not a function"),
    "a reward model of no server": (
        (f"{FUNCTION}.reward_kwargs={{reward:model}}", "data.train_files=HERE/rowless.parquet"),
        "data.train_files",
        "1 of 1 golds cannot be used by the reward: a/0 ('7': no prompt)",
    ),
    "golds in no struct": (
        ("data.train_files=HERE/goldless.parquet",),
        "data.train_files",
        "'reward_model' must hold {ground_truth: …}",
    ),
    "prompts that are texts": (("data.train_files=HERE/texts.parquet",), "data.train_files", "must hold chat messages"),
    "what verl finds of several keys": (
        (f"{POLICY}.ulysses_sequence_parallel_size=2", "actor_rollout_ref.model.use_remove_padding=false"),
        "actor_rollout_ref.model.use_remove_padding",
        "verl refuses it: When using sequence parallelism",
    ),
    "what verl finds": (
        (f"{ROLLOUT}.pipeline_model_parallel_size=2",),
        f"{ROLLOUT}.pipeline_model_parallel_size",
        "verl refuses it: ",
    ),
    "what verl finds and does not explain": (
        (f"{POLICY}.optim.warmup_style=linear",),
        f"{POLICY}.optim",
        "verl refuses it: ",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_and_nothing_else(good: DictConfig, name: str) -> None:
    overrides, key, word = MISTAKES[name]
    found = found_in(good, overrides)
    assert [one for one, _ in found] == [key], found
    assert word in found[0][1]
    assert "\n" not in found[0][1]


def test_every_mistake_of_several_is_told(good: DictConfig) -> None:
    several = ("+data.foo=1", "algorithm.adv_estimator=grpoo", "trainer.n_gpus_per_node=x", "data.train_files=/a.json")
    found = found_in(good, several)
    assert {key for key, _ in found} == {
        "data.foo", "algorithm.adv_estimator", "trainer.n_gpus_per_node", "data.train_files",
    }  # fmt: skip


def test_on_a_cpu_fsdp_must_be_the_second(training: Training) -> None:
    assert training.faults(f"{POLICY}.strategy=fsdp", name="cpu") == [
        (f"{POLICY}.strategy", "fsdp needs a GPU: on a CPU take fsdp2")
    ]


def test_native_lies_over_the_other_layers_and_is_checked(training: Training) -> None:
    training.write("native.yaml", {"trainer": {"n_gpus_per_node": 2, "nope": 1}})
    assert check.compose(training.path, "cpu").trainer.n_gpus_per_node == 2
    assert [key for key, _ in training.faults()] == ["trainer.nope"]


@pytest.mark.parametrize(
    ("file", "content"),
    [("verl.yaml", "data: [1"), ("native.yaml", "data: [1"), ("native.yaml", "- 1"), ("verl.yaml", "defaults: [nope]")],
)
def test_a_file_that_cannot_be_read_is_one_line(training: Training, file: str, content: str) -> None:
    training.write(file, content)
    with pytest.raises(check.CannotCompose) as caught:
        check.compose(training.path, "verl")
    assert str(caught.value).startswith(f"{file}: ")
    assert "\n" not in str(caught.value)


def test_faults_are_told_in_the_recipes_words() -> None:
    origins: Mapping[str, Any] = {
        "data": ["data", "a.yaml:1"],
        f"{ROLLOUT}.n": ["rollout.samples", "recipes/min_o1/grpo.yaml:12"],
        f"{POLICY}.optim": ["native.optim", "a.yaml:3"],
        f"{POLICY}.optim.lr": ["train.learning_rate", "a.yaml:4"],
    }
    found = [
        check.NativeFault(f"{ROLLOUT}.n", "is 1"),
        check.NativeFault(f"{POLICY}.optim.lr", "is 0"),
        check.NativeFault(f"{POLICY}.optim.foo", "is unknown"),
        check.NativeFault(f"{ROLLOUT}.name", "is vlm"),
    ]
    assert check.explain(found, origins) == [
        f"recipes/min_o1/grpo.yaml:12: rollout.samples: is 1 (verl's {ROLLOUT}.n)",
        f"a.yaml:4: train.learning_rate: is 0 (verl's {POLICY}.optim.lr)",
        f"a.yaml:3: native.optim: is unknown (verl's {POLICY}.optim.foo)",
        f"verl.yaml: {ROLLOUT}.name: is vlm",
    ]


def test_the_command(training: Training, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main([str(training.path), "verl"]) == 0
    assert capsys.readouterr() == (
        "prompts over the limit: 0 of 40\nvalidation prompts over the limit: 0 of 4\nno faults\n", "",
    )  # fmt: skip
    training.write("native.yaml", {"trainer": {"logger": ["wandbb"]}})
    training.write("origins.json", json.dumps({"trainer.logger": ["loggers", "recipe.yaml:7"]}))
    assert check.main([str(training.path), "verl", "--no-data"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("recipe.yaml:7: loggers: 'wandbb' is not one that verl knows; did you mean 'wandb'?")
    assert check.main([str(training.path), "verl", "--json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["faults"][0]["key"] == "trainer.logger"
    assert told["counts"][0] == "prompts over the limit: 0 of 40"
    training.write("verl.yaml", "data: [1")
    assert check.main([str(training.path), "cpu"]) == 2
    assert capsys.readouterr().err.startswith("verl.yaml: ")


def test_the_keys_file_is_that_of_this_verl() -> None:
    assert (REPO / "configs" / "native" / "verl.json").read_text() == dump_keys.text()


def test_keys_have_types_choices_and_successors() -> None:
    known = json.loads(dump_keys.text())
    assert known["keys"][f"{POLICY}.optim.lr"] == {"type": "float"}
    assert known["keys"][f"{ROLLOUT}.enable_sleep_mode"] == {"type": "bool"}
    assert known["keys"]["data.train_batch_size"] == {"type": "int"}
    assert "dr_grpo" in known["keys"][f"{POLICY}.policy_loss.loss_mode"]["choices"]
    assert "file" in known["keys"]["trainer.logger"]["items"]
    assert f"{POLICY}.fsdp_config.mixed_precision" in known["free"]
    assert f"{POLICY}.fsdp_config.micro_batch_size_per_gpu" not in known["keys"]  # verl's worker sets it
    assert not any(key.split(".")[0] in known["legacy"] for key in known["keys"])
    assert known["legacy"]["custom_reward_function"] == FUNCTION
