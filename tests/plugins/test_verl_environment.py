"""Runs the tests that need torch or verl in verl's environment: importing verl takes longer than most of them."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from launchers import envs
from tests.conftest import REPO

QUIET = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "", "CUDA_VISIBLE_DEVICES": ""}
ON_A_CPU = {"VERL_USE_EXTERNAL_MODULES": "launchers.plugins.verl", "VERL_PLATFORM": "cpu"}
FILES = ("verl_check_cases", "verl_check_data_cases", "policy_loss_in_torch", "decoding_in_torch", "measures_in_torch",
         "stopping_in_torch")  # fmt: skip


@pytest.mark.parametrize(("files", "platform"), [(FILES, {}), (("weights_in_torch",), ON_A_CPU)], ids=["any", "cpu"])
def test_in_verls_environment(files: tuple[str, ...], platform: dict[str, str]) -> None:
    words = ["-q", "--noconftest", "-p", "no:cacheprovider", "-p", "tests.plugins.verl_check_making"]
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    done = subprocess.run(
        [str(envs.ensure("verl", "cpu")), "-m", "pytest", *words, *(f"tests/plugins/{name}.py" for name in files)],
        cwd=REPO, env={**kept, **QUIET, **platform}, capture_output=True, text=True, timeout=800,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout
