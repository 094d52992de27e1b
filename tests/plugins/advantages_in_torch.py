"""Advantages against numbers worked out by hand, and verl's losses as a recipe's config has them.

They need torch: `$(python3 -m launchers.envs verl --device cpu) -m pytest tests/plugins/advantages_in_torch.py`.
test_verl_environment.py runs them there.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from launchers.backends.verl import AGGREGATION
from launchers.plugins.verl import advantages as pl

LN = math.log


def t(*rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Two completions of 3 and 1 tokens; the ratios are 1.5, 0.5, 1.1 and 0.7.
OLD = t([LN(0.2), LN(0.4), LN(0.5)], [LN(0.5), 0, 0])
NEW = t([LN(0.3), LN(0.2), LN(0.55)], [LN(0.35), LN(0.9), LN(0.9)])
MASK = t([1, 1, 1], [1, 0, 0])
ADV = t([1, 1, 1], [-2, -2, -2])


def _loss(name: str, high: float = 0.2, new: torch.Tensor = NEW) -> float:
    """Of a recipe's algorithm.loss, as the rendered config has verl compute it."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn
    from verl.workers.config import FSDPActorConfig

    config = FSDPActorConfig(
        strategy="fsdp2", rollout_n=1, ppo_micro_batch_size_per_gpu=1,
        clip_ratio=0.2, clip_ratio_low=0.2, clip_ratio_high=high, clip_ratio_c=1e9,
    )  # fmt: skip
    config.global_batch_info.update(dp_size=1, batch_num_tokens=4.0, global_batch_size=2, loss_scale_factor=10)
    loss = get_policy_loss_fn("gspo" if name == "gspo" else "vanilla")
    total, metrics = loss(OLD, new, ADV, MASK.bool(), AGGREGATION[name], config)
    assert set(metrics) == {"actor/pg_clipfrac", "actor/pg_clipfrac_lower", "actor/ppo_kl"}
    return float(total)


def test_losses_by_hand() -> None:
    """A = 1: min(1.5, 1.2) = 1.2; min(0.5, 0.8) = 0.5; 1.1. A = -2: min(-1.4, -1.6) = -1.6."""
    assert _loss("ppo_clip") == pytest.approx((-2.8 + 1.6) / 4)
    assert _loss("clip_higher", high=0.28) == pytest.approx((-2.88 + 1.6) / 4)
    assert _loss("sequence_mean") == pytest.approx((-2.8 / 3 + 1.6) / 2)
    assert _loss("dr_grpo") == pytest.approx((-0.28 + 0.16) / 2)
    # geometric means: 0.825^(1/3), and 0.7, of which the clip at 0.8 lets A = -2 no further
    assert _loss("gspo") == pytest.approx((-(0.825 ** (1 / 3)) + 1.6) / 2)


def test_a_negative_advantage_is_not_clipped_twice() -> None:
    far = NEW + t([0, 0, 0], [LN(10), 0, 0])  # a ratio of 7, above verl's own second clip at 3
    assert _loss("ppo_clip", new=far) == pytest.approx((-2.8 + 14) / 4)


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(ValueError, match="loss vanilla is not finite"):
        _loss("ppo_clip", new=NEW * math.nan)


# Advantages: groups a (scores 1, 0, 0, 1) and b (1, 1)
SCORES, GROUPS = t(1, 0, 1, 0, 1, 1).double(), ["a", "a", "b", "a", "b", "a"]
FULL = torch.ones(6, 2, dtype=torch.float64)


def test_group_advantages_by_hand() -> None:
    assert pl.group_advantages(SCORES, GROUPS, "none").tolist() == [0.5, -0.5, 0, -0.5, 0, 0.5]
    z = 0.5 / math.sqrt(1 / 3)  # unbiased standard deviation of 1, 0, 0, 1
    expected = [z, -z, 0, -z, 0, z]
    assert pl.group_advantages(SCORES, GROUPS, "group").tolist() == pytest.approx(expected, abs=1e-7)


def test_a_group_of_equal_scores_teaches_nothing_even_where_its_mean_is_rounded() -> None:
    scores = torch.full((7,), 0.1, dtype=torch.float32)
    assert pl.group_advantages(scores, ["a"] * 7, "group").abs().max() == 0


def test_a_completion_without_others_has_no_advantage() -> None:
    assert pl.group_advantages(t(3.0).double(), ["a"], "group").tolist() == [0]


def test_the_scale_of_a_reward_does_not_matter_to_group_scaling() -> None:
    scaled = pl.group_advantages(100 * SCORES - 7, GROUPS, "group")
    assert torch.allclose(scaled, pl.group_advantages(SCORES, GROUPS, "group"))


def test_rewards_that_differ_little_are_scaled_like_others() -> None:
    """verl #6348: a floor under the variance made 0.005 of an advantage of about 0.6."""
    close = torch.tensor([1.0 + 1e-5 * at for at in range(4)], dtype=torch.float32)
    far = torch.arange(4, dtype=torch.float32)
    assert torch.allclose(
        pl.group_advantages(close, "aaaa", "group"), pl.group_advantages(far, "aaaa", "group"), atol=0.02
    )


