"""The report's section on SFT and DPO: losses, and for DPO reward margins and accuracies.

A completion's implicit reward is beta × (log-probability under the policy − under the reference). The margin is the
chosen completion's reward minus the rejected one's; the accuracy is the fraction of pairs with a positive margin
(Rafailov et al. 2023, arXiv 2305.18290, section 4 and appendix B).
"""

import dataclasses
from collections.abc import Sequence
from statistics import fmean

from launchers.report import plots
from launchers.report.curves import Point
from launchers.report.format import count, number
from launchers.report.plots import Series
from launchers.report.results import Json, Results, label

MANY = 40  # more steps are drawn as a curve instead of dots


def section(run: Results) -> Json | None:
    """The template's values; None without a training log."""
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
        ("Reward margin", "chosen minus rejected", margins),
        ("Reward accuracy", "% of pairs", order),
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
    plot = plots.panel(key, title, lines, last, zero=title != "Reward accuracy", xlabel="optimiser step")
    return {"title": title, "unit": unit, "plot": plot}


def _summary(run: Results, name: str) -> str:
    """Initial and final values of a training as text, each a mean over a twentieth of the log."""
    loss, pairs = run.losses.get(name, []), run.pairs.get(name, {})
    parts = [arrow("loss", ends(loss), 3) if loss else ""]
    parts += [arrow("margin", ends(pairs["margin"]), 3) if "margin" in pairs else ""]
    parts += [arrow("accuracy", ends(pairs["accuracy"]), percent=True) if "accuracy" in pairs else ""]
    return ", ".join(filter(None, parts)) + (f" in {count(loss[-1][0])} steps" if loss else "")


def arrow(what: str, values: tuple[float, float], digits: int = 1, percent: bool = False) -> str:
    """First and last value, fractions in percent: accuracy 51.0 → 74.3 %."""
    first, last = (number(100 * value if percent else value, digits) for value in values)
    return f"{what} {first} → {last}{' %' * percent}"


def ends(points: Sequence[Point], share: int = 20) -> tuple[float, float]:
    """Means over the first and the last 1/`share` of a curve."""
    few = max(1, len(points) // share)
    return fmean(y for _, y in points[:few]), fmean(y for _, y in points[-few:])
