"""Runs each step of a pipeline in the interpreter that it needs, as the launcher does."""

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.files import write_atomic
from data_prep.core.guard import guarded
from data_prep.core.progress import Progress
from data_prep.errors import DataError
from data_prep.sources.tasks import ROOT


def chain(name: str, cache: Path, steps: Sequence[Mapping[str, Any]], max_drop_share: float) -> pipeline.Spec:
    """A linear pipeline of steps `{kind: params}`. Raises DataError."""
    parsed, faults = pipeline.parse(name, list(steps))
    if faults:
        raise DataError("\n".join(map(str, faults)))
    return pipeline.Spec(name=name, base=Path.cwd(), cache=cache, steps=tuple(parsed), max_drop_share=max_drop_share)


def run_chain(spec: pipeline.Spec, progress: Progress, python: Path | None = None) -> dict[str, Path]:
    """Run the pipeline (resuming), using `python` for steps of another environment. Returns the steps' folders by name.

    Raises DataError.
    """
    for step in pipeline.plan(spec):
        if step.env == "core" or step.state == "done":
            pipeline.run(spec, [step.name], progress)
        else:
            run_with(spec, [step.name], python or environment(step.env))
    return {step.name: step.dir for step in pipeline.plan(spec)}


def run_with(spec: pipeline.Spec, steps: Sequence[str], python: Path) -> None:
    """Run `steps` with the interpreter `python`; they are stopped if this process ends. Raises DataError."""
    folder = spec.cache / "specs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pipeline.jobs(spec)[-1].key[:12]}.json"
    write_atomic(path, [spec.model_dump_json().encode()])
    command = [str(python), "-m", "data_prep", "run", str(path), "--steps", ",".join(steps)]
    with guarded(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        status = process.wait()
    if status:
        done = ", ".join(steps)
        raise DataError(f"{done} ended with status {status} (see the output above); finished shards are kept")


def environment(name: str) -> Path:
    """The interpreter of an environment, which is built if it is missing. Raises DataError."""
    done = subprocess.run(
        [sys.executable, "-m", "launchers.envs", name], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise DataError(f"the environment {name!r} could not be built: run `make env/{name}` to see why")
    return Path(done.stdout.strip())
