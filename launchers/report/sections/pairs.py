"""The report's part on learning from pairs: how far the preferred completions are ahead, step by step.

The reward of a completion is beta × (its log-probability under the policy less that under the reference); the margin is
the preferred one's less the other's, and the accuracy is the share of pairs in which it is above zero (Rafailov et al.
2023, arXiv 2305.18290, section 4 and appendix B).
"""

from __future__ import annotations

import dataclasses

from launchers.report import plots
from launchers.report.curves import Point
from launchers.report.format import number
from launchers.report.plots import Look, Series
from launchers.report.results import Json, Results

MANY = 40
PANELS = (("margin", "Reward margin", "preferred less dispreferred", 1), ("accuracy", "Pairs in order", "%", 100))


def section(run: Results, looks: dict[str, Look]) -> Json | None:
    """What the template shows; None without a log of pairs. looks: of each training, by name."""
    if not run.pairs:
        return None
    return {"runs": [(_label(name), looks[name], _said(curves)) for name, curves in run.pairs.items()],
            "panels": [panel for arguments in PANELS if (panel := _panel(run, looks, *arguments))]}  # fmt: skip


def _panel(run: Results, looks: dict[str, Look], key: str, title: str, unit: str, scale: int) -> Json | None:
    lines = [
        Series(name, _line(looks[name], curves[key]), [x for x, _ in curves[key]], [scale * y for _, y in curves[key]])
        for name, curves in run.pairs.items()
        if curves.get(key)
    ]
    if not lines:
        return None
    last = max(line.x[-1] for line in lines)
    drawn = plots.panel(f"pairs-{key}", title, lines, last, zero=key == "margin", xlabel="optimizer step")
    return {"title": title, "unit": unit, "plot": drawn}


def _line(look: Look, points: list[Point]) -> Look:
    """Many steps are drawn as a curve and not as dots."""
    return dataclasses.replace(look, marker="") if len(points) > MANY else look


def _said(curves: dict[str, list[Point]]) -> str:
    """First and last twentieth of a training, in a line."""
    parts = []
    for key, word, scale, digits in (("margin", "margin", 1, 3), ("accuracy", "in order", 100, 1)):
        if points := curves.get(key):
            few = max(1, len(points) // 20)
            first, last = (scale * sum(y for _, y in part) / few for part in (points[:few], points[-few:]))
            parts.append(f"{word} {number(first, digits)} → {number(last, digits)}{' %' * (scale == 100)}")
    return ", ".join(parts)


def _label(name: str) -> str:
    return "this run" if name == "train" else name
