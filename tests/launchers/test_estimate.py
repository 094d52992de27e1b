"""Memory before launch, against figures worked out by hand for a model of 32.76 billion weights on eight GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from launchers import compose, estimate, plan
from launchers.compose import Overrides

WEIGHTS, WORLD, LENGTH = 32.76e9, 8, 16_384
KEPT = LENGTH * 5120 * 64 * 2 / 1e9  # GB of activations kept between layers, in two bytes
LOGITS = 6 * LENGTH * 152_064 / 1e9


def memory(name: str, *settings: str) -> estimate.Estimate:
    resolved = compose.resolve(name, Overrides(settings=tuple(compose.parse_settings(settings))))
    found = estimate.estimate(plan.build(resolved, Path("/run")))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("settings", "state"),
    [
        (("native.deepspeed=zero3",), WEIGHTS * 16 / WORLD),
        (("native.deepspeed=zero3_offload",), WEIGHTS * 4 / WORLD),
        (("native.deepspeed=zero3", "train.lora.rank=64"), WEIGHTS * (2 + 0.02 * 16) / WORLD),
        (("native.deepspeed=zero2", "train.lora.rank=64"), WEIGHTS * (2 + 0.02 * (2 + 14 / WORLD))),
    ],
)
def test_state_follows_from_what_is_sharded_trained_and_offloaded(settings: tuple[str, ...], state: float) -> None:
    found = memory("sky_t1/sft", *settings)
    assert found.state_gb == pytest.approx(state / 1e9)
    assert found.activations_gb == pytest.approx(KEPT + LOGITS)


def test_a_fused_loss_keeps_no_logits() -> None:
    assert memory("sky_t1/sft_fast").activations_gb == pytest.approx(KEPT)
    assert memory("sky_t1/sft_fast", "native.enable_liger_kernel=null").activations_gb == pytest.approx(KEPT + LOGITS)


@pytest.mark.parametrize("name", ["sft", "sft_lora", "sft_fast", "flash", "7b_sft", "7b"])
def test_every_recipe_of_sky_t1_fits_its_machines(name: str) -> None:
    assert memory(f"sky_t1/{name}").memory_gb < 80
