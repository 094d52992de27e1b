"""The real verl on a CPU: GRPO and PPO, resume, two ranks, vLLM as the rollout engine, and what a dead worker does."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path

import pytest

from launchers import envs
from tests.conftest import REPO
from tests.plugins import verl_rewarded, verl_run
from tests.plugins.verl_run import POLICY, ROLLOUT, Watched

LIMIT_GB = {"transformers": 4.5, "vllm": 7.0}


@pytest.fixture(scope="module")
def verl_python() -> Path:
    return envs.ensure("verl", "cpu")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    verl_run.write_data(tmp_path)
    return tmp_path


def _healthy(run: Watched, rollout: str = "transformers") -> None:
    assert run.status == 0, run.log[-6000:]
    assert run.left == []
    assert run.peak_gb < LIMIT_GB[rollout]
    steps = [metrics for step, metrics in run.metrics.items() if step and "actor/pg_loss" in metrics]
    assert steps
    assert all(math.isfinite(metrics["actor/pg_loss"]) and metrics["actor/grad_norm"] > 0 for metrics in steps)


def test_grpo_with_kl_in_the_loss_validates_saves_and_resumes(verl_python: Path, data: Path, mini_model: Path) -> None:
    words = [
        *verl_run.overrides(data, data / "out", mini_model, ranks=1),
        *(f"{POLICY}.use_kl_loss=True", f"{POLICY}.kl_loss_type=k3", f"{POLICY}.kl_loss_coef=0.01"),
        *("trainer.save_freq=1", "trainer.test_freq=2", "trainer.resume_mode=auto"),
    ]
    transformers = {"POSTTRAIN_ROLLOUT": "transformers"}  # while the config says vllm, as in production
    run = verl_run.train(
        verl_python, data, data / "out", [*words, "trainer.total_training_steps=2"], None, **transformers
    )
    _healthy(run)
    first, second = run.metrics[1], run.metrics[2]
    assert first["actor/kl_loss"] == pytest.approx(0, abs=1e-6)  # the reference is where the policy starts
    assert second["actor/kl_loss"] > 1e-6
    assert first["actor/ppo_kl"] == pytest.approx(0, abs=1e-5)
    assert second["training/rollout_probs_diff_max"] < 1e-3  # rollouts were sampled with the updated weights
    assert "val-core/arithmetic/acc/mean@1" in second
    again = verl_run.train(
        verl_python, data, data / "out", [*words, "trainer.total_training_steps=3"], None, **transformers
    )
    _healthy(again)
    assert [step for step in again.metrics if step] == [3]
    assert again.metrics[3]["actor/kl_loss"] > second["actor/kl_loss"] / 100


@pytest.mark.full
def test_ppo_with_a_critic_and_kl_in_the_reward(verl_python: Path, data: Path, mini_model: Path) -> None:
    words = [
        *verl_run.overrides(data, data / "out", mini_model, ranks=1),
        *verl_run.CRITIC,
        *("algorithm.use_kl_in_reward=True", "algorithm.kl_penalty=k1", f"{ROLLOUT}.name=transformers"),
        "trainer.total_training_steps=2",
    ]
    run = verl_run.train(verl_python, data, data / "out", words)
    _healthy(run)
    assert run.metrics[2]["critic/vf_loss"] > 0
    assert "actor/reward_kl_penalty" in run.metrics[2]


@pytest.mark.full
def test_two_ranks_and_the_courses_advantages(verl_python: Path, data: Path, mini_model: Path) -> None:
    words = [
        *verl_run.overrides(data, data / "out", mini_model, ranks=2),
        *("algorithm.use_kl_in_reward=True", "algorithm.kl_penalty=k1", "algorithm.kl_ctrl.kl_coef=0.01"),
        *("algorithm.adv_estimator=adv_group_then_batch", f"{ROLLOUT}.name=transformers"),
        *("trainer.total_training_steps=2", "trainer.save_freq=2"),
    ]
    run = verl_run.train(verl_python, data, data / "out", words)
    assert run.status == 0, run.log[-6000:]
    assert run.left == []
    assert run.metrics[2]["critic/advantages/mean"] == pytest.approx(0, abs=1e-4)  # normalised over all tokens
    saved = data / "out" / "checkpoints" / "global_step_2" / "actor"
    assert len(list(saved.glob("model_world_size_2_rank_*.pt"))) == 2


@pytest.mark.full
def test_vllm_samples_with_the_weights_of_each_update(verl_python: Path, data: Path, mini_model: Path) -> None:
    words = [
        *verl_run.overrides(data, data / "out", mini_model, ranks=1),
        *verl_run.VLLM,
        "trainer.total_training_steps=3",
    ]
    before = verl_run.shared_memory()
    run = verl_run.train(verl_python, data, data / "out", words)
    _healthy(run, "vllm")
    assert verl_run.shared_memory() <= before
    for step in (1, 2, 3):
        assert run.metrics[step]["training/rollout_probs_diff_max"] < 1e-2
        assert run.metrics[step]["training/rollout_probs_diff_mean"] < 3e-4


@pytest.mark.full
@pytest.mark.parametrize("pooled", [True, False])
def test_verls_own_reward_model_server_is_asked_through_its_router(
    verl_python: Path, tmp_path: Path, mini_model: Path, pooled: bool
) -> None:
    """On GPUs of its own or the policy's. Our function has no url, and takes the router's address from verl."""
    given = {"enable": True, "enable_resource_pool": pooled, "n_gpus_per_node": 1, "nnodes": 1,
             "model_path": REPO / "recipes/mini/reward_model"}  # fmt: skip
    engine = {"name": "vllm", "tensor_model_parallel_size": 1, "dtype": "float32", "free_cache_engine": False,
              "max_model_len": 128, "max_num_seqs": 64, "max_num_batched_tokens": 512,
              "prompt_length": 64, "response_length": 64}  # fmt: skip
    words = [
        *verl_rewarded.prepare(tmp_path, mini_model, {"reward": "model", "params": {"thinking": "none"}}),
        *verl_run.VLLM,
        f"{ROLLOUT}.name=vllm",
        *(f"reward.reward_model.{key}={value}" for key, value in given.items()),
        *(f"reward.reward_model.rollout.{key}={value}" for key, value in engine.items()),
        *("+reward.reward_model.rollout.enable_sleep_mode=False", "trainer.total_training_steps=1"),
    ]
    ray = {"+ray_kwargs.ray_init.num_gpus=1": f"+ray_kwargs.ray_init.num_gpus={1 + pooled}"}
    run = verl_rewarded.train(verl_python, tmp_path, [ray.get(word, word) for word in words])
    assert run.status == 0, run.log[-6000:]
    assert run.left == []
    assert run.metrics[1]["outcome/scored"] == 1
    assert len({row["score"] for row in verl_rewarded.samples(tmp_path, "samples", 1)}) > 4  # raw scores


@pytest.mark.full
def test_after_a_kill_nothing_is_left_and_the_next_start_resumes(
    verl_python: Path, data: Path, mini_model: Path
) -> None:
    def kill_driver(log: str, processes: list[Path]) -> bool:
        if "step:3 - " not in log:
            return False
        drivers = [process for process in processes if "verl.trainer.main_ppo" in verl_run.command(process)]
        os.kill(int(drivers[0].name), signal.SIGKILL)
        return True

    words = [
        *verl_run.overrides(data, data / "out", mini_model, ranks=1),
        *("trainer.save_freq=1", "trainer.resume_mode=auto", f"{ROLLOUT}.name=transformers"),
    ]
    killed = verl_run.train(verl_python, data, data / "out", [*words, "trainer.total_training_steps=15"], kill_driver)
    assert killed.status == -signal.SIGKILL
    assert killed.left == []
    latest = int((data / "out" / "checkpoints" / "latest_checkpointed_iteration.txt").read_text())
    resumed = verl_run.train(verl_python, data, data / "out", [*words, f"trainer.total_training_steps={latest + 2}"])
    _healthy(resumed)
    assert [step for step in resumed.metrics if step] == [latest + 1, latest + 2]


@pytest.mark.full
def test_a_dead_rollout_worker_ends_the_run(verl_python: Path, data: Path, mini_model: Path) -> None:
    """vLLM's engine, which verl alone may wait for without end, dies in tests/launchers/test_online_run.py."""

    def kill(log: str, processes: list[Path]) -> bool:
        if "step:2 - " not in log:
            return False
        victims = [process for process in processes if "ray::TransformersServer" in verl_run.command(process)]
        assert victims, [verl_run.command(process) for process in processes]
        for process in victims:
            os.kill(int(process.name), signal.SIGKILL)
        return True

    words = [
        *verl_run.overrides(data, data / "out", mini_model, ranks=1),
        *(f"{ROLLOUT}.name=transformers", "trainer.total_training_steps=1000", "trainer.total_epochs=1000"),
    ]
    run = verl_run.train(verl_python, data, data / "out", words, kill)
    assert run.status != 0
    assert max(run.metrics) < 100
    assert run.left == []
    assert "died" in run.log.lower() or "dead" in run.log.lower()
