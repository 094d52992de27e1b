"""The report's part on sampled questions: how often they are solved, how far their samples differ, which pairs came."""

from __future__ import annotations

from launchers.report import plots
from launchers.report.results import Json, Results

PARTS = ("samples", "pool", "choice", "pairs")
PANELS = {
    "pass_rates": ("Pass rate", "questions", "share of samples that are right"),
    "spreads": ("Spread", "questions", "highest less lowest score"),
    "scores": ("Scores", "samples", "score"),
    "chosen": ("Scores of the chosen", "prompts", "score by which they were chosen"),
    "margins": ("Margin", "pairs", "chosen less rejected score"),
    "longer": ("Length", "pairs", "characters by which the chosen one is longer"),
}


def section(run: Results) -> list[Json]:
    """For each pipeline: its name, the facts of its parts, and its panels."""
    return [
        {
            "name": name,
            **{part: spread.get(part) for part in PARTS},
            "panels": [
                {"title": title, "unit": unit, "plot": plots.bars(f"spread{at}-{key}", title, part[key], xlabel)}
                for part in (spread.get(name) or {} for name in PARTS)
                for key, (title, unit, xlabel) in PANELS.items()
                if key in part
            ],
        }
        for at, (name, spread) in enumerate(run.spreads.items())
    ]
