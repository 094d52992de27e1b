"""Reads a run directory for the report; missing files are allowed, because the run may be unfinished.

run.json, plan.json, resolved.json      the run, its plan, its resolved recipe
manifests/<pipeline>/<nn>-<step>.json   rows in, out and dropped, per data step
spreads/<pipeline>.json                 pass rates of sampled questions, margins of pairs (launchers/run/spread.py)
train/trainer_log.jsonl, controls/<name>/train/trainer_log.jsonl, for DPO also trainer_state.json
train/metrics/<attempt>.jsonl, …         for online RL (report/curves.py), also in controls/<name>/
eval/<label>.json (+ .samples.jsonl), compare.json
events.jsonl                            phase_start, phase_end (seconds, peak_rss_mb), …
"""

import glob
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from launchers.report import curves
from launchers.report.curves import Training
from launchers.report.format import ACCURACY, Metric
from launchers.report.plots import AFTER, BEFORE, OTHERS, Look

Json = dict[str, Any]
PREFERENCES = {"margin": "rewards/margins", "accuracy": "accuracy"}  # our name to the trainer's
FIRST = {"before": 0, "after": 2}  # sort order; controls are in between


@dataclass
class Results:
    """The contents of a run directory. `notes`: sentences about files that could not be read."""

    dir: Path
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.recipe = self.object("resolved.json")
        self.plan = self.object("plan.json")
        self.run = self.object("run.json")
        self.events = self.lines("events.jsonl")
        evals = {str(e.get("label") or Path(p).stem): e for p in self.paths("eval/*.json") if (e := self.object(p))}
        self.evals = {name: evals[name] for name in sorted(evals, key=lambda n: (FIRST.get(n, 1), n))}
        order = {task: i for i, task in enumerate(self.tasks)}
        pairs = [c for c in self.parse("compare.json") or [] if isinstance(c, dict)]
        self.comparisons = sorted(pairs, key=lambda c: order.get(c["task"], len(order)))
        for comparison in self.comparisons:
            comparison["metric"] = comparison.get("metric") or ACCURACY
        folders = {"train": "train"} | {Path(p).parts[1]: p for p in self.paths("controls/*/train")}
        logs = {name: self.log(name, folder).curves for name, folder in folders.items()}
        self.losses = {name: log["loss"] for name, log in logs.items() if "loss" in log}
        self.held_out = {name: log["eval_loss"] for name, log in logs.items() if "eval_loss" in log}
        pairs_of = {name: {key: log[of] for key, of in PREFERENCES.items() if of in log} for name, log in logs.items()}
        self.pairs = {name: measures for name, measures in pairs_of.items() if measures}
        online = {name: self.training(name, folder) for name, folder in folders.items()}
        self.online = {name: training for name, training in online.items() if training.curves}
        self.comparable = self.scale != "mini" and self.recipe.get("comparable", True) is not False  # with published

    @property
    def scale(self) -> str:
        """The scale's name, "CPU" for a recipe with CPU hardware, else "full"."""
        hardware = self.plan.get("hardware")
        written_for = hardware.get("device") if isinstance(hardware, dict) else None
        return str(self.run.get("scale") or self.plan.get("scale") or ("CPU" if written_for == "cpu" else "full"))

    @property
    def controls(self) -> list[str]:
        """Names of the control runs in the recipe or among the results."""
        named = {*(self.recipe.get("controls") or {}), *self.evals, *self.losses, *self.online}
        return sorted(named - {*FIRST, "train"})

    def metric(self, task: str) -> Metric:
        """A benchmark's metric; accuracy by default."""
        named: Iterator[Metric | None] = (self.result(label, task).get("metric") for label in self.evals)
        return next(filter(None, named), ACCURACY)

    def look(self, label: str) -> Look:
        """The look of an evaluation or training in all plots and tables."""
        if label in ("after", "train"):
            return AFTER
        return OTHERS[self.controls.index(label) % len(OTHERS)] if label in self.controls else BEFORE

    @cached_property
    def pipelines(self) -> dict[str, list[Json]]:
        """Step manifests in order, by pipeline."""
        steps: dict[str, list[Json]] = {}
        for path in self.paths("manifests/*/*.json"):
            if manifest := self.object(path):
                steps.setdefault(without_number(Path(path).parts[1]), []).append(manifest)
        return steps

    @property
    def tasks(self) -> list[str]:
        """Evaluated tasks, in the recipe's order."""
        listed = (self.recipe.get("eval") or {}).get("tasks") or []
        names = list(dict.fromkeys(task for e in self.evals.values() for task in e.get("tasks") or {}))
        return [task for task in listed if task in names] + [task for task in names if task not in listed]

    def result(self, label: str, task: str) -> Json:
        """One task's result in one evaluation; {} if there is none."""
        result: Json = (self.evals.get(label, {}).get("tasks") or {}).get(task) or {}
        return result

    def log(self, name: str, folder: str) -> Training:
        """The log of an SFT or DPO training; reward margins may be only in trainer_state.json."""
        entries = [{"step": e.get("current_steps"), "data": e} for e in self.each(f"{folder}/trainer_log.jsonl")]
        history = self.object(f"{folder}/trainer_state.json").get("log_history")
        for entry in history if isinstance(history, list) else ():
            if isinstance(entry, dict):
                margins = {key: entry.get(key) for key in PREFERENCES.values()}
                entries.append({"step": entry.get("step"), "data": margins})
        return self.merged(name, [entries])

    def merged(self, name: str, attempts: Iterable[Iterable[Json]]) -> Training:
        """A training merged from its attempts, with a note for each metric with non-finite values."""
        training = curves.merged(attempts)
        for metric, (broken, logged) in training.broken.items():
            self.notes.append(f"{metric} of {name} was not finite at {broken} of {logged} logged steps.")
        return training

    def training(self, name: str, folder: str) -> Training:
        """The merged log of an online RL training; empty if there is none."""
        training = self.merged(name, map(self.each, self.paths(f"{glob.escape(folder)}/metrics/*.jsonl")))
        training.planned = curves.number(self.object(f"{folder}/planned.json").get("steps"))
        training.stopped = self.object(f"{folder}/stopped.json")
        means = self.object(f"{folder}/judged.json").get("means")
        if isinstance(means, dict) and means:
            training.curves["second_judge"] = sorted((float(step), float(mean)) for step, mean in means.items())
        notes = self.parse(f"{folder}/notes.json")
        training.notes = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
        return training

    def paths(self, pattern: str) -> list[str]:
        return sorted(str(path.relative_to(self.dir)) for path in self.dir.glob(pattern))

    def parse(self, name: str) -> Any:
        """The JSON in a file; None if it is missing, or invalid (then with a note)."""
        path = self.dir / name
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8", errors="replace"))
        except json.JSONDecodeError as error:
            self.notes.append(f"{name} is not valid JSON (line {error.lineno}) and was skipped.")
        except (ValueError, RecursionError) as error:  # a number with thousands of digits, deeply nested lists
            self.notes.append(f"{name} cannot be read ({error}) and was skipped.")
        return None

    def object(self, name: str) -> Json:
        value = self.parse(name)
        return value if isinstance(value, dict) else {}

    def lines(self, name: str) -> list[Json]:
        """The objects of a JSONL file."""
        return list(self.each(name))

    def each(self, name: str) -> Iterator[Json]:
        """Iterate over the objects of a JSONL file. Unreadable lines are skipped and noted."""
        path, unreadable = self.dir / name, 0
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    unreadable += 1
                    continue
                if isinstance(value, dict):
                    yield value
        if unreadable:
            self.notes.append(f"{name}: {unreadable} unreadable line{'s' * (unreadable > 1)} skipped.")


def without_number(name: str) -> str:
    """A pipeline's name without its number: 01-mix -> mix."""
    return re.sub(r"^\d+-", "", name)


def label(training: str) -> str:
    """The name of a training on the page."""
    return "this run" if training == "train" else training
