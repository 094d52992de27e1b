"""Curves of a thinking recipe's rollouts: lengths of thought and answer, malformed completions, and the reward of each.

Read from the samples that the trainer keeps, of at most SHOWN steps.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from launchers.report.curves import Point
from launchers.report.results import Json, Results
from launchers.report.sections.rollouts import scored
from rewards.model.chat import without_end_token
from rewards.thinking import thinking

SHOWN = 60  # steps
Curves = dict[str, list[Point]]


def curves(run: Results, folder: str = "train/samples") -> list[tuple[str, str, Curves]]:
    """(title, unit, curves by name) of each panel; [] where the recipe has no thinking format."""
    name = run.recipe.get("thinking")
    if not name:
        return []
    form = thinking(name)
    lengths: Curves = {"thought": [], "answer": []} if form.close else {"answer": []}
    malformed: Curves = {"malformed": []}
    rewards: Curves = {"well-formed": [], "malformed": []}
    for step, rows in scored(run, SHOWN, folder):
        parsed = [form.parse(without_end_token(str(row.get("output", "")), form.marks)) for row in rows]
        for part, points in lengths.items():
            points.append((step, statistics.fmean(len(getattr(each, part)) for each in parsed)))
        broken = [bool(part.problems) for part in parsed]
        malformed["malformed"].append((step, 100 * sum(broken) / len(broken)))
        for kind, flag in (("well-formed", False), ("malformed", True)):
            if values := _scores(rows, broken, flag):
                rewards[kind].append((step, statistics.fmean(values)))
    return [
        ("Thought and answer" if form.close else "Answer", "mean characters", lengths),
        ("Malformed", f"% of completions that break the format {name}", malformed),
        ("Reward by form", "mean", {kind: points for kind, points in rewards.items() if points}),
    ]


def _scores(rows: Sequence[Json], broken: Sequence[bool], flag: bool) -> list[float]:
    return [float(row["score"]) for row, is_broken in zip(rows, broken, strict=True) if is_broken == flag]
