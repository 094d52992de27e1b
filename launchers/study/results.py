"""Scores, gains and costs of a study, read from the folders of its finished runs.

Training cost includes start-up and all attempts. It is measured in GPU-seconds (wall time × GPUs) or, on a CPU, in
CPU-seconds of all processes, which depend less on other load than wall time. A cell that uses another cell's model or
samples is also charged with that cell's training. Gains are relative to the model that the first cell of the chain
starts from.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import fmean

from data_prep.evaluation.intervals import pass_at_k
from data_prep.evaluation.metrics import natural
from launchers.report.results import Json, Results
from launchers.study import statistics as study_stats
from launchers.study.statistics import Estimate

Key = tuple[str, str]  # task, prompt_id
Table = dict[int, list[float]]  # by seed, values by question


@dataclass(frozen=True)
class Answer:
    """A question's samples in one evaluation."""

    task: str
    level: str | None
    samples: int
    right: int
    mean: float  # mean score of the samples; for an accuracy the fraction that is correct
    tokens: float | None = None  # mean tokens per sample; None if not counted


@dataclass(frozen=True)
class Outcome:
    """One finished run: its answers by question after training and, if evaluated, before, and its cost."""

    after: dict[Key, Answer]
    before: dict[Key, Answer]
    cost: float  # GPU-seconds or CPU-seconds of its own training
    device: str
    notes: tuple[str, ...]


def read_run(path: Path) -> Outcome | None:
    """A run's outcome; None without an evaluation."""
    run = Results(path)
    after, before = _answers(run, "after"), _answers(run, "before")
    device = str((run.plan.get("hardware") or {}).get("device") or "cpu")
    processes = int((run.plan.get("batch") or {}).get("world") or 1)
    cost = training_cost(run.events, processes, device == "cpu")
    return Outcome(after, before, cost, device, tuple(run.notes)) if after else None


def _answers(run: Results, label: str) -> dict[Key, Answer]:
    answers = {}
    for line in run.lines(f"eval/{label}.prompts.jsonl"):
        task, level = str(line["task"]), line.get("level")
        answers[task, str(line["prompt_id"])] = Answer(
            task, None if level is None else str(level), int(line["samples"]), int(line["right"]), line["mean"] / 100,
            line.get("tokens"),
        )  # fmt: skip
    return answers


def training_cost(events: Iterable[Json], processes: int, cpu: bool) -> float:
    """Cost of the recipe's training phases: wall seconds × processes, or CPU-seconds on a CPU.

    A killed attempt counts with the wall time up to its last event, also on a CPU.
    """
    total, began, last = 0.0, None, None
    for event in events:
        kind, at = event.get("event"), event.get("time")
        if event.get("phase", "train") != "train" or event.get("label") != "after" or not at:
            continue  # another phase, or a control's training
        now = datetime.fromisoformat(at)
        if kind == "phase_start":
            total += processes * (last - began).total_seconds() if began and last else 0.0
            began = last = now
        elif kind == "train_step":
            last = now
        elif kind == "phase_end" and began:
            wall = event["seconds"] if event.get("seconds") is not None else (now - began).total_seconds()
            used = event.get("cpu_seconds") if cpu else None
            total += processes * wall if used is None else used
            began = None
    return total + (processes * (last - began).total_seconds() if began and last else 0.0)


