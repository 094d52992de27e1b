"""The report's part on sampled questions: how often they are solved, how far their samples differ, which pairs came."""

from __future__ import annotations

from launchers.report import plots
from launchers.report.format import count, number
from launchers.report.results import Json, Results

PARTS = ("samples", "pool", "choice", "pairs")
SIMILAR = "answer of similar length"  # data_prep/steps/choose.py
PANELS = {
    "pass_rates": ("Pass rate", "questions", "share of samples that are right"),
    "spreads": ("Spread", "questions", "highest less lowest score"),
    "scores": ("Scores", "samples", "score"),
    "chosen": ("Scores of the chosen", "prompts", "score by which they were chosen"),
    "margins": ("Margin", "pairs", "chosen less rejected score"),
    "longer": ("Length", "pairs", "characters by which the chosen one is longer"),
}


def section(run: Results) -> list[Json]:
    """For each pipeline: its name, sentences about it, and its panels."""
    return [
        {
            "name": name,
            "summary": [
                *_of_samples(spread.get("samples") or {}),
                *_of_choice(spread),
                *_of_pairs(spread.get("pairs") or {}),
            ],
            "panels": [
                {"title": title, "unit": unit, "plot": plots.bars(f"spread{at}-{key}", title, part[key], xlabel)}
                for part in (spread.get(name) or {} for name in PARTS)
                for key, (title, unit, xlabel) in PANELS.items()
                if key in part
            ],
        }
        for at, (name, spread) in enumerate(run.spreads.items())
    ]


def _of_samples(spread: Json) -> list[str]:
    if not spread:
        return []
    sampled = f"{count(spread['questions'])} questions, {count(spread['samples'])} samples"
    if "pass_rate" in spread:
        sampled += (
            f", {number(100 * spread['pass_rate'])}\u00a0% right. All samples right: {count(spread['all_right'])} "
            f"questions; none right: {count(spread['none_right'])}"
        )
    return [f"{sampled}; all scores equal: {count(spread['no_spread'])}."]


def _of_choice(spread: Json) -> list[str]:
    """How much of a choice may be a mismatch of lengths only."""
    pool, choice = spread.get("pool") or {}, spread.get("choice") or {}
    if not choice:
        return []
    rows, lengths = choice["rows"], choice["lengths"]
    shares = ", ".join(f"{number(100 * n / rows)}\u00a0% {label}" for label, n in lengths.items())
    mismatch = number(100 * (rows - lengths.get(SIMILAR, 0)) / rows)
    of = f" of {count(pool['rows'])} (mean score {number(pool['mean'], 3)})" if pool else ""
    scored = f"{count(rows)} prompts chosen{of}, mean score {number(choice['mean'], 3)}."
    return [f"{scored} For {mismatch}\u00a0% of them the answer's length alone may explain the score: {shares}."]


def _of_pairs(spread: Json) -> list[str]:
    if not spread:
        return []
    return [
        f"{count(spread['pairs'])} pairs, mean margin {number(spread['margin'], 2)}; the chosen completions have "
        f"{count(spread['chosen_length'])} characters on average, the rejected {count(spread['rejected_length'])}."
    ]