def test_the_courses_advantages_by_hand() -> None:
    """Two completions of one prompt, scores 1 and 0, 2 and 1 tokens, KL 0.1 and 0.3 | 0.2, beta 0.5."""
    mask, z = t([1, 1], [1, 0]), math.sqrt(0.5)
    penalties = -0.5 * t([0.1, 0.3], [0.2, 9])
    raw = [z - 0.2, z - 0.15, -z - 0.1]  # each token bears its own and later KL
    mean = sum(raw) / 3
    spread = math.sqrt(sum((a - mean) ** 2 for a in raw) / 3)
    found = pl.advantages(t(1, 0).double(), ["p", "p"], mask, "group", True, penalties)
    assert found[mask.bool()].tolist() == pytest.approx([(a - mean) / spread for a in raw], abs=1e-6)
    assert found[1, 1] == 0


def test_normalised_over_the_batch_means_mean_zero_variance_one() -> None:
    torch.manual_seed(0)
    values, mask = 3 + 2 * torch.randn(8, 9, dtype=torch.float64), (torch.rand(8, 9) < 0.6).double()
    kept = pl.normalise_over_batch(values, mask)[mask.bool()]
    assert kept.mean().item() == pytest.approx(0, abs=1e-9)
    assert kept.var(unbiased=False).item() == pytest.approx(1)


def test_a_zero_variance_group_shifts_the_second_normalisation() -> None:
    """What tells the course's trainer from DeepSeek's: group b's completions, of no advantage, are in the mean."""
    masks = FULL.clone()
    masks[1, 1] = 0
    found = pl.advantages(SCORES, GROUPS, masks, "group", over_batch=True)
    assert found[2, 0].item() != 0


def test_masked_truncated_completions_have_no_advantage_but_count_in_their_group() -> None:
    counted = torch.tensor([True, False, True, True, True, True])
    plain = pl.advantages(SCORES, GROUPS, FULL, "group")
    found = pl.advantages(SCORES, GROUPS, FULL, "group", counted=counted)
    assert found[1].abs().max() == 0
    assert torch.equal(found[counted], plain[counted])


def test_truncated_is_who_used_every_token() -> None:
    assert pl.truncated_rows(t([1, 1, 1], [1, 1, 0]), 3).tolist() == [True, False]


def test_a_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="scores"):
        pl.finite("the batch's scores", t(1, math.nan))


def _estimate(
    estimator: str, kl: torch.Tensor | None = None, failed: dict[str, list[float]] | None = None, **algorithm: Any
) -> torch.Tensor:
    """Through verl's own compute_advantage, as its trainers call it. failed: what the reward reports beside scores."""
    import numpy as np
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo import ray_trainer

    mask = FULL.clone()
    mask[0, 1] = 0
    scores = torch.zeros_like(mask)
    scores[torch.arange(6), mask.sum(-1).long() - 1] = SCORES
    rewards = scores if kl is None else scores - kl * mask
    data = DataProto.from_dict(
        tensors={"token_level_scores": scores, "token_level_rewards": rewards, "response_mask": mask},
        non_tensors={"uid": np.array(GROUPS, dtype=object), **{k: np.array(v) for k, v in (failed or {}).items()}},
    )
    config = OmegaConf.create(algorithm)
    return ray_trainer.compute_advantage(data, adv_estimator=estimator, config=config).batch["advantages"]


def test_adv_group_is_verls_grpo_up_to_its_epsilon() -> None:
    assert torch.allclose(_estimate("adv_group"), _estimate("grpo"), atol=1e-5)


def test_kl_in_the_reward_does_not_enter_the_group_scaling() -> None:
    kl = torch.rand(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 100
    found = _estimate("adv_group", kl)
    assert found[2].tolist() == pytest.approx([-(kl[2, 0] + kl[2, 1]).item(), -kl[2, 1].item()])  # group b: only KL


@pytest.mark.parametrize("estimator", ["adv_none", "adv_group", "adv_group_then_batch"])
def test_a_completion_without_a_verdict_has_no_advantage_and_no_part_in_its_groups(estimator: str) -> None:
    whole = _estimate(estimator)
    failed = {"is_error": [0.0, 1.0, 0.0, 0.0, 0.0, 0.0], "is_timeout": [0.0] * 6}
    found = _estimate(estimator, failed=failed)
    assert found[1].abs().max() == 0
    assert not torch.equal(found[0], whole[0])
    if estimator == "adv_none":
        others = [i for i, group in enumerate(GROUPS) if group == GROUPS[1] and i != 1]
        assert found[others, 0].tolist() == pytest.approx((SCORES[others] - SCORES[others].mean()).tolist())
    with pytest.raises(RuntimeError, match="decided none"):
        _estimate(estimator, failed={"is_error": [1.0] * 5 + [0.0], "is_timeout": [0.0] * 5 + [1.0]})


def test_truncation_policies_reach_the_estimator() -> None:
    masked = _estimate("adv_none", truncated="mask", truncated_limit=2)
    assert masked[0].tolist() == [0.5, 0]
    assert masked[1:].abs().max() == 0
    penalised = _estimate("adv_none", truncated="penalise", truncated_limit=2, truncated_penalty=-1.0)
    assert penalised[:2, 0].tolist() == pytest.approx([1 + 0.25, -1 + 0.25])  # a's scores: 1, -1, -1, 0
    with pytest.raises(ValueError, match="keep, mask or penalise"):
        _estimate("adv_none", truncated="drop", truncated_limit=2)
