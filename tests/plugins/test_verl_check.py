"""Runs the tests of check.py in verl's environment."""

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
