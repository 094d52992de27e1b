"""The report's part on SFT and DPO: losses, and by how much the chosen completions lead, step by step.

The reward of a completion is beta × (its log-probability under the policy less that under the reference); the margin is
the preferred one's less the other's, and the accuracy is the share of pairs in which it is above zero (Rafailov et al.
2023, arXiv 2305.18290, section 4 and appendix B).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import fmean

from launchers.report import plots
from launchers.report.curves import Point
from launchers.report.format import count, number
from launchers.report.plots import Series
from launchers.report.results import Json, Results, label

MANY = 40  # steps that are drawn as a curve and not as dots


def section(run: Results) -> Json | None:
    """What the template shows; None without a training log."""
    if not run.losses and not run.pairs:
        return None
    held_out = [
        Series(f"{name}, held out", dataclasses.replace(run.look(name), marker="o"), points)
        for name, points in run.held_out.items()
    ]
    loss = [_series(run, name, points) for name, points in run.losses.items()]
    margins = [_series(run, name, of["margin"]) for name, of in run.pairs.items() if "margin" in of]
    order = [_series(run, name, of["accuracy"], 100) for name, of in run.pairs.items() if "accuracy" in of]
    panels = [
        ("Loss", "dots: on held-out rows" if held_out else "", loss + held_out),
        ("Reward margin", "chosen less rejected", margins),
        ("Pairs in order", "%", order),
    ]
    names = dict.fromkeys((*run.losses, *run.pairs))
    return {
        "runs": [(label(name), run.look(name), _summary(run, name)) for name in names],
        "panels": [_panel(f"training{at}", *panel) for at, panel in enumerate(panels) if panel[2]],
    }


def _series(run: Results, name: str, points: Sequence[Point], scale: float = 1) -> Series:
    look = run.look(name)
    return Series(name, dataclasses.replace(look, marker="") if len(points) > MANY else look, points, scale)


def _panel(key: str, title: str, unit: str, lines: Sequence[Series]) -> Json:
    last = max(line.x[-1] for line in lines)
    plot = plots.panel(key, title, lines, last, zero=title != "Pairs in order", xlabel="optimizer step")
    return {"title": title, "unit": unit, "plot": plot}


def _summary(run: Results, name: str) -> str:
    """First and last value of a training in a line, each the mean over a twentieth of the log."""
    loss, pairs = run.losses.get(name, []), run.pairs.get(name, {})
    parts = [arrow("loss", ends(loss), 3) if loss else ""]
    parts += [arrow("margin", ends(pairs["margin"]), 3) if "margin" in pairs else ""]
    parts += [arrow("in order", ends(pairs["accuracy"]), percent=True) if "accuracy" in pairs else ""]
    return ", ".join(filter(None, parts)) + (f" in {count(loss[-1][0])} steps" if loss else "")


def arrow(what: str, values: tuple[float, float], digits: int = 1, percent: bool = False) -> str:
    """First and last value, of shares in percent: in order 51.0 → 74.3 %."""
    first, last = (number(100 * value if percent else value, digits) for value in values)
    return f"{what} {first} → {last}{' %' * percent}"


def ends(points: Sequence[Point], share: int = 20) -> tuple[float, float]:
    """Means over the first and the last `share`-th of a curve."""
    few = max(1, len(points) // share)
    return fmean(y for _, y in points[:few]), fmean(y for _, y in points[-few:])
