"""The metrics of ours in a real verl run, told anew from its samples; and a run whose reward fails."""

from __future__ import annotations

import json
import re
import statistics
from collections import defaultdict
from pathlib import Path

import pytest

from launchers import envs
from launchers.backends.verl import Verl
from rewards import OUTCOMES
from tests.fakes.openai_server import Status
from tests.fakes.reward_server import RewardServer
from tests.plugins import verl_rewarded

GATED = {
    "reward": "combine",
    "params": {
        "mode": "gate",
        "parts": [
            # about half of what the mini model says is this short: the others' parts are not computed
            {"reward": "length", "name": "short", "params": {"unit": "characters", "high": 45, "margin": 0}},
            {"reward": "math"},
            {"reward": "format", "weight": 0.1, "params": {"thinking": "none", "boxed": True}},
            {"reward": "repetition", "weight": 0.1},
        ],
    },
    "acc": "math",
    "validation": {"level_2": {"reward": "math"}},
}


@pytest.fixture(scope="module")
def verl_python() -> Path:
    return envs.ensure("verl", "cpu")


@pytest.mark.full
def test_a_run_tells_what_its_samples_tell(verl_python: Path, tmp_path: Path, mini_model: Path) -> None:
    words = verl_rewarded.prepare(tmp_path, mini_model, GATED)
    words += ["trainer.total_training_steps=2", "trainer.test_freq=2", "data.train_batch_size=8"]
    run = verl_rewarded.train(verl_python, tmp_path, words)
    assert run.status == 0, run.log[-6000:]
    for step in (1, 2):
        told, rows = run.metrics[step], verl_rewarded.samples(tmp_path, "samples", step)
        assert len(rows) == 32
        groups = defaultdict(set)
        for row in rows:
            groups[row["id"]].add(row["score"])
        assert len(groups) == 8
        assert told["groups/zero_variance"] == sum(len(scores) == 1 for scores in groups.values()) / 8
        for outcome in OUTCOMES:
            assert told[f"outcome/{outcome}"] == sum(row["outcome"] == outcome for row in rows) / 32
        for part in ("short", "math", "format", "repetition"):
            values = [row[f"part_{part}"] for row in rows if row[f"part_{part}"] is not None]
            assert told[f"reward/part/{part}"] == pytest.approx(statistics.fmean(values))
        assert told["accuracy/train"] == statistics.fmean(row["acc"] for row in rows)
        assert told["outcome/at_limit"] == told["response_length/clip_ratio"]
        right = sum(row["acc"] == 1 for row in rows)
        lengths = right * told.get("response_length/right", 0) + (32 - right) * told.get("response_length/wrong", 0)
        assert lengths / 32 == pytest.approx(told["response_length/mean"])
    assert {row["part_math"] for row in verl_rewarded.samples(tmp_path, "samples", 1)} == {None, 0.0, 1.0}
    validated = verl_rewarded.samples(tmp_path, "validation", 2)
    assert run.metrics[2]["val-core/level_2/acc/mean@1"] == statistics.fmean(row["acc"] for row in validated)
    assert all(row["score"] == row["acc"] for row in validated)
    assert not [key for row in validated for key in row if key.startswith("part_")]
    assert len({row["id"] for row in validated}) == 8
    kept = json.loads((tmp_path / "validations.json").read_text())
    assert list(kept["zero_variance"]) == ["1", "2"]


@pytest.mark.full
def test_a_reward_that_fails_ends_the_run_with_one_line(verl_python: Path, tmp_path: Path, mini_model: Path) -> None:
    with RewardServer(lambda body: Status(400)) as server:
        reward = {"reward": "model", "params": {"url": server.url, "retries": 0, "thinking": "none"}, "max_errors": 0.1}
        words = verl_rewarded.prepare(tmp_path, mini_model, reward)
        run = verl_rewarded.train(verl_python, tmp_path, [*words, "trainer.total_training_steps=20"])
    assert run.status != 0
    assert run.left == []
    assert max(run.metrics, default=0) < 5  # 16 completions a step, and the first 50 are waited for
    reason = Verl().reason(run.log)  # what the launcher tells the user
    assert re.search(r"TooManyFailures: \d+ of \d+ scores are 'error' .*the limit is 10.0%.*; the last: .*400", reason)
    assert run.log.count("scores are 'error'") == 1
