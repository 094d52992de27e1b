"""What a run directory holds, read as far as it is there: runs get killed, and a report is wanted anyway.

run.json, plan.json, resolved.json      what was asked for and what it became
manifests/<pipeline>/<nn>-<step>.json   rows in, out and dropped, per data step
spreads/<pipeline>.json                 pass rates of sampled questions, margins of pairs (launchers/run/spread.py)
train/trainer_log.jsonl, controls/<name>/train/trainer_log.jsonl, of DPO trainer_state.json too
train/metrics/<attempt>.jsonl, …         of online RL instead (report/curves.py), the same below controls/<name>/
eval/<label>.json (+ .samples.jsonl), compare.json
events.jsonl                            phase_start, phase_end (seconds, peak_rss_mb), …
"""

from __future__ import annotations

import glob
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launchers.report import curves
from launchers.report.curves import Point, Training
from launchers.report.plots import AFTER, BEFORE, OTHERS, Look

Json = dict[str, Any]
_ORDER = re.compile(r"^\d+-")
PREFERENCES = {"margin": "rewards/margins", "accuracy": "accuracy"}  # to the trainer's own names
FIRST = {"before": 0, "after": 2}  # controls stand between


@dataclass
class Results:
    """A run directory's facts. `notes` names, in sentences, what was there and could not be read."""

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
        folders = {"train": "train"} | {Path(p).parts[1]: p for p in self.paths("controls/*/train")}
        logs = {name: self.lines(f"{folder}/trainer_log.jsonl") for name, folder in folders.items()}
        self.losses = {name: points for name, log in logs.items() if (points := self.curve(name, log, "loss"))}
        self.held_out = {name: points for name, log in logs.items() if (points := self.curve(name, log, "eval_loss"))}
        pairs_of = {name: self.preferences(name, folder, logs[name]) for name, folder in folders.items()}
        self.pairs = {name: measures for name, measures in pairs_of.items() if measures}
        online = {name: self.training(name, folder) for name, folder in folders.items()}
        self.online = {name: training for name, training in online.items() if training.curves}

    @property
    def scale(self) -> str:
        """The overlay's name, "CPU" of a recipe written for one, else "full"."""
        hardware = self.plan.get("hardware")
        written_for = hardware.get("device") if isinstance(hardware, dict) else None
        return str(self.run.get("scale") or self.plan.get("scale") or ("CPU" if written_for == "cpu" else "full"))

    @property
    def comparable(self) -> bool:
        """Whether published numbers mean anything beside this run's."""
        return self.scale != "mini" and self.recipe.get("comparable", True) is not False

    @property
    def controls(self) -> list[str]:
        """Names of the control runs that were asked for, trained or evaluated."""
        named = {*(self.recipe.get("controls") or {}), *self.evals, *self.losses, *self.online}
        return sorted(named - {*FIRST, "train"})

    def look(self, label: str) -> Look:
        """How an evaluation or a training is drawn, the same in every plot and table."""
        if label in ("after", "train"):
            return AFTER
        return OTHERS[self.controls.index(label) % len(OTHERS)] if label in self.controls else BEFORE

    @property
    def pipelines(self) -> dict[str, list[Json]]:
        """Step manifests in order, by pipeline."""
        steps: dict[str, list[Json]] = {}
        for path in self.paths("manifests/*/*.json"):
            if manifest := self.object(path):
                steps.setdefault(_ORDER.sub("", Path(path).parts[1]), []).append(manifest)
        return steps

    @property
    def spreads(self) -> dict[str, Json]:
        """How samples and pairs spread, by pipeline."""
        files = {_ORDER.sub("", Path(path).stem): self.object(path) for path in self.paths("spreads/*.json")}
        return {name: spread for name, spread in files.items() if spread}

    @property
    def tasks(self) -> list[str]:
        """Evaluated tasks, in the recipe's order."""
        asked = (self.recipe.get("eval") or {}).get("tasks") or []
        names = list(dict.fromkeys(task for e in self.evals.values() for task in e.get("tasks") or {}))
        return [task for task in asked if task in names] + [task for task in names if task not in asked]

    def result(self, label: str, task: str) -> Json:
        """One task's result in one evaluation, {} when there is none."""
        result: Json = (self.evals.get(label, {}).get("tasks") or {}).get(task) or {}
        return result

    def curve(self, name: str, entries: list[Json], key: str) -> list[Point]:
        """(step, value) of a training log. A resumed run writes some steps twice: the later entry holds."""
        points: dict[float, float] = {}
        for entry in entries:
            step, value = curves.number(entry.get("current_steps")), curves.number(entry.get(key))
            if step is not None and value is not None:
                points[step] = value
        if broken := sum(not math.isfinite(value) for value in points.values()):
            self.notes.append(f"{key} of {name} was not finite at {broken} of {len(points)} logged steps.")
        return sorted((step, value) for step, value in points.items() if math.isfinite(value))

    def preferences(self, name: str, folder: str, log: list[Json]) -> dict[str, list[Point]]:
        """Reward margin and accuracy of a DPO training; the margin may be in trainer_state.json only."""
        history = self.object(f"{folder}/trainer_state.json").get("log_history")
        steps = [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []
        entries = [*log, *({**entry, "current_steps": entry.get("step")} for entry in steps)]
        curves_of = {key: self.curve(name, entries, of) for key, of in PREFERENCES.items()}
        return {key: points for key, points in curves_of.items() if points}

    def training(self, name: str, folder: str) -> Training:
        """An online RL training's log, attempts merged; empty when the folder holds none."""
        training = curves.merged(self.each(path) for path in self.paths(f"{glob.escape(folder)}/metrics/*.jsonl"))
        for metric, (broken, logged) in training.broken.items():
            self.notes.append(f"{metric} of {name} was not finite at {broken} of {logged} logged steps.")
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
        """The JSON in a file; None when there is none to read, with a note unless the file is absent."""
        path = self.dir / name
        if not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8", errors="replace"))
        except json.JSONDecodeError as error:
            self.notes.append(f"{name} is not whole JSON (line {error.lineno}) and was left out.")
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists in lists
            self.notes.append(f"{name} cannot be read ({error}) and was left out.")
        return None

    def object(self, name: str) -> Json:
        value = self.parse(name)
        return value if isinstance(value, dict) else {}

    def lines(self, name: str) -> list[Json]:
        """The objects of a JSONL file."""
        return list(self.each(name))

    def each(self, name: str) -> Iterator[Json]:
        """The objects of a JSONL file, one by one. A killed writer leaves a torn line, which is skipped and noted."""
        path, torn = self.dir / name, 0
        if not path.is_file():
            return
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    torn += 1
                    continue
                if isinstance(value, dict):
                    yield value
        if torn:
            self.notes.append(f"{name}: {torn} unreadable line{'s' * (torn > 1)} skipped.")


def label(training: str) -> str:
    """What a training is called on the page."""
    return "this run" if training == "train" else training
