"""Tasks of EleutherAI's lm-evaluation-harness: prompts as rows, and grading of completions by the harness.

`eval.harness: lm_eval` puts both steps into an evaluation, with `generate` between them (launchers/harnesses); they run
in the environment `lm_eval`. Grading uses the harness's filters and per-question metrics, whose mean is the figure that
the harness reports. The thought is removed first (an unclosed thought leaves an empty answer); then the answer is cut
at the task's stop strings. Multiple-choice tasks that compare log-likelihoods are rejected.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from pydantic import Field

from data_prep.core.fingerprint import file_hash
from data_prep.core.rows import with_meta
from data_prep.core.step import Context, Drop, Output, Params, Row, Step
from data_prep.errors import DataError
from data_prep.inference import prompts
from data_prep.sources.tasks import ROOT, PromptName
from rewards.thinking import PRESETS, ThinkingFormat

if TYPE_CHECKING:
    from lm_eval.api.task import Task

PREFIX = "lm_eval/"  # prefix of a task with the same name as one in configs/tasks
NLTK_DATA = re.compile(r"nltk\.download\('(\w+)'\)")
SHOWN = 500  # characters of the extracted answer that a row keeps


class HarnessParams(Params):
    """paths: task -> YAML file in the harness's format; files that it refers to are included."""

    tasks: tuple[str, ...] = Field(min_length=1)
    paths: dict[str, str] = Field(default_factory=dict)


H = TypeVar("H", bound=HarnessParams)


class HarnessStep(Step[H]):
    """Base of both steps: loads the tasks with the harness."""

    unkeyed: ClassVar[tuple[str, ...]] = ("paths",)  # the files' content is in the fingerprint
    packages: ClassVar[tuple[str, ...]] = ("lm_eval", "datasets")

    def env(self) -> str:
        return "lm_eval"

    def fingerprint(self, base: Path) -> dict[str, Any]:
        """The harness's locked version, which includes its tasks, and local task files. Raises DataError."""
        lock = (ROOT / "configs" / "envs" / "lm_eval.txt").read_text()
        version = re.search(r"^lm-eval==(\S+)", lock, re.MULTILINE)
        files = {str(file.name): file_hash(file) for file in self._files(base)}
        return {"lm_eval": version and version[1], "files": files}

    def _files(self, base: Path) -> Iterator[Path]:
        for name, given in self.params.paths.items():
            path = base / Path(given).expanduser()
            if not path.is_file():
                raise DataError(f"paths: {name}: no such file: {path}")
            text = path.read_text("utf-8")
            beside = (file for file in path.parent.iterdir() if file.stem in text and file.is_file())
            yield from sorted({path, *beside})

    def loaded(self, base: Path) -> dict[str, dict[str, Task]]:
        """The tasks for each requested name (several for a group). Raises DataError."""
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)
        local = [str((base / path).resolve().parent) for path in self.params.paths.values()]
        manager = TaskManager(include_path=local, include_defaults=len(self.params.paths) < len(self.params.tasks))
        by_name: dict[str, dict[str, Task]] = {}
        for asked in self.params.tasks:
            name = asked.removeprefix(PREFIX)
            if name not in manager.all_tasks:
                raise DataError(f"lm_eval has no task {name!r} (`python -m lm_eval ls tasks` lists them)")
            by_name[asked] = manager.load([name])["tasks"]
            for leaf, task in by_name[asked].items():
                if task.OUTPUT_TYPE != "generate_until":
                    raise DataError(
                        f"lm_eval's {leaf} compares log-likelihoods of options ({task.OUTPUT_TYPE}), but answers are "
                        "sampled here: use a generative variant of the task"
                    )
        return by_name


class PromptsParams(HarnessParams):
    """limit: questions per task, sampled with the seed. system: a file in templates/prompts."""

    limit: int | None = Field(None, ge=1)
    seed: int = 0
    system: PromptName = None


class LmEvalPrompts(HarnessStep[PromptsParams]):
    """Source of the harness's prompts as chat messages, few-shot examples as earlier turns."""

    kind = "lm_eval_prompts"
    scope = "source"

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """A row per question; `rows` is empty."""
        system = prompts.head(self.params.system)
        for asked, leaves in self.loaded(ctx.base).items():
            chosen = self._chosen(asked, leaves)
            for leaf, numbers in chosen.items():
                task = leaves[leaf]
                if task.get_config("num_fewshot") is None:
                    task.set_config(key="num_fewshot", value=0)
                task.set_fewshot_seed(seed=self.params.seed)
                task.build_all_requests(
                    samples=numbers, apply_chat_template=True, fewshot_as_multiturn=True, chat_template=_as_json
                )
                for number, instance in zip(numbers, task.instances, strict=True):
                    text, settings = instance.args
                    messages = json.loads(text)
                    place = f"{leaf}/{number}" if len(leaves) > 1 else str(number)
                    if messages[-1]["role"] != "user":
                        yield Drop("the task prefills the answer", f"{asked}/{place}", bad=True)
                        continue
                    until = [stop for stop in settings.get("until") or () if stop]
                    about = {"task": leaf, "number": number, "until": until}
                    row: Row = {"id": f"{asked}/{place}", "prompt": messages, "source": asked}
                    row["meta"] = {"lm_eval": about}
                    prompts.put(row, system)
                    yield row

    def _chosen(self, asked: str, leaves: dict[str, Task]) -> dict[str, list[int]]:
        everything = [(leaf, number) for leaf, task in leaves.items() for number in range(len(task.eval_docs))]
        limit = self.params.limit
        if limit and limit < len(everything):
            draw = random.Random(f"{self.params.seed}:{asked}")  # noqa: S311 - a sample, no secret
            everything = sorted(draw.sample(everything, limit))
        chosen: dict[str, list[int]] = defaultdict(list)
        for leaf, number in everything:
            chosen[leaf].append(number)
        return chosen


