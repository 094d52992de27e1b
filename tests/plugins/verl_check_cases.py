"""check.py on good and bad configs: run by test_verl_check.py with the interpreter of verl's environment."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import DictConfig

from launchers.plugins.verl import check, check_data, dump_keys

REPO = Path(__file__).resolve().parent.parent.parent
MODEL = REPO / "recipes" / "mini" / "model"
POLICY, ROLLOUT, FUNCTION = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "reward.custom_reward_function"
FP32 = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}


def rows(count: int, split: str = "train", gold: str = "7", question: str = "3 + 4 = ?") -> list[dict[str, Any]]:
    return [
        {
            "data_source": "arithmetic",
            "prompt": [{"role": "user", "content": question}],
            "reward_model": {"style": "rule", "ground_truth": gold},
            "extra_info": {"index": index, "id": f"a/{index}", "split": split, "row": json.dumps({"prompt": question})},
        }
        for index in range(count)
    ]


@dataclass
class Training:
    """A training's folder, as the launcher renders it; said: what the last check counted."""

    path: Path
    said: list[str] = field(default_factory=list)

    def write(self, name: str, content: Any) -> None:
        (self.path / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    def rows(self, name: str, content: list[dict[str, Any]]) -> None:
        pq.write_table(pa.Table.from_pylist(content), self.path / name)

    def faults(self, *overrides: str, name: str = "verl") -> list[tuple[str, str]]:
        self.said.clear()
        found = check.faults(check.compose(self.path, name, overrides), say=self.said.append)
        return [(one.key, one.message) for one in found]


def production(path: Path) -> dict[str, Any]:
    """A small config for one node of four GPUs."""
    return {
        "hydra": {"searchpath": ["pkg://verl.trainer.config"]},
        "defaults": ["ppo_trainer", "_self_"],
        "data": {
            "train_files": str(path / "train.parquet"), "val_files": str(path / "val.parquet"),
            "train_batch_size": 4, "max_prompt_length": 24, "max_response_length": 72,
            "filter_overlong_prompts": True, "truncation": "error", "seed": 1,
        },
        "actor_rollout_ref": {
            "model": {"path": str(MODEL), "use_remove_padding": True},
            "actor": {
                "strategy": "fsdp2", "optim": {"lr": 1e-3}, "ppo_mini_batch_size": 4,
                "ppo_micro_batch_size_per_gpu": 4, "policy_loss": {"loss_mode": "ppo_clip"},
            },
            "ref": {"log_prob_micro_batch_size_per_gpu": 4},
            "rollout": {
                "name": "vllm", "n": 4, "tensor_model_parallel_size": 1, "log_prob_micro_batch_size_per_gpu": 4,
                "val_kwargs": {"do_sample": True, "temperature": 1.0}, "max_model_len": 96,
            },
        },
        "algorithm": {"adv_estimator": "adv_group"},
        "reward": {
            "custom_reward_function": {
                "path": "pkg://rewards.adapters.verl", "name": "compute_score_async",
                "reward_kwargs": {"config": str(path / "reward.json")},
            }
        },
        "trainer": {
            "use_v1": False, "device": "cuda", "nnodes": 1, "n_gpus_per_node": 4, "logger": ["console", "file"],
            "default_local_dir": str(path / "checkpoints"),
        },
        "ray_kwargs": {"ray_init": {"include_dashboard": False}},
    }  # fmt: skip


CPU = {
    "trainer": {"device": "cpu", "n_gpus_per_node": 1},
    "actor_rollout_ref": {
        "model": {"use_remove_padding": False},
        "actor": {"ppo_micro_batch_size_per_gpu": 16, "fsdp_config": {"mixed_precision": FP32}},
        "rollout": {"log_prob_micro_batch_size_per_gpu": 16, "agent": {"num_workers": 1}, "enable_sleep_mode": False},
    },
    "critic": {"fsdp": {"mixed_precision": FP32}},
}
LONG = " + ".join("1" * 40)
CRITIC = (
    "algorithm.adv_estimator=gae",
    f"critic.model.path={MODEL}",
    "critic.strategy=fsdp2",
    "critic.ppo_micro_batch_size_per_gpu=4",
)


def made(path: Path) -> Training:
    one = Training(path)
    one.write("verl.yaml", production(path))
    one.write("cpu.yaml", CPU)
    one.write("reward.json", json.dumps({"reward": "math"}))
    one.write("broken.parquet", "PAR1")
    one.rows("train.parquet", rows(40))
    one.rows("val.parquet", rows(4, "test"))
    one.rows("long.parquet", rows(40, question=LONG))
    one.rows("mixed.parquet", rows(37) + rows(3, question=LONG))
    one.rows("rowless.parquet", [{**row, "extra_info": {**row["extra_info"], "row": "{}"}} for row in rows(4)])
    one.rows("goldless.parquet", [{**row, "reward_model": "7"} for row in rows(4)])
    one.rows("texts.parquet", [{**row, "prompt": "3 + 4 = ?"} for row in rows(4)])
    one.rows(
        "other.parquet",
        [{"promt" if key == "prompt" else key: value for key, value in row.items()} for row in rows(4)],
    )
    return one


@pytest.fixture
def training(tmp_path: Path) -> Training:
    return made(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> DictConfig:
    """A config without a fault, composed once: composing takes longer than checking."""
    return check.compose(made(tmp_path_factory.mktemp("good")).path, "verl")


def found_in(good: DictConfig, overrides: tuple[str, ...]) -> list[tuple[str, str]]:
    config = copy.deepcopy(good)
    check.override(config, [word.replace("HERE", str(Path(good.data.train_files).parent)) for word in overrides])
    return [(one.key, one.message) for one in check.faults(config, say=lambda _: None)]


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
        (f"{FUNCTION}.path=pkg://rewards.base", f"{FUNCTION}.name=nearest"),
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
    "no function": ((f"{FUNCTION}.name=GOLDS",), f"{FUNCTION}.name", "is not a function"),
    "a reward model of no server": (
        (f"{FUNCTION}.reward_kwargs={{reward:model}}", "data.train_files=HERE/rowless.parquet"),
        "data.train_files",
        "1 of 1 golds cannot be read by the reward: a/0 ('7': no prompt)",
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


def test_overlong_prompts_are_counted_and_may_be_left_out(training: Training) -> None:
    assert training.faults(f"data.train_files={training.path}/mixed.parquet") == []
    assert training.said[0] == "prompts over the limit: 3 of 40"


def test_a_prompt_may_be_as_long_as_the_limit(good: DictConfig) -> None:
    assert found_in(good, ("data.max_prompt_length=17",)) == []
    [(key, message)] = found_in(good, ("data.max_prompt_length=16", "data.val_files=HERE/none.parquet"))[:1]
    assert key == "data.max_prompt_length"
    assert message == (
        "0 of 40 prompts are left (40 have more than 16 tokens), less than one batch of 4: take 17, or other rows"
    )


def test_golds_that_the_reward_cannot_read_are_named(training: Training) -> None:
    bad = [{**row, "extra_info": {**row["extra_info"], "id": f"b/{n}"}} for n, row in enumerate(rows(1, gold=" "))]
    training.rows("train.parquet", rows(9) + bad)
    [(key, message)] = training.faults()
    assert key == "data.train_files"
    assert message.startswith("1 of 2 golds cannot be read by the reward: b/0 (' ': ")


def test_of_many_golds_some_are_looked_at_and_it_says_so(training: Training, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_data, "GOLDS_CHECKED", 2)
    training.rows("train.parquet", [row for gold in "1234" for row in rows(3, gold=gold)])
    assert training.faults() == []
    assert "golds looked at: 2 of 4" in training.said


def test_bad_golds_of_a_benchmark_are_told_but_no_fault(training: Training) -> None:
    training.rows("val.parquet", rows(4, "test") + rows(1, "test", gold=" "))
    assert training.faults() == []
    assert "golds cannot be read" in training.said[-1]


def test_validation_needs_a_reward_for_each_benchmark(training: Training) -> None:
    training.write("reward.json", json.dumps({"reward": "math", "validation": {"other": {"reward": "math"}}}))
    [(key, message)] = training.faults()
    assert key == f"{FUNCTION}.reward_kwargs"
    assert "arithmetic" in message


def test_a_reward_that_compares_completions_needs_its_group_in_one_worker(training: Training) -> None:
    part = {"reward": "math", "scale": "zscore"}
    training.write("reward.json", json.dumps({"reward": "combine", "params": {"parts": [part]}}))
    assert [key for key, _ in training.faults()] == [f"{FUNCTION}.reward_kwargs", "reward.num_workers"]
    assert training.faults(f"+{FUNCTION}.reward_kwargs.group_size=4", "reward.num_workers=1") == []


def test_a_server_that_is_not_there_is_not_asked(training: Training) -> None:
    training.write("reward.json", json.dumps({"reward": "model", "params": {"url": "http://127.0.0.1:9"}}))
    assert training.faults() == []


def test_a_reward_that_compares_completions_is_asynchronous(training: Training) -> None:
    part = {"reward": "math", "scale": "zscore"}
    training.write("reward.json", json.dumps({"reward": "combine", "params": {"parts": [part]}, "group_size": 4}))
    assert training.faults("reward.num_workers=1", f"{FUNCTION}.name=compute_score") == [
        (f"{FUNCTION}.name", "reward 'combine' compares the completions of a prompt: take compute_score_async")
    ]


def another_model(folder: Path, **config: Any) -> Path:
    """The mini model's files without weights and chat template, and with other numbers."""
    for source in MODEL.iterdir():
        if source.name.endswith(".json") and "safetensors" not in source.name:
            said = json.loads(source.read_text())
            said.pop("chat_template", None)
            (folder / source.name).write_text(json.dumps({**said, **(config if source.name == "config.json" else {})}))
    return folder


def test_a_model_needs_a_chat_template_that_renders(
    training: Training, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = f"actor_rollout_ref.model.path={another_model(tmp_path_factory.mktemp('model'))}"
    template = "+actor_rollout_ref.model.custom_chat_template"
    [(key, message)] = training.faults(path)
    assert key == "actor_rollout_ref.model.path"
    assert "has no chat template" in message
    assert training.faults(path, f"{template}='x'") == []
    refusing = training.faults(path, f"{template}=\"{{{{ raise_exception('no such role') }}}}\"")
    assert [key for key, _ in refusing] == ["data.train_files", "data.val_files"]
    assert refusing[0][1].endswith("no such role")


def test_a_model_of_the_hub_is_not_downloaded(training: Training) -> None:
    assert training.faults("actor_rollout_ref.model.path=nobody/nothing") == []
    assert training.said == [
        "nobody/nothing is not on this machine: its chat template, its positions and the prompts were not looked at"
    ]
    assert training.faults("actor_rollout_ref.model.path=a/b/c")[0][0] == "actor_rollout_ref.model.path"


def test_vllm_on_a_cpu_serves_some_heads_only(
    training: Training, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POSTTRAIN_ROLLOUT", raising=False)
    folder = another_model(tmp_path_factory.mktemp("model"), head_dim=24)
    odd = (f"actor_rollout_ref.model.path={folder}", "+actor_rollout_ref.model.custom_chat_template='x'")
    [(key, message)] = training.faults(*odd, name="cpu")
    assert key == f"{ROLLOUT}.name"
    assert "heads of 24" in message
    assert training.faults(*odd) == []
    monkeypatch.setenv("POSTTRAIN_ROLLOUT", "transformers")
    assert training.faults(*odd, name="cpu") == []


def test_a_users_own_reward_is_imported_and_only_called_like_verl_does(training: Training) -> None:
    training.write("mine.py", "def score(data_source, solution_str, ground_truth, extra_info=None):\n    return 1.0\n")
    mine = (f"{FUNCTION}.path={training.path}/mine.py", f"{FUNCTION}.name=score", f"~{FUNCTION}.reward_kwargs")
    assert training.faults(*mine) == []
    training.write("mine.py", "import nothing_of_that_name\n")
    [(key, message)] = training.faults(*mine)
    assert key == f"{FUNCTION}.path"
    assert "nothing_of_that_name" in message


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
