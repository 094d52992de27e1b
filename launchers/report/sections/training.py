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
from launchers.report.plots import Look, Series
from launchers.report.results import Json, Results, label

MANY = 40  # steps that are drawn as a curve and not as dots


def section(run: Results, looks: dict[str, Look]) -> Json | None:
    """What the template shows; None without a training log. looks: of each training, by name."""
    if not run.losses and not run.pairs:
        return None
    names = dict.fromkeys((*run.losses, *run.pairs))
    held_out = {f"{name}, held out": dataclasses.replace(looks[name], marker="o") for name in run.held_out}
    loss = [_series(name, looks[name], points) for name, points in run.losses.items()]
    loss += [
        Series(shown, look, *zip(*points, strict=True))
        for (shown, look), points in zip(held_out.items(), run.held_out.values(), strict=True)
    ]
    pairs = run.pairs.items()
    margins = [_series(name, looks[name], curves["margin"]) for name, curves in pairs if "margin" in curves]
    order = [_series(name, looks[name], curves["accuracy"], 100) for name, curves in pairs if "accuracy" in curves]
    panels = [
        ("Loss", "dots: on held-out rows" if held_out else "", loss),
        ("Reward margin", "chosen less rejected", margins),
        ("Pairs in order", "%", order),
    ]
    return {
        "runs": [(label(name), looks[name], _summary(run, name)) for name in names],
        "panels": [_panel(f"training{at}", *panel) for at, panel in enumerate(panels) if panel[2]],
    }


def _series(name: str, look: Look, points: Sequence[Point], scale: float = 1) -> Series:
    drawn = dataclasses.replace(look, marker="") if len(points) > MANY else look
    return Series(name, drawn, [x for x, _ in points], [scale * y for _, y in points])


def _panel(key: str, title: str, unit: str, lines: Sequence[Series]) -> Json:
    last = max(line.x[-1] for line in lines)
    plot = plots.panel(key, title, lines, last, zero=title != "Pairs in order", xlabel="optimizer step")
    return {"title": title, "unit": unit, "plot": plot}


def _summary(run: Results, name: str) -> str:
    """First and last value of a training in a line, each the mean over a twentieth of the log."""
    curves = {"loss": run.losses.get(name), **run.pairs.get(name, {})}
    parts = []
    for key, word, scale, digits in (
        ("loss", "loss", 1, 3),
        ("margin", "margin", 1, 3),
        ("accuracy", "in order", 100, 1),
    ):
        if points := curves.get(key):
            first, last = (number(scale * mean, digits) for mean in ends(points))
            parts.append(f"{word} {first} → {last}{' %' * (scale == 100)}")
    steps = f" in {count(run.losses[name][-1][0])} steps" if name in run.losses else ""
    return f"{', '.join(parts)}{steps}"


def ends(points: Sequence[Point], share: int = 20) -> tuple[float, float]:
    """Means over the first and the last `share`-th of a curve."""
    few = max(1, len(points) // share)
    return fmean(y for _, y in points[:few]), fmean(y for _, y in points[-few:])
