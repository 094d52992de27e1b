"""Policy losses against numbers worked out by hand, finite differences, verl's own functions, and what must be equal.

They need torch: `$(python3 -m launchers.envs verl --device cpu) -m pytest tests/plugins/policy_loss_in_torch.py`.
test_verl_environment.py runs them there.
"""

from __future__ import annotations

import math
import types

import pytest
import torch

from launchers.plugins.verl import policy_loss as pl
from launchers.plugins.verl import registry

LN = math.log
LOSS_MODES = sorted(registry.LOSSES)


def t(*rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# Two completions of 3 and 1 tokens; the ratios are 1.5, 0.5, 1.1 and 0.7.
OLD = t([LN(0.2), LN(0.4), LN(0.5)], [LN(0.5), 0, 0])
NEW = t([LN(0.3), LN(0.2), LN(0.55)], [LN(0.35), LN(0.9), LN(0.9)])
MASK = t([1, 1, 1], [1, 0, 0])
ADV = t([1, 1, 1], [-2, -2, -2])


def test_clip_by_hand() -> None:
    # A = 1: min(1.5, 1.2) = 1.2; min(0.5, 0.8) = 0.5; 1.1. A = -2: min(-1.4, -1.6) = -1.6
    losses = pl.ppo_clip(NEW, OLD, ADV, 0.2, 0.2)
    assert losses[0].tolist() == pytest.approx([-1.2, -0.5, -1.1])
    assert losses[1, 0].item() == pytest.approx(1.6)


def test_clip_higher_lets_the_likely_grow_further() -> None:
    assert pl.ppo_clip(NEW, OLD, ADV, 0.2, 0.28)[0].tolist() == pytest.approx([-1.28, -0.5, -1.1])


def test_reductions_by_hand() -> None:
    losses = pl.ppo_clip(NEW, OLD, ADV, 0.2, 0.2)
    assert pl.reduce_loss(losses, MASK, "token_mean").item() == pytest.approx((-2.8 + 1.6) / 4)
    assert pl.reduce_loss(losses, MASK, "sequence_mean").item() == pytest.approx((-2.8 / 3 + 1.6) / 2)
    assert pl.reduce_loss(losses, MASK, "fixed_length", length=10).item() == pytest.approx((-0.28 + 0.16) / 2)


def test_fixed_length_needs_a_length() -> None:
    with pytest.raises(ValueError, match="loss_scale_factor"):
        pl.reduce_loss(ADV, MASK, "fixed_length")


def test_gspo_by_hand() -> None:
    # Geometric means: (1.5 * 0.5 * 1.1)^(1/3) = 0.825^(1/3), and 0.7, of which the clip at 0.8 lets A = -2 no further.
    losses = pl.gspo(NEW, OLD, ADV, 0.2, 0.2, MASK)
    assert losses[0].tolist() == pytest.approx([-(0.825 ** (1 / 3))] * 3)
    assert losses[1, 0].item() == pytest.approx(1.6)


def test_clip_shares_count_only_what_loses_its_gradient() -> None:
    below, above = pl.clip_shares((NEW - OLD).exp(), ADV, 0.2, 0.2, MASK).tolist()
    assert (below, above) == (0.25, 0.25)  # 0.7 with A < 0; 1.5 with A > 0; 0.5 with A > 0 is not cut


def test_verls_kl_estimates_by_hand() -> None:
    from verl.trainer.ppo.core_algos import kl_penalty

    p, ref = t([LN(0.5)]), t([LN(0.25)])
    assert kl_penalty(p, ref, "k1").item() == pytest.approx(LN(2))
    assert kl_penalty(p, ref, "k3").item() == pytest.approx(0.5 - 1 + LN(2))


def _losses(name: str, new: torch.Tensor, old: torch.Tensor, advantages: torch.Tensor, mask: torch.Tensor | None):
    high = 0.28 if name == "clip_higher" else 0.2
    if name == "gspo":
        losses = pl.gspo(new, old, advantages, 0.2, high, mask)
    else:
        losses = pl.ppo_clip(new, old, advantages, 0.2, high)
    return pl.reduce_loss(losses, mask, registry.LOSSES[name], length=7.0)


@pytest.mark.parametrize("name", LOSS_MODES)
@pytest.mark.parametrize("masked", [True, False])
def test_gradients_agree_with_finite_differences(name: str, masked: bool) -> None:
    torch.manual_seed(1)
    old = -torch.rand(4, 6, dtype=torch.float64)
    new = (old + 0.4 * torch.randn_like(old)).requires_grad_()
    advantages = torch.randn(4, 1, dtype=torch.float64).expand(4, 6)
    mask = (torch.arange(6) < torch.tensor([[6], [4], [1], [3]])).double() if masked else None
    _losses(name, new, old, advantages, mask).backward()
    assert float(new.grad.abs().max()) > 0
    step = 1e-6
    for place in torch.ones(4, 6).nonzero().tolist():
        up, down = new.detach().clone(), new.detach().clone()
        up[tuple(place)] += step
        down[tuple(place)] -= step
        slope = (_losses(name, up, old, advantages, mask) - _losses(name, down, old, advantages, mask)) / (2 * step)
        assert new.grad[tuple(place)].item() == pytest.approx(slope.item(), abs=1e-8)


@pytest.mark.parametrize("name", LOSS_MODES)
def test_on_the_first_step_the_ratio_is_one_and_the_gradient_is_reinforce(name: str) -> None:
    log_probs = NEW.clone().requires_grad_()
    loss = _losses(name, log_probs, NEW, ADV, MASK)
    loss.backward()
    reinforce = NEW.clone().requires_grad_()
    pl.reduce_loss(-ADV * reinforce, MASK, registry.LOSSES[name], length=7.0).backward()
    assert loss.item() == pytest.approx(pl.reduce_loss(-ADV, MASK, registry.LOSSES[name], length=7.0).item())
    assert torch.allclose(log_probs.grad, reinforce.grad)


def test_at_equal_lengths_all_means_agree() -> None:
    losses, mask = torch.randn(5, 8, dtype=torch.float64), (torch.arange(8) < 6).expand(5, 8)
    token, sequence = (pl.reduce_loss(losses, mask, how) for how in ("token_mean", "sequence_mean"))
    fixed = pl.reduce_loss(losses, mask, "fixed_length", length=6)
    assert token.item() == pytest.approx(sequence.item()) == pytest.approx(fixed.item())


@pytest.mark.parametrize("how", ["token_mean", "sequence_mean", "fixed_length"])
def test_no_mask_is_a_mask_of_ones(how: str) -> None:
    losses = torch.randn(3, 4, dtype=torch.float64)
    assert pl.reduce_loss(losses, None, how, length=4) == pl.reduce_loss(losses, torch.ones(3, 4), how, length=4)
    assert torch.equal(pl.gspo(NEW, OLD, ADV, 0.2, 0.2), pl.gspo(NEW, OLD, ADV, 0.2, 0.2, torch.ones(2, 3)))


def test_packed_rows_without_a_mask_are_a_token_mean() -> None:
    """The course's packed form, (1, tokens) and no mask, has the loss of the padded form."""
    losses, keep = pl.ppo_clip(NEW, OLD, ADV, 0.2, 0.2), MASK.bool()
    assert pl.reduce_loss(losses[keep][None]).item() == pytest.approx(pl.reduce_loss(losses, MASK).item())


@pytest.mark.parametrize("how", ["token_mean", "sequence_mean", "fixed_length"])
def test_micro_batches_and_ranks_add_up_to_the_whole(how: str) -> None:
    losses, mask = torch.randn(6, 5, dtype=torch.float64), (torch.rand(6, 5) < 0.7).double()
    mask[:, 0] = 1
    whole = pl.reduce_loss(losses, mask, how, length=5)
    parts = pl.BatchTotals(tokens=float(mask.sum()), sequences=6, ranks=2)
    ranks = [
        sum(pl.reduce_loss(losses[rows], mask[rows], how, parts, 5) for rows in micro)
        for micro in ([[0, 1], [2]], [[3], [4, 5]])
    ]
    assert (sum(ranks) / 2).item() == pytest.approx(whole.item())  # data parallel averages gradients


def test_padding_does_not_matter_whatever_stands_in_it() -> None:
    for name in LOSS_MODES:
        other = torch.where(MASK.bool(), NEW, NEW - 5)
        assert _losses(name, NEW, OLD, ADV, MASK).item() == pytest.approx(_losses(name, other, OLD, ADV, MASK).item())


def test_nothing_that_counts_is_zero_not_nan() -> None:
    for how in ("token_mean", "sequence_mean", "fixed_length"):
        assert pl.reduce_loss(ADV, torch.zeros(2, 3), how, length=3).item() == 0


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


def test_reward_to_go_by_hand() -> None:
    assert pl.reward_to_go(t([1, 2, 3])).tolist() == [[6, 5, 3]]


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


# As verl calls them: importing the plugin has arranged that each name is registered once verl is imported


def _config(name: str, **changes: object) -> types.SimpleNamespace:
    high = 0.28 if name == "clip_higher" else 0.2
    parts = {"dp_size": 1, "batch_num_tokens": 4.0, "global_batch_size": 2}
    settings = {"clip_ratio_low": 0.2, "clip_ratio_high": high, "loss_scale_factor": 7, "global_batch_info": parts}
    return types.SimpleNamespace(**{**settings, **changes})


def _call(name: str, mode: str | None = None, **changes: object) -> tuple[torch.Tensor, dict[str, float]]:
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    mode = mode or registry.AGGREGATION[registry.LOSSES[name]]
    return get_policy_loss_fn(name)(OLD, NEW, ADV, MASK.bool(), mode, _config(name, **changes))


@pytest.mark.parametrize("name", LOSS_MODES)
def test_verl_finds_each_loss_by_name(name: str) -> None:
    loss, metrics = _call(name)
    assert loss.item() == pytest.approx(_losses(name, NEW, OLD, ADV, MASK).item())
    assert set(metrics) == {"actor/pg_clipfrac", "actor/pg_clipfrac_lower", "actor/ppo_kl"}


@pytest.mark.parametrize("name", ["ppo_clip", "clip_higher", "sequence_mean", "dr_grpo"])
def test_inside_the_dual_clip_verls_vanilla_loss_is_the_same(name: str) -> None:
    from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla

    class Config(types.SimpleNamespace):
        def get(self, key: str, default: object) -> object:
            return getattr(self, key, default)

    config = Config(**vars(_config(name)), clip_ratio=0.2, clip_ratio_c=3.0)
    config.global_batch_info = {**config.global_batch_info, "loss_scale_factor": 7}
    mode = registry.AGGREGATION[registry.LOSSES[name]]
    theirs, _ = compute_policy_loss_vanilla(OLD, NEW, ADV, MASK.bool(), mode, config)
    assert _call(name)[0].item() == pytest.approx(theirs.item())


def test_a_name_that_contradicts_the_config_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs actor\.loss_agg_mode=seq-mean-token-mean"):
        _call("sequence_mean", "token-mean")
    with pytest.raises(ValueError, match="clip_higher needs"):
        _call("clip_higher", clip_ratio_high=0.2)
    with pytest.raises(ValueError, match="needs equal clip_ratio_low"):
        _call("ppo_clip", clip_ratio_high=0.3)


def _estimate(
    estimator: str, kl: torch.Tensor | None = None, failed: dict[str, list[float]] | None = None, **algorithm: object
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
    with pytest.raises(RuntimeError, match="could be graded"):
        _estimate(estimator, failed={"is_error": [1.0] * 5 + [0.0], "is_timeout": [0.0] * 5 + [1.0]})


def test_truncation_policies_reach_the_estimator() -> None:
    masked = _estimate("adv_none", truncated="mask", truncated_limit=2)
    assert masked[0].tolist() == [0.5, 0]
    assert masked[1:].abs().max() == 0
    penalised = _estimate("adv_none", truncated="penalise", truncated_limit=2, truncated_penalty=-1.0)
    assert penalised[:2, 0].tolist() == pytest.approx([1 + 0.25, -1 + 0.25])  # a's scores: 1, -1, -1, 0
    with pytest.raises(ValueError, match="keep, mask or penalise"):
        _estimate("adv_none", truncated="drop", truncated_limit=2)
