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
    "margins": ("Margin", "pairs", "preferred less dispreferred score"),
    "longer": ("Length", "pairs", "characters by which the preferred one is longer"),
}


def section(run: Results) -> list[Json]:
    """For each pipeline: its name, what is said of it, and its panels."""
    return [
        {
            "name": name,
            "said": [
                *_of_samples(found.get("samples") or {}),
                *_of_choice(found),
                *_of_pairs(found.get("pairs") or {}),
            ],
            "panels": [
                {"title": title, "unit": unit, "plot": plots.bars(f"spread{at}-{key}", title, part[key], xlabel)}
                for part in (found.get(name) or {} for name in PARTS)
                for key, (title, unit, xlabel) in PANELS.items()
                if key in part
            ],
        }
        for at, (name, found) in enumerate(run.spreads.items())
    ]


def _of_samples(found: Json) -> list[str]:
    if not found:
        return []
    return [
        f"{count(found['questions'])} questions, {count(found['samples'])} samples, "
        f"{number(100 * found['pass_rate'])}\u00a0% right. All samples right: {count(found['all_right'])} questions; "
        f"none right: {count(found['none_right'])}; all scores equal: {count(found['no_spread'])}."
    ]


def _of_choice(found: Json) -> list[str]:
    """How much of a choice may be a mismatch of lengths only."""
    pool, choice = found.get("pool") or {}, found.get("choice") or {}
    if not choice:
        return []
    rows, lengths = choice["rows"], choice["lengths"]
    shares = ", ".join(f"{number(100 * n / rows)}\u00a0% {label}" for label, n in lengths.items())
    mismatch = number(100 * (rows - lengths.get(SIMILAR, 0)) / rows)
    of = f" of {count(pool['rows'])} (mean score {number(pool['mean'], 3)})" if pool else ""
    scored = f"{count(rows)} prompts chosen{of}, mean score {number(choice['mean'], 3)}."
    return [f"{scored} For {mismatch}\u00a0% of them the answer's length alone may explain the score: {shares}."]


def _of_pairs(found: Json) -> list[str]:
    if not found:
        return []
    return [
        f"{count(found['pairs'])} pairs, mean margin {number(found['margin'], 2)}; the preferred completions have "
        f"{count(found['chosen_length'])} characters in the mean, the dispreferred {count(found['rejected_length'])}."
    ]
