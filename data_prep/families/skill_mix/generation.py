"""Solutions to a file of questions, n of each: a pipeline questions → generate, and the file that a user looks for.

Both steps stand in the cache, so that the same command goes on where a killed one stopped, and one that asks for
what has been made returns at once. Each sample's meta.generated_by names the step that made it; the manifests of that
step and those before it are written beside the samples.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.core import pipeline
from data_prep.core.engine import Progress
from data_prep.core.files import write_atomic
from data_prep.core.lineage import lineage
from data_prep.core.rows import encode
from data_prep.core.step import Row
from data_prep.errors import DataError
from data_prep.sources.tasks import ROOT

GUARD = ROOT / "data_prep" / "core" / "guard.py"
GRACE_S = 8.0


@dataclass(frozen=True)
class Request:
    """What to generate. model_name, task_name: only name the output. python: an interpreter that has vLLM."""

    model: str
    questions: Path
    model_name: str
    task_name: str
    n: int
    temperature: float
    cot: bool
    max_tokens: int
    seed: int
    split: str
    out: Path
    cache: Path
    python: Path | None = None

    @property
    def output(self) -> Path:
        """Where the samples go."""
        name = f"{self.task_name}_N={self.n}{'_CoT' if self.cot else ''}.jsonl"
        return self.out / self.model_name / name

    def spec(self) -> pipeline.Spec:
        """The pipeline, its paths absolute."""
        source = {"path": str(self.questions.absolute()), "prompt": "cot" if self.cot else "direct"}
        sampling = {"n": self.n, "temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed}
        steps = (
            pipeline.StepSpec(name="questions", kind="questions", params={**source, "split": self.split}),
            pipeline.StepSpec(
                name="generate", kind="generate", params={"model": self.model, **sampling}, inputs=("questions",)
            ),
        )
        name = f"{self.task_name}_N={self.n}"
        return pipeline.Spec(name=name, base=Path.cwd(), cache=self.cache, steps=steps, max_drop_share=0.05)


def generate(request: Request, progress: Progress) -> Path:
    """Run what is left of the request, and write its output. Raises DataError."""
    spec = request.spec()
    plans = {one.name: one for one in pipeline.plan(spec)}
    if plans["generate"].state != "done":
        pipeline.run(spec, ["questions"], progress)
        _run_apart(spec, request.python or _vllm_python())
    else:
        pipeline.run(spec, progress=progress)  # says that it stands
    folder = plans["generate"].dir
    try:
        request.output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{request.output.parent}: {error.strerror}") from error
    rows = _named(pipeline.read_rows(folder), folder.name)
    write_atomic(request.output, lines(rows))
    write_lineage(request.output, folder)
    return request.output


def lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Rows that a step has written, as lines of JSON."""
    for row in rows:
        line = encode(row)
        assert isinstance(line, bytes)
        yield line


def write_lineage(output: Path, folder: Path) -> None:
    """The manifests of the step in `folder` and of all before it, beside its rows."""
    text = json.dumps([asdict(one) for one in lineage(folder)], indent=1)
    write_atomic(output.with_suffix(".manifests.json"), [text.encode(), b"\n"])


def _named(rows: Iterable[Row], by: str) -> Iterator[Row]:
    for row in rows:
        yield {**row, "meta": {**row["meta"], "generated_by": by}}


def _run_apart(spec: pipeline.Spec, python: Path) -> None:
    """Run the step `generate` in the environment it needs, so that it dies with this process. Raises DataError."""
    folder = spec.cache / "specs"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{pipeline.jobs(spec)[-1].key[:12]}.json"
    write_atomic(path, [spec.model_dump_json().encode()])
    command = [sys.executable, str(GUARD), str(GRACE_S), str(python), "-m", "data_prep", "run", str(path)]
    environ: dict[str, Any] = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([*command, "--steps", "generate"], stdin=subprocess.PIPE, cwd=ROOT, env=environ)
    try:
        status = process.wait()
    finally:
        assert process.stdin is not None
        process.stdin.close()  # what the guard waits for
        process.wait()
    if status:
        raise DataError(f"generation ended with status {status}; what is above says why, and finished shards are kept")


def _vllm_python() -> Path:
    """The interpreter of the environment `vllm`, built if it is missing. Raises DataError."""
    done = subprocess.run(
        [sys.executable, "-m", "launchers.envs", "vllm"], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise DataError("the environment `vllm` could not be built: `make env/vllm` says why; or give --python")
    return Path(done.stdout.strip())
