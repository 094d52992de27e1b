"""Runs the tests of the verl plugin that need torch, in verl's environment."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from launchers import envs
from tests.conftest import REPO


@pytest.fixture(scope="module")
def verl_python() -> Path:
    return envs.ensure("verl", "cpu")


@pytest.mark.parametrize("file", ["policy_loss_in_torch.py", "decoding_in_torch.py"])
def test_in_verls_environment(file: str, verl_python: Path) -> None:
    words = [str(verl_python), "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", f"tests/plugins/{file}"]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(words, cwd=REPO, env=environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout
