"""A training's folder as the launcher renders it, for the tests of check.py that run in verl's environment."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from omegaconf import DictConfig, OmegaConf

from launchers.plugins.verl import check

REPO = Path(__file__).resolve().parent.parent.parent
MODEL = REPO / "recipes" / "mini" / "model"
POLICY, ROLLOUT, FUNCTION = "actor_rollout_ref.actor", "actor_rollout_ref.rollout", "reward.custom_reward_function"
NUMBERS = itertools.count()  # a file's grader is kept for the life of the process
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
    """A training's folder, as the launcher renders it."""

    path: Path

    def write(self, name: str, content: Any) -> None:
        (self.path / name).write_text(content if isinstance(content, str) else yaml.safe_dump(content))

    def rows(self, name: str, content: list[dict[str, Any]]) -> None:
        pq.write_table(pa.Table.from_pylist(content), self.path / name)

    def faults(self, *overrides: str) -> list[tuple[str, str]]:
        layers = (path.read_text() for path in sorted(self.path.glob("*.yaml")))
        reward = shutil.copy(self.path / "reward.json", self.path / f"reward{next(NUMBERS)}.json")
        return found_in(composed(self.path, *layers), (*overrides, f"{FUNCTION}.reward_kwargs.config={reward}"))


@functools.cache
def composed(path: Path, *layers: str) -> DictConfig:
    """The config of a folder whose layers hold these texts: composing takes longer than checking."""
    return check.compose(path)


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
                "path": "pkg://rewards.serving.verl", "name": "compute_score_async",
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


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture
def training(place: Path) -> Training:
    """At the same path for every test, so that it need not be composed again."""
    shutil.rmtree(place)
    place.mkdir()
    return made(place)


@pytest.fixture
def good(training: Training) -> DictConfig:
    """A config without a fault."""
    return composed(training.path, (training.path / "verl.yaml").read_text())


def found_in(good: DictConfig, overrides: tuple[str, ...]) -> list[tuple[str, str]]:
    config = copy.deepcopy(good)
    for word in overrides:
        key, _, value = word.replace("HERE", str(Path(good.data.train_files).parent)).partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value), merge=False, force_add=True)
    return [(one.key, one.message) for one in check.faults(config)]
