"""Runs the tests of check.py in verl's environment, and its command without what it arranges for itself."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from launchers import envs
from tests.conftest import REPO

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "", "CUDA_VISIBLE_DEVICES": ""}


def run(*words: str | Path, cwd: Path = REPO, **environ: str) -> subprocess.CompletedProcess[str]:
    python = envs.ensure("verl", "cpu")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    command = [str(python), *map(str, words)]
    return subprocess.run(
        command, cwd=cwd, env={**kept, **ENVIRONMENT, **environ}, capture_output=True, text=True, timeout=1500
    )


def test_in_verls_environment() -> None:
    fixtures = "tests.plugins.verl_check_making"
    done = run(
        "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", fixtures,
        "tests/plugins/verl_check_cases.py", "tests/plugins/verl_check_data_cases.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout


def test_the_command_knows_our_losses_and_needs_no_variable_and_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "verl.yaml").write_text(
        "hydra: {searchpath: ['pkg://verl.trainer.config']}\n"
        "defaults: [ppo_trainer, _self_]\n"
        "actor_rollout_ref: {actor: {policy_loss: {loss_mode: dr_grpo}}}\n"
    )
    done = run("-m", "launchers.plugins.verl.check", tmp_path, "verl", "--no-data")
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert not any("loss_mode" in line for line in lines)
    assert any(line.startswith("verl.yaml: actor_rollout_ref.rollout.name: has no value") for line in lines)
    assert "Traceback" not in done.stderr
