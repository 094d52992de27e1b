"""Runs the tests of the verl plugin that need torch or verl, in verl's environment."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.conftest import REPO

FILES = (
    "advantages_in_torch.py", "decoding_in_torch.py", "measures_in_torch.py", "stopping_in_torch.py",
    "verl_check_cases.py", "verl_check_data_cases.py",
)  # fmt: skip
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "", "CUDA_VISIBLE_DEVICES": ""}


def test_in_verls_environment(verl_python: Path) -> None:
    """In one process: importing verl takes longer than most of them."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    done = subprocess.run(
        [
            verl_python, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider",
            "-p", "tests.plugins.verl_check_making", *(f"tests/plugins/{file}" for file in FILES),
        ],
        cwd=REPO, env={**kept, **ENVIRONMENT}, capture_output=True, text=True, timeout=1500,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout)
    assert "skipped" not in done.stdout
