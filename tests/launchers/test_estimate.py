"""Memory before launch, against figures worked out by hand for a model of 32.76 billion weights on eight GPUs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from launchers.plan import estimate, plan
from launchers.recipe import compose
from launchers.recipe.compose import Overrides

WEIGHTS, WORLD, LENGTH = 32.76e9, 8, 16_384
KEPT = LENGTH * 5120 * 64 * 2 / 1e9  # GB of activations kept between layers, in two bytes
LOGITS = 6 * LENGTH * 152_064 / 1e9


LONG = (f"train.max_length={LENGTH}", "native.deepspeed=zero3")


def _resolved(name: str, *settings: str) -> compose.Resolved:
    return compose.resolve(name, Overrides(settings=tuple(compose.parse_settings(settings))))


def memory(name: str, *settings: str) -> estimate.Estimate:
    found = estimate.estimate(plan.build(_resolved(name, *settings), Path("/run")))
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


PAIR = 2 * LENGTH * 152_064 / 1e9  # logits of both completions
PREFERENCE = "preference={loss: %s, beta: 1.0}"


@pytest.mark.parametrize("loss", ["simpo", "orpo"])
def test_pairs_without_a_reference_keep_logits_in_fp32_even_with_a_fused_kernel(loss: str) -> None:
    for liger in ("true", "null"):
        found = memory("sky_t1/flash", PREFERENCE % loss, *LONG, f"native.enable_liger_kernel={liger}")
        assert found.activations_gb == pytest.approx(2 * KEPT + 12 * PAIR)
        assert found.state_gb == pytest.approx(WEIGHTS * 16 / WORLD / 1e9)


def test_a_reference_model_takes_its_weights_its_logits_and_its_time(tmp_path: Path) -> None:
    with_one = memory("sky_t1/flash", PREFERENCE % "sigmoid", *LONG)
    assert with_one.activations_gb == pytest.approx(2 * KEPT + 20 * PAIR)
    assert with_one.state_gb == pytest.approx(WEIGHTS * (16 + 2) / WORLD / 1e9)
    offloaded = memory("sky_t1/flash", PREFERENCE % "sigmoid", *LONG, "native.deepspeed=zero3_offload")
    assert offloaded.state_gb == pytest.approx(WEIGHTS * 4 / WORLD / 1e9)
    hours = {loss: _hours(tmp_path / loss, loss) for loss in ("sigmoid", "simpo", "orpo")}
    assert hours["simpo"] == hours["orpo"] == pytest.approx(hours["sigmoid"] * 8 / 10)  # Kaplan's FLOPs: 8, and 2 more


class Made(plan.Plan):
    """A plan whose data are there."""

    def rows(self, job: object = None) -> int:
        return 960


def _hours(folder: Path, loss: str) -> float:
    folder.mkdir()
    (folder / "rows.jsonl").write_text("x" * 960 * 3000)
    built = plan.build(_resolved("sky_t1/flash", PREFERENCE % loss, *LONG), Path("/run"))
    jobs = (dataclasses.replace(built.main, dataset=folder), *built.jobs[1:])
    found = estimate.estimate(Made(**{**vars(built), "jobs": jobs}))
    assert found is not None
    assert found.hours is not None
    return found.hours


@pytest.mark.parametrize("name", ["sft", "sft_lora", "sft_fast", "flash", "7b_sft", "7b"])
def test_every_recipe_of_sky_t1_fits_its_machines(name: str) -> None:
    assert memory(f"sky_t1/{name}").memory_gb < 80
