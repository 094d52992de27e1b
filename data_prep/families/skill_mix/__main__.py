"""Code skill-mix from the command line: solutions to a file of questions, and their scores by unit tests.

    python -m data_prep.families.skill_mix generate --model_path MODEL --questions_path questions.json --task_name core
    python -m data_prep.families.skill_mix score --generations_path training_data/Llama3.1-8B-Instruct/core_N=50.jsonl

Both are pipelines whose steps stand in the cache, so that the same command resumes where a killed one stopped, and one
that asks for what has been made returns at once. Nothing that is read is written to.

Exit status: 0 done, 2 user error, 3 a limit was passed (too many unusable rows), 130 interrupted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_prep.core import pipeline
from data_prep.core.commands import CACHE, CPUS, Cache, Options, run
from data_prep.core.files import write_atomic
from data_prep.core.progress import Progress
from data_prep.core.rows import encode
from data_prep.core.step import Row
from data_prep.errors import DataError, os_errors
from data_prep.evaluation import metrics
from data_prep.inference.apart import chain, run_chain

NAME = r"^[A-Za-z0-9_][\w.+-]*$"  # that can be a file's
MAX_DROP_SHARE = 0.05


def _flag(flag: str, default: Any, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"flag": flag})


class Generate(Options):
    """Sample solutions, with the original's options."""

    model_path: str = Field(description="a folder, or a model on the Hub")
    questions_path: Path = Field(description="our .jsonl, or the original's questions.json")
    model_name: str = Field("Llama3.1-8B-Instruct", pattern=NAME, description="names the output's folder")
    task_name: str = Field(pattern=NAME, description="names the output")
    num_samples_per_question: int = _flag("-n", 50, "samples of each question")
    temperature: float = _flag("-t", 0.8, "of sampling")
    CoT: bool = Field(False, description="ask for steps before the solution")
    max_tokens: int = Field(2048, description="of a solution")
    seed: int = Field(0, description="of sampling")
    split: Literal["train", "held_out", "all"] = Field("all", description="which questions")
    out: Path = Field(Path("training_data"), description="<out>/<model_name>/<task>_N=<n>.jsonl")
    python: Path | None = Field(None, description="an interpreter with vLLM, if not the environment's")
    cache: Cache = CACHE

    def spec(self) -> pipeline.Spec:
        """The pipeline, its paths absolute."""
        source = {"path": str(self.questions_path.absolute()), "prompt": "cot" if self.CoT else "direct"}
        sampling = {"model": self.model_path, "n": self.num_samples_per_question, "temperature": self.temperature}
        sampling |= {"max_tokens": self.max_tokens, "seed": self.seed}
        steps: list[dict[str, Any]] = [{"questions": {**source, "split": self.split}}, {"generate": sampling}]
        return chain("generate", self.cache, steps, MAX_DROP_SHARE)


class Score(Options):
    """Run solutions, several at once in the sandbox; programs that were judged before are not run again."""

    generations_path: Path = Field(description="samples: .jsonl, or the original's .json")
    questions_path: Path | None = Field(None, description="the questions of the original's samples")
    output: Path | None = Field(None, description="by default <generations>.scored.jsonl")
    workers: int = CPUS
    no_cache: bool = Field(False, description="run programs again that were judged before")
    max_error_share: float = Field(0.02, description="of samples that could not be judged")
    cache: Cache = CACHE

    def spec(self) -> pipeline.Spec:
        """The pipeline. Raises DataError when the file's kind and the questions do not go together."""
        given, questions = self.generations_path, self.questions_path
        source: dict[str, Any] = {"load": {"path": str(given.absolute())}}
        if given.suffix == ".jsonl":
            if questions is not None:
                raise DataError(f"{given}: rows hold their own tests; leave --questions_path out")
        elif questions is None:
            raise DataError(f"{given}: the original's generations hold no tests; give --questions_path too")
        else:
            source = {"questions": {"path": str(questions.absolute()), "generations": str(given.absolute())}}
        limits = {"workers": self.workers, "cache": not self.no_cache, "max_error_share": self.max_error_share}
        return chain("score", self.cache, [source, {"score": {"reward": "code", **limits}}], MAX_DROP_SHARE)


def generate(request: Generate, progress: Progress) -> str:
    """Run what is left of the request, and write its output, whose meta.generated_by names the step that made it.

    Raises DataError.
    """
    folder = run_chain(request.spec(), progress, request.python)["generate"]
    name = f"{request.task_name}_N={request.num_samples_per_question}{'_CoT' if request.CoT else ''}.jsonl"
    output = request.out / request.model_name / name
    with os_errors(output.parent):
        output.parent.mkdir(parents=True, exist_ok=True)
    rows = pipeline.read_rows(folder)
    write_atomic(output, _lines({**row, "meta": {**row["meta"], "generated_by": folder.name}} for row in rows))
    return str(output)


def score(request: Score, progress: Progress) -> str:
    """Run what is left of the request, write its rows, and say what they show. Raises DataError."""
    folder = run_chain(request.spec(), progress)["score"]
    given = request.generations_path
    output = request.output or given.with_name(f"{given.stem}.scored.jsonl")
    write_atomic(output, _lines(pipeline.read_rows(folder)))
    return "\n".join([*summary(pipeline.read_rows(folder)), f"written: {output}"])


def _lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Rows that a step has written, as lines of JSON."""
    for row in rows:
        line = encode(row)
        assert isinstance(line, bytes)
        yield line


def summary(rows: Iterable[Row]) -> Iterator[str]:
    """How many samples passed, and how the others ended."""
    samples: list[metrics.Sample] = []
    ends: Counter[str] = Counter()
    for row in rows:
        samples.append(metrics.sample(row))
        status = row.get("meta", {}).get("score_details", {}).get("status")
        ends[str(status) if row["outcome"] == "scored" and status else row["outcome"]] += 1
    result = metrics.task_result(samples)
    yield f"{len(samples):,} samples of {result['prompts']:,} questions; mean score {result['mean']:.1f} %"
    for k, share in result["pass_at"].items():
        low, high = result["pass_ci95"][k]
        yield f"pass@{k}: {share:.1f} % [{low:.1f}, {high:.1f}]"
    yield "samples by end: " + ", ".join(f"{count:,} {end}" for end, count in ends.most_common())


if __name__ == "__main__":
    sys.exit(run(__doc__, {"generate": (Generate, generate), "score": (Score, score)}))
