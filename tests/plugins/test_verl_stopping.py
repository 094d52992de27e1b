"""Early ends of real verl trainings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launchers import envs
from tests.plugins import verl_rewarded

SAME_FOR_ALL = {"reward": "length", "params": {"high": 100_000}}


@pytest.fixture(scope="module")
def verl_python() -> Path:
    return envs.ensure("verl", "cpu")


@pytest.mark.full
def test_idle_steps_end_a_training_with_its_last_step_saved(
    verl_python: Path, tmp_path: Path, mini_model: Path
) -> None:
    words = verl_rewarded.prepare(tmp_path, mini_model, SAME_FOR_ALL)
    words += ["trainer.total_training_steps=50", "trainer.save_freq=10", "trainer.resume_mode=auto"]
    (tmp_path / "stop.json").write_text('{"idle": 2}')
    run = verl_rewarded.train(verl_python, tmp_path, words)
    assert run.status == 0, run.log[-6000:]
    assert run.left == []
    assert list(run.metrics) == [1, 2]
    assert run.metrics[2]["groups/zero_variance"] == 1
    saved = tmp_path / "checkpoints"
    assert (saved / "latest_checkpointed_iteration.txt").read_text() == "2"
    assert list((saved / "global_step_2" / "actor").glob("model_world_size_1_rank_0.pt"))
    assert (saved / "global_step_2" / "data.pt").exists()
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["step"] == 2
    assert "stop.idle 2" in stopped["why"]
    note = "learned nothing: in all 2 steps the rewards of every group were equal"
    assert json.loads((tmp_path / "notes.json").read_text()) == [note]
    assert len(verl_rewarded.samples(tmp_path, "samples", 2)) == 16

    # the checkpoint is a whole one: under other rules the training goes on from it, and knows what was before
    (tmp_path / "stop.json").write_text('{"idle": 3}')
    again = verl_rewarded.train(verl_python, tmp_path, words)
    assert again.status == 0, again.log[-6000:]
    assert list(again.metrics) == [3]
    assert json.loads((tmp_path / "stopped.json").read_text())["step"] == 3


@pytest.mark.full
def test_validations_without_a_gain_end_a_training(verl_python: Path, tmp_path: Path, mini_model: Path) -> None:
    words = verl_rewarded.prepare(tmp_path, mini_model, {**SAME_FOR_ALL, "validation": {"level_2": SAME_FOR_ALL}})
    words += ["trainer.total_training_steps=50", "trainer.save_freq=2", "trainer.test_freq=1"]
    words += ["trainer.val_before_train=True"]
    (tmp_path / "stop.json").write_text('{"patience": 2, "min_gain": 0.5}')
    run = verl_rewarded.train(verl_python, tmp_path, words)
    assert run.status == 0, run.log[-6000:]
    assert list(run.metrics) == [0, 1, 2]
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert (stopped["step"], stopped["best_step"]) == (2, 0)
    assert "accuracy went from 100.0 to 100.0 % in validation (steps 0 and 2)" in stopped["why"]
    assert json.loads((tmp_path / "validations.json").read_text())["validations"] == dict.fromkeys("012", 100)
    assert run.log.count("local_global_step_folder") == 1  # saved as a step of save_freq, not again
