"""Kills running pipelines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def kill_when(folder: Path, ready: Callable[[], bool]) -> None:
    """Run a folder's spec.json in a separate process, and kill -9 it as soon as `ready` holds."""
    command = [sys.executable, "-m", "data_prep", "run", str(folder / "spec.json")]
    environ = {**os.environ, "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(command, cwd=REPO, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 600
    while not ready():
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < limit
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
