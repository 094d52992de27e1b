"""Scores of a file of samples: a pipeline that ends in the step `score`, its rows as a file, and a summary.

Samples are our JSON lines, which hold their tests, or what the original's generate_solutions.py wrote, put to its
questions. Programs run in the sandbox, several at once; what has been judged before is not run again; nothing that
is read is written to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import Field

from data_prep.core import pipeline
from data_prep.core.commands import CACHE, CPUS, Cache, Options
from data_prep.core.engine import Progress
from data_prep.core.files import write_atomic
from data_prep.core.step import Row
from data_prep.errors import DataError
from data_prep.evaluation import metrics
from data_prep.families.skill_mix.generation import lines, write_lineage

BINS = 5  # of the histogram of pass rates, between none and all


class Request(Options):
    """Run solutions."""

    generations_path: Path = Field(description="samples: .jsonl, or the original's .json")
    questions_path: Path | None = Field(None, description="the questions of the original's samples")
    output: Path | None = Field(None, description="by default <generations>.scored.jsonl")
    workers: int = CPUS
    no_cache: bool = Field(False, description="run programs again that were judged before")
    max_error_share: float = Field(0.02, description="of samples that could not be judged")
    cache: Cache = CACHE

    @property
    def written(self) -> Path:
        """Where scored samples go."""
        return self.output or self.generations_path.with_name(f"{self.generations_path.stem}.scored.jsonl")

    def spec(self) -> pipeline.Spec:
        """The pipeline. Raises DataError when the file's kind and the questions do not go together."""
        path = str(self.generations_path.absolute())
        if self.generations_path.suffix == ".jsonl":
            if self.questions_path is not None:
                raise DataError(f"{self.generations_path}: rows hold their own tests; leave --questions_path out")
            sources = [pipeline.StepSpec(name="load", kind="load", params={"path": path})]
        elif self.questions_path is None:
            raise DataError(
                f"{self.generations_path}: the original's generations hold no tests; give --questions_path too"
            )
        else:
            asked = {"path": str(self.questions_path.absolute())}
            sources = [
                pipeline.StepSpec(name="questions", kind="questions", params=asked),
                pipeline.StepSpec(name="generations", kind="generations", params={"path": path}, inputs=("questions",)),
            ]
        score = {
            "reward": "code",
            "workers": self.workers,
            "cache": not self.no_cache,
            "max_error_share": self.max_error_share,
        }
        last = pipeline.StepSpec(name="score", kind="score", params=score, inputs=(sources[-1].name,))
        base = Path.cwd()
        return pipeline.Spec(name="score", base=base, cache=self.cache, steps=(*sources, last), max_drop_share=0.05)


def score(request: Request, progress: Progress) -> str:
    """Run what is left of the request, write its rows, and say what they show. Raises DataError."""
    spec = request.spec()
    pipeline.run(spec, progress=progress)
    folder = pipeline.find(spec)
    write_atomic(request.written, lines(pipeline.read_rows(folder)))
    write_lineage(request.written, folder)
    return "\n".join([*summary(pipeline.read_rows(folder)), f"written: {request.written}"])


def summary(rows: Iterable[Row]) -> Iterator[str]:
    """How many passed, how the others ended, and how pass rates spread over the questions."""
    samples: list[metrics.Sample] = []
    ends: Counter[str] = Counter()
    for row in rows:
        samples.append(metrics.sample(row))
        status = row.get("meta", {}).get("score_details", {}).get("status")
        ends[str(status) if row["outcome"] == "scored" and status else row["outcome"]] += 1
    result = metrics.task_result(samples)
    groups = list(metrics.by_prompt(samples).values())
    rates = [sum(one.right for one in group) / len(group) for group in groups]
    yield f"{len(samples):,} samples of {result['prompts']:,} questions; mean score {result['mean']:.1f} %"
    for k, share in result["pass_at"].items():
        low, high = result["pass_ci95"][k]
        yield f"pass@{k}: {share:.1f} % [{low:.1f}, {high:.1f}]"
    yield "samples by end: " + ", ".join(f"{count:,} {end}" for end, count in ends.most_common())
    yield "questions by share of samples that pass:"
    for name, count in histogram(rates).items():
        yield f"  {name:>9}  {count:5,}  {'#' * round(40 * count / len(rates))}"
    flat = sum(len({one.score for one in group}) == 1 for group in groups)
    yield f"questions whose samples all score alike: {flat:,} (no pair, no group)"


def histogram(rates: Iterable[float]) -> dict[str, int]:
    """Counts of rates: none, within each fifth, all."""
    labels = [f"{100 * at // BINS}-{100 * (at + 1) // BINS} %" for at in range(BINS)]
    found = {"none": 0, **dict.fromkeys(labels, 0), "all": 0}
    for rate in rates:
        found["none" if rate == 0 else "all" if rate == 1 else labels[min(int(rate * BINS), BINS - 1)]] += 1
    return found