def _as_json(messages: Sequence[dict[str, str]], add_generation_prompt: bool = True) -> str:
    """Serves as the harness's chat template, whose result must be a text."""
    return json.dumps(list(messages))


class GradeParams(HarnessParams):
    """thinking: format of the completions. metrics: task -> "metric" or "metric,filter" (default: the first)."""

    thinking: ThinkingFormat = PRESETS["none"]
    metrics: dict[str, str] = Field(default_factory=dict)


class LmEvalGrade(HarnessStep[GradeParams]):
    """Scores completions of the harness's prompts; drops none."""

    kind = "lm_eval_grade"
    scope = "whole"  # loading tasks takes longer than grading
    present: ClassVar[tuple[str, ...]] = ("completion",)

    def tally(self, row: Row) -> str | None:
        return str(row["outcome"])

    def apply(self, rows: Sequence[Row], ctx: Context) -> Output:
        """Each row with its task's metric as `score`; all metrics are in meta.score_details."""
        from langdetect import DetectorFactory

        DetectorFactory.seed = 0  # used by IFEval; not deterministic without a seed
        tasks = self.loaded(ctx.base)
        of_task: dict[tuple[str, str], list[int]] = defaultdict(list)
        for at, row in enumerate(rows):
            of_task[row["source"], row["meta"]["lm_eval"]["task"]].append(at)
        graded: dict[int, Row] = {}
        for (asked, leaf), places in of_task.items():
            answers = [_answer(rows[at], self.params.thinking.answer_of(rows[at]["completion"])) for at in places]
            scored = self._graded(tasks[asked][leaf], asked, [rows[at] for at in places], answers)
            graded |= zip(places, scored, strict=True)
        yield from (graded[at] for at in range(len(rows)))

    def _graded(self, task: Task, asked: str, rows: Sequence[Row], answers: Sequence[str]) -> Iterator[Row]:
        """The rows with all metrics, one of them as the score."""
        from lm_eval.api.instance import Instance

        docs = [task.eval_docs[row["meta"]["lm_eval"]["number"]] for row in rows]
        task._instances = [
            Instance("generate_until", doc, ("", {}), 0, (task.task_name, at, 1), resps=[answer])
            for at, (doc, answer) in enumerate(zip(docs, answers, strict=True))
        ]
        task.apply_filters()
        for row, answer, doc, instance in zip(rows, answers, docs, task._instances, strict=True):
            try:
                values = {
                    f"{metric},{name}": value
                    for name, filtered in instance.filtered_resps.items()
                    for metric, value in task.process_results(doc, [filtered]).items()
                }
            except LookupError as problem:  # NLTK's message spans many lines
                if not (missing := NLTK_DATA.search(str(problem))):
                    raise
                raise DataError(
                    f"lm_eval's {asked}: NLTK's {missing[1]} is missing: with network access, run "
                    f"{sys.executable} -m nltk.downloader {missing[1]}"
                ) from None
            counted = self._counted(task, asked, values)
            filtered = instance.filtered_resps[counted["filter"]]
            extracted = str(filtered[0] if isinstance(filtered, list) and filtered else filtered)[:SHOWN]
            yield _scored(row, answer, extracted, values, counted)

    def _counted(self, task: Task, asked: str, values: dict[str, Any]) -> dict[str, Any]:
        """The name of the metric that is the score. Raises DataError if it is missing or not a mean over questions."""

        def is_mean(key: str) -> bool:
            aggregate = task.aggregation().get(key.partition(",")[0])
            return isinstance(values[key], int | float) and getattr(aggregate, "__name__", "") == "mean"

        metric_name = self.params.metrics.get(asked, "")
        fitting = [key for key in values if not metric_name or metric_name in (key, key.partition(",")[0])]
        if not fitting or not is_mean(fitting[0]):
            why = "is not among its metrics" if not fitting else "is not a mean over questions"
            means = ", ".join(filter(is_mean, values)) or "none"
            raise DataError(f"lm_eval's {asked}: metric {metric_name or fitting[0]} {why}: choose one of {means}")
        metric, _, filtered = fitting[0].partition(",")
        better = bool(task.higher_is_better().get(metric, True))
        return {"name": metric, "filter": filtered, "value": float(values[fitting[0]]), "higher_is_better": better}


def _answer(row: Row, text: str) -> str:
    for stop in row["meta"]["lm_eval"]["until"]:
        text = text.partition(stop)[0]
    return text


def _scored(row: Row, answer: str, filtered: str, values: dict[str, Any], counted: dict[str, Any]) -> Row:
    truncated = row.get("meta", {}).get("finish_reason") == "length"
    outcome = "scored" if answer else "truncated" if truncated else "no_answer"
    metrics = {key: value for key, value in values.items() if isinstance(value, bool | int | float | list)}
    metric = {"name": counted["name"], "higher_is_better": counted["higher_is_better"]}
    about = {"score_details": {"answer": filtered, "metrics": metrics}, "metric": metric}
    return with_meta({**row, "score": counted["value"], "outcome": outcome}, **about)