class Numbers:
    """The results of a study's folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record: Json = json.loads((path / "study.json").read_text())
        self.cells: dict[str, Json] = self.record["cells"]
        self.outcomes: dict[str, dict[int, Outcome]] = {name: {} for name in self.cells}
        self.notes: list[str] = []
        for entry in self.record["runs"]:
            if entry["status"] != "done":
                continue
            outcome = read_run(path / entry["run"])
            if outcome is None:
                self.notes.append(f"{entry['cell']} seed {entry['seed']}: its run has no evaluation to read.")
            else:
                self.outcomes[entry["cell"]][entry["seed"]] = outcome
                self.notes += [f"{entry['cell']} seed {entry['seed']}: {note}" for note in outcome.notes]
        finished = [outcome for seeds in self.outcomes.values() for outcome in seeds.values()]
        self.unit = "GPU-seconds" if "cuda" in {outcome.device for outcome in finished} else "CPU-seconds"

        evaluations = [outcome.after for outcome in finished]
        self.questions = sorted(set.intersection(*map(set, evaluations))) if evaluations else []  # in all evaluations
        self.answers = evaluations[0] if evaluations else {}  # of any evaluation, for the questions' tasks and levels
        self.samples = min((answer.samples for answers in evaluations for answer in answers.values()), default=1)
        every = [answer for o in finished for answer in (*o.after.values(), *o.before.values())]
        self._bounded = all(0 <= answer.mean <= 1 for answer in every)

        self.metric: Json = self.record["metric"]
        self.is_accuracy = self.metric["name"] == "accuracy"  # pass@k is defined only then
        self.k = self.samples if self.is_accuracy else 1  # the largest k of pass@k
        self.direction = 1 if self.metric["higher_is_better"] else -1
        self.scale = 100.0 if self.metric["unit"] == "%" else 1.0  # from scores to the metric's unit

    def seeds(self, *cells: str) -> list[int]:
        """Seeds with which all these cells have finished."""
        return [s for s in self.record["seeds"] if all(s in self.outcomes[cell] for cell in cells)]

    def group(self, answer: Answer) -> str | None:
        """A question's group: its level or its benchmark."""
        return answer.task if self.record["by"] == "task" else answer.level

    @property
    def groups(self) -> list[str]:
        """Levels or benchmarks, in order."""
        names = {self.group(self.answers[key]) for key in self.questions} - {None}
        return sorted((str(group) for group in names), key=natural)

    def trained(self, cell: str) -> list[str]:
        """The groups that a cell was trained on."""
        levels = self.cells[cell].get("trained_levels") if self.record["by"] == "level" else []
        return [str(level) for level in levels or []]

    def untrained(self, cell: str) -> list[str]:
        """The groups that a cell was not trained on; [] if its training levels are not given."""
        if self.record["by"] == "level" and self.cells[cell].get("trained_levels") is None:
            return []
        return [group for group in self.groups if group not in self.trained(cell)]

    def _row(self, answers: dict[Key, Answer], k: int, groups: Sequence[str] | None) -> list[float]:
        """pass@k of each question, or its mean score, in order."""
        kept = [key for key in self.questions if groups is None or self.group(self.answers[key]) in groups]
        if not self.is_accuracy:
            return [answers[key].mean for key in kept]
        return [pass_at_k(answers[key].samples, answers[key].right, k) for key in kept]

    def _after(self, cell: str, k: int = 1, groups: Sequence[str] | None = None) -> Table:
        return {seed: self._row(self.outcomes[cell][seed].after, k, groups) for seed in self.seeds(cell)}

    def _before(self, cell: str, groups: Sequence[str] | None = None) -> Table:
        """Scores of the model that the cell's chain starts from, for seeds in which it answered all questions."""
        seeds = self.seeds(cell)
        while above := self.cells[cell].get("model_of"):
            cell = above
        starts = {seed: self.outcomes[cell][seed].before for seed in seeds if seed in self.outcomes[cell]}
        return {seed: self._row(b, 1, groups) for seed, b in starts.items() if b.keys() >= set(self.questions)}

    def score(self, cell: str, k: int = 1, groups: Sequence[str] | None = None) -> Estimate | None:
        """pass@k, or the mean score, over seeds and questions, in the metric's unit; None without results."""
        return self._score(self._after(cell, k, groups))

    def start(self, cell: str) -> Estimate | None:
        """Score of the model that the cell's chain starts from."""
        return self._score(self._before(cell))

    def _score(self, table: Table) -> Estimate | None:
        rows = list(table.values())
        return study_stats.score(rows, self.scale) if rows and rows[0] else None

    def _change(self, table: Table, largest: float = 1.0) -> Estimate | None:
        rows = list(table.values())
        return study_stats.change(rows, largest, self.scale, self._bounded) if rows and rows[0] else None

    def difference(self, a: str, b: str, k: int = 1) -> Estimate | None:
        """Score of a minus score of b, paired by question and seed."""
        return self._change(_less(self._after(a, k), self._after(b, k)))

    def tokens(self, cell: str) -> float | None:
        """Mean tokens per completion after training; None if not counted."""
        lengths = [self.outcomes[cell][seed].after[key].tokens for seed in self.seeds(cell) for key in self.questions]
        counted = [length for length in lengths if length is not None]
        return fmean(counted) if counted else None

    def smallest_difference(self, cells: Sequence[str]) -> float | None:
        """Smallest difference between two of the cells that their seeds can show, in the metric's unit."""
        means = [[fmean(row) for row in self._after(cell).values()] for cell in cells]
        smallest = study_stats.smallest_difference(means, min(map(len, means), default=0))
        return None if smallest is None else self.scale * smallest

    def _gains(self, cell: str, groups: Sequence[str] | None = None) -> Table:
        return _less(self._after(cell, 1, groups), self._before(cell, groups))

    def gain(self, cell: str, groups: Sequence[str] | None = None) -> Estimate | None:
        """Score minus that of the initial model."""
        return self._change(self._gains(cell, groups))

    def charged(self, cell: str) -> list[str]:
        """The cells whose training cost a cell is charged with: itself and those that it builds on."""
        above = [other for key in ("model_of", "from_run") if (other := self.cells[cell].get(key))]
        return list(dict.fromkeys([cell, *(name for other in above for name in self.charged(other))]))

    def cost(self, cell: str, seed: int) -> float | None:
        """Training cost of a run and those that it builds on; None if one is unknown."""
        runs = [self.outcomes[name].get(seed) for name in self.charged(cell)]
        return sum(run.cost for run in runs if run) if all(runs) else None

    def mean_cost(self, cell: str) -> float | None:
        """The mean cost over seeds."""
        costs = [cost for seed in self.seeds(cell) if (cost := self.cost(cell, seed)) is not None]
        return fmean(costs) if costs else None

    def _efficiencies(self, cell: str) -> tuple[Table, float]:
        """Gain of each question per 1,000 seconds, by seed, and its upper bound."""
        costs = {seed: self.cost(cell, seed) for seed in self.seeds(cell)}
        rates = {seed: 1000 / cost for seed, cost in costs.items() if cost}
        gains = self._gains(cell).items()
        table = {seed: [rates[seed] * value for value in row] for seed, row in gains if seed in rates}
        return table, max(rates.values(), default=0.0)

    def efficiency(self, cell: str) -> Estimate | None:
        """Gain per 1,000 seconds of training."""
        return self._change(*self._efficiencies(cell))

    def efficiency_difference(self, a: str, b: str) -> Estimate | None:
        """Efficiency of a minus that of b."""
        (left, largest), (right, other) = self._efficiencies(a), self._efficiencies(b)
        return self._change(_less(left, right), max(largest, other))


def _less(a: Table, b: Table) -> Table:
    """Differences by seed, for seeds in both tables."""
    return {seed: [x - y for x, y in zip(row, b[seed], strict=True)] for seed, row in a.items() if seed in b}
