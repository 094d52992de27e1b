"""Runs steps of a pipeline in another environment's interpreter, as the launcher does between steps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.files import write_atomic
from data_prep.errors import DataError
from data_prep.sources.tasks import ROOT

GUARD = ROOT / "data_prep" / "core" / "guard.py"
GRACE_S = 8.0


def run_apart(spec: pipeline.Spec, steps: Sequence[str], python: Path) -> None:
    """Run `steps` with the interpreter `python`; they end when this process does. Raises DataError."""
    folder = spec.cache / "specs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pipeline.jobs(spec)[-1].key[:12]}.json"
    write_atomic(path, [spec.model_dump_json().encode()])
    command = [sys.executable, str(GUARD), str(GRACE_S), str(python), "-m", "data_prep", "run", str(path)]
    environ: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "--steps", ",".join(steps)], stdin=subprocess.PIPE, cwd=ROOT, env=environ)
    try:
        status = process.wait()
    finally:
        assert process.stdin is not None
        process.stdin.close()  # what the guard waits for
        process.wait()
    if status:
        done = ", ".join(steps)
        raise DataError(f"{done} ended with status {status}; what is above says why, and finished shards are kept")


def environment(name: str) -> Path:
    """The interpreter of an environment, built if it is missing. Raises DataError."""
    done = subprocess.run(
        [sys.executable, "-m", "launchers.envs", name], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"the environment {name!r} could not be built: `make env/{name}` says why")
    return Path(done.stdout.strip())
