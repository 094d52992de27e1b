"""Code skill-mix from the command line: sample solutions to a file of questions, and score them by unit tests.

    python -m data_prep.families.skill_mix generate --model_path MODEL --questions_path questions.json --task_name core
    python -m data_prep.families.skill_mix score --generations_path training_data/Llama3.1-8B-Instruct/core_N=50.jsonl

Both run cached pipelines: the same command resumes after a kill, and returns at once if its result exists.
Input files are never modified.

Exit status: 0 done, 2 user error, 3 a limit was exceeded (too many unusable rows), 130 interrupted.
"""

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
from data_prep.inference.interpreters import chain, run_chain

NAME = r"^[A-Za-z0-9_][\w.+-]*$"  # valid as a file name
MAX_DROP_SHARE = 0.05


def _flag(flag: str, default: Any, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"flag": flag})


class Generate(Options):
    """Sample solutions (the original's options)."""

    model_path: str = Field(description="folder or Hub id")
    questions_path: Path = Field(description="our .jsonl, or the original's questions.json")
    model_name: str = Field("Llama3.1-8B-Instruct", pattern=NAME, description="name of the output folder")
    task_name: str = Field(pattern=NAME, description="prefix of the output file's name")
    num_samples_per_question: int = _flag("-n", 50, "samples per question")
    temperature: float = _flag("-t", 0.8, "sampling temperature")
    CoT: bool = Field(False, description="ask for reasoning steps before the solution")
    max_tokens: int = Field(2048, description="token limit of a solution")
    seed: int = Field(0, description="sampling seed")
    split: Literal["train", "held_out", "all"] = Field("all", description="which questions")
    out: Path = Field(Path("training_data"), description="<out>/<model_name>/<task>_N=<n>.jsonl")
    python: Path | None = Field(None, description="interpreter with vLLM; by default the vllm environment's")
    cache: Cache = CACHE

    def spec(self) -> pipeline.Spec:
        """The pipeline, with absolute paths."""
        source = {"path": str(self.questions_path.absolute()), "prompt": "cot" if self.CoT else "direct"}
        sampling = {"model": self.model_path, "n": self.num_samples_per_question, "temperature": self.temperature}
        sampling |= {"max_tokens": self.max_tokens, "seed": self.seed}
        steps: list[dict[str, Any]] = [{"questions": {**source, "split": self.split}}, {"generate": sampling}]
        return chain("generate", self.cache, steps, MAX_DROP_SHARE)


class Score(Options):
    """Run solutions in the sandbox, several in parallel; programs that were graded before are not run again."""

    generations_path: Path = Field(description="samples (.jsonl, or the original's .json)")
    questions_path: Path | None = Field(None, description="questions; only for the original's samples")
    output: Path | None = Field(None, description="by default <generations>.scored.jsonl")
    workers: int = CPUS
    no_cache: bool = Field(False, description="rerun programs that were graded before")
    max_error_share: float = Field(0.02, description="allowed share of samples that could not be graded")
    cache: Cache = CACHE

    def spec(self) -> pipeline.Spec:
        """The pipeline. Raises DataError if --questions_path does not fit the file's format."""
        given, questions = self.generations_path, self.questions_path
        source: dict[str, Any] = {"load": {"path": str(given.absolute())}}
        if given.suffix == ".jsonl":
            if questions is not None:
                raise DataError(f"{given}: rows contain their own tests; omit --questions_path")
        elif questions is None:
            raise DataError(f"{given}: the original's generations contain no tests; add --questions_path")
        else:
            source = {"questions": {"path": str(questions.absolute()), "generations": str(given.absolute())}}
        limits = {"workers": self.workers, "cache": not self.no_cache, "max_error_share": self.max_error_share}
        return chain("score", self.cache, [source, {"score": {"reward": "code", **limits}}], MAX_DROP_SHARE)


def generate(request: Generate, progress: Progress) -> str:
    """Run the pipeline (resuming) and write its output; meta.generated_by records the step that made it.

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
    """Run the pipeline (resuming), write its rows and return a summary. Raises DataError."""
    folder = run_chain(request.spec(), progress)["score"]
    given = request.generations_path
    output = request.output or given.with_name(f"{given.stem}.scored.jsonl")
    write_atomic(output, _lines(pipeline.read_rows(folder)))
    return "\n".join([*summary(pipeline.read_rows(folder)), f"written: {output}"])


def _lines(rows: Iterable[Row]) -> Iterator[bytes]:
    """Rows written by a step, as JSON lines."""
    for row in rows:
        line = encode(row)
        assert isinstance(line, bytes)
        yield line


def summary(rows: Iterable[Row]) -> Iterator[str]:
    """Pass rates, and the outcomes of the samples."""
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
    yield "samples by outcome: " + ", ".join(f"{count:,} {end}" for end, count in ends.most_common())


if __name__ == "__main__":
    sys.exit(run(__doc__, {"generate": (Generate, generate), "score": (Score, score)}))
