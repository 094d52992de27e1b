"""Metrics of ours by hand, and how they and other patches get into verl's trainer.

They need torch: test_verl_environment.py runs them in verl's environment.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from launchers.plugins.verl import measures
from launchers.plugins.verl.measures import measured, zero_variance

# Three prompts, two completions each.
UID = np.array(["p", "q", "p", "r", "q", "r"], dtype=object)
SCORES = np.array([1.0, 0.5, 0.0, -1.0, 0.5, -1.0])
LENGTHS = np.array([10, 20, 8, 4, 30, 6])
TOLD = {
    "uid": UID,
    "acc": np.array([1.0, 0.5, 0.0, 0.0, 1.0, 0.0]),
    "outcome": np.array(["scored", "scored", "no_answer", "error", "scored", "timeout"]),
    "id": np.array(list("pqprqr")),
    "part_math": np.array([1.0, 0.5, 0.0, None, 1.0, None], dtype=object),
    "part_length": np.array([0.25, 0.75, 0.25, 0.75, 0.5, 0.5]),
    "part_gated": np.array([None] * 6, dtype=object),
}


def test_by_hand() -> None:
    assert measured(SCORES, LENGTHS, 30, TOLD) == {
        "accuracy/train": pytest.approx(2.5 / 6),
        "reward/part/math": pytest.approx(2.5 / 4),
        "reward/part/length": 0.5,
        "outcome/scored": 0.5,
        "outcome/no_answer": pytest.approx(1 / 6),
        "outcome/bad_format": 0.0,
        "outcome/truncated": 0.0,
        "outcome/timeout": pytest.approx(1 / 6),
        "outcome/error": pytest.approx(1 / 6),
        "outcome/at_limit": pytest.approx(1 / 6),
        "groups/zero_variance": pytest.approx(2 / 3),
        # of (1, 10), (0.5, 20), (0, 8), (0.5, 30): covariance 1, deviations 0.5 sqrt(2) and sqrt(308)
        "reward/length_correlation": pytest.approx(1 / (0.5 * 2**0.5 * 308**0.5)),
        "response_length/right": 20.0,  # 10 and 30
        "response_length/wrong": 14.0,  # 20 (half right) and 8; the two that were not graded are neither
    }


def test_what_cannot_be_measured_is_absent() -> None:
    found = measured(SCORES, LENGTHS, 99, {"uid": UID})  # a reward function that is not ours
    correlation = float(np.corrcoef(SCORES, LENGTHS)[0, 1])
    assert found == {
        "outcome/at_limit": 0.0, "groups/zero_variance": pytest.approx(2 / 3), "reward/length_correlation": correlation,
    }  # fmt: skip
    assert "reward/length_correlation" not in measured(np.ones(6), LENGTHS, 99, {"uid": UID})
    all_right = {"uid": UID, "acc": np.ones(6)}
    assert "response_length/wrong" not in measured(SCORES, LENGTHS, 99, all_right)
    assert measured(SCORES, LENGTHS, 99, all_right)["response_length/right"] == 13.0
    assert "groups/zero_variance" not in measured(SCORES, LENGTHS, 99, {"uid": np.arange(6)})


@pytest.mark.parametrize(
    ("scores", "groups", "share"),
    [
        ([1, 1, 0, 0], "aabb", 1.0),
        ([1, 0, 0, 0], "aabb", 0.5),
        ([1, 0, 0, 1], "abab", 0.0),
        ([1, 0, 1, 0], "abab", 1.0),
        ([0.1, 0.1 + 1e-6, 1, 0], "aabb", 0.0),  # as small as it is, the group's deviation scales it up
        ([1, 1, 1], "aab", 1.0),
        ([1, 2, 3], "abc", None),
    ],
)
def test_groups_without_variance(scores: list[float], groups: str, share: float | None) -> None:
    assert zero_variance(np.array(scores, dtype=np.float32), list(groups)) == share


def batch() -> Any:
    """As verl's trainer hands it over: scores on the last token, one column of responses that nobody reached."""
    mask = torch.arange(31)[None] < torch.tensor(LENGTHS)[:, None]
    scores = torch.zeros(6, 31)
    scores[torch.arange(6), torch.tensor(LENGTHS) - 1] = torch.tensor(SCORES, dtype=torch.float32)
    tensors = {
        "responses": torch.zeros(6, 31, dtype=torch.long),
        "attention_mask": torch.cat([torch.ones(6, 5, dtype=torch.long), mask.long()], dim=1),
        "response_mask": torch.zeros(6, 31, dtype=torch.long),  # as rollout correction may leave it
        "token_level_scores": scores,
    }
    return SimpleNamespace(batch=tensors, non_tensor_batch=TOLD)


def test_they_come_with_verls_own() -> None:
    trainer = ModuleType("trainer")
    trainer.compute_data_metrics = lambda batch, use_critic: {"critic/score/mean": 7.0, "use_critic": use_critic}
    measures.install(trainer)
    found = trainer.compute_data_metrics(batch=batch(), use_critic=True)  # verl's trainer names them
    assert found == {"critic/score/mean": 7.0, "use_critic": True, **measured(SCORES, LENGTHS, 31, TOLD)}


def test_verls_trainer_logs_what_is_installed_in_it() -> None:
    from verl.trainer.ppo import metric_utils, ray_trainer

    assert ray_trainer.compute_data_metrics.__wrapped__ is metric_utils.compute_data_metrics
    assert ray_trainer.compute_advantage.__wrapped__  # the patch before it on the same module is there, too


def test_sampler_and_trainer_are_compared_over_completion_tokens() -> None:
    trainer = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.5]]))
    sampler = torch.log(torch.tensor([[0.5, 0.1], [0.5, 0.5]]))
    mask = torch.tensor([[True, False], [True, True]])  # the second token of the first is padding
    found = measures.sampler_difference(trainer, sampler, mask)
    assert found["sampler/log_prob_difference"] == pytest.approx(np.log(2) / 3)
    assert found["sampler/effective_sample_size"] == pytest.approx((1 + 0.5) ** 2 / (1 + 0.25) / 2)
    assert measures.sampler_difference(trainer, trainer, mask) == {}  # the trainer took the sampler's own
