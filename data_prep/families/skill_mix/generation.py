"""Solutions to a file of questions, n of each: a pipeline questions → generate, and the file that a user looks for.

Both steps stand in the cache, so that the same command goes on where a killed one stopped, and one that asks for
what has been made returns at once. Each sample's meta.generated_by names the step that made it; the manifests of that
step and those before it are written beside the samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_prep.core import pipeline
from data_prep.core.commands import CACHE, Cache, Options
from data_prep.core.engine import Progress
from data_prep.core.files import write_atomic
from data_prep.core.lineage import lineage
from data_prep.core.rows import encode
from data_prep.core.step import Row
from data_prep.errors import DataError
from data_prep.inference.apart import environment, run_apart

NAME = r"[A-Za-z0-9_][\w.+-]*"  # that can be a file's


def _flag(flag: str, default: Any, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"flag": flag})


class Request(Options):
    """Sample solutions, with the original's options."""

    model_path: str = Field(description="a folder, or a model on the Hub")
    questions_path: Path = Field(description="our .jsonl, or the original's questions.json")
    model_name: str = Field("Llama3.1-8B-Instruct", pattern=f"^{NAME}$", description="names the output's folder")
    task_name: str = Field(pattern=f"^{NAME}$", description="names the output")
    num_samples_per_question: int = _flag("-n", 50, "samples of each question")
    temperature: float = _flag("-t", 0.8, "of sampling")
    CoT: bool = Field(False, description="ask for steps before the solution")
    max_tokens: int = Field(2048, description="of a solution")
    seed: int = Field(0, description="of sampling")
    split: Literal["train", "held_out", "all"] = Field("all", description="which questions")
    out: Path = Field(Path("training_data"), description="<out>/<model_name>/<task>_N=<n>.jsonl")
    python: Path | None = Field(None, description="an interpreter with vLLM, if not the environment's")
    cache: Cache = CACHE

    @property
    def output(self) -> Path:
        """Where the samples go."""
        name = f"{self.task_name}_N={self.num_samples_per_question}{'_CoT' if self.CoT else ''}.jsonl"
        return self.out / self.model_name / name

    def spec(self) -> pipeline.Spec:
        """The pipeline, its paths absolute."""
        n, style = self.num_samples_per_question, "cot" if self.CoT else "direct"
        source = {"path": str(self.questions_path.absolute()), "prompt": style}
        sampling = {"n": n, "temperature": self.temperature, "max_tokens": self.max_tokens, "seed": self.seed}
        steps = (
            pipeline.StepSpec(name="questions", kind="questions", params={**source, "split": self.split}),
            pipeline.StepSpec(
                name="generate", kind="generate", params={"model": self.model_path, **sampling}, inputs=("questions",)
            ),
        )
        name = f"{self.task_name}_N={n}"
        return pipeline.Spec(name=name, base=Path.cwd(), cache=self.cache, steps=steps, max_drop_share=0.05)


def generate(request: Request, progress: Progress) -> str:
    """Run what is left of the request, and write its output. Raises DataError."""
    spec = request.spec()
    plans = {one.name: one for one in pipeline.plan(spec)}
    if plans["generate"].state != "done":
        pipeline.run(spec, ["questions"], progress)
        run_apart(spec, ["generate"], request.python or environment("vllm"))
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
    return str(request.output)


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
