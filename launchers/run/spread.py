"""How the scored samples of questions spread, and the pairs made of them, in counts that fit into a run directory."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

from data_prep.core.rows import prompt_of
from data_prep.core.step import Row

BINS = 10
UNDECIDED = ("error", "timeout")  # outcomes that say nothing about a sample


def histogram(values: Sequence[float], low: float, high: float) -> dict[str, Any]:
    """Counts in BINS bins of equal width from `low` to `high`; the last holds its upper end, too."""
    width = (high - low) / BINS
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int((value - low) / width + 1e-9)))] += 1
    return {"low": low, "high": high, "counts": counts}


def of_samples(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Spreads (highest less lowest score) of questions, and where all scores are 0 to 1 pass rates (share of samples
    with a score of 1). None where no question has several samples.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if "score" in row and row.get("outcome") not in UNDECIDED:
            scores[prompt_of(row)].append(float(row["score"]))
    if all(len(group) < 2 for group in scores.values()):
        return None
    spreads = [max(group) - min(group) for group in scores.values()]
    passed: dict[str, Any] = {}
    if all(0 <= score <= 1 for group in scores.values() for score in group):  # a reward model's are on its own scale
        rates = [sum(score == 1 for score in group) / len(group) for group in scores.values()]
        passed = {
            "pass_rate": sum(rates) / len(rates),
            "all_right": sum(rate == 1 for rate in rates),
            "none_right": sum(rate == 0 for rate in rates),
            "pass_rates": histogram(rates, 0.0, 1.0),
        }
    return {
        "questions": len(scores),
        "samples": sum(map(len, scores.values())),
        "no_spread": sum(spread == 0 for spread in spreads),
        **passed,
        "spreads": histogram(spreads, 0.0, max(1.0, *spreads)),
    }


def of_scores(rows: Iterable[Row]) -> dict[str, Any] | None:
    """The scores of a pool, None where all are 0 or 1 (whose pass rates say all)."""
    values = [float(row["score"]) for row in rows if "score" in row and row.get("outcome") not in UNDECIDED]
    if all(value in (0, 1) for value in values):
        return None
    return {"rows": len(values), "mean": fmean(values), "scores": histogram(values, min(values), _above(values))}


def of_choice(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Scores of the prompts that were chosen by them, and how the answers' lengths compare with the references'."""
    values, lengths = [], Counter[str]()
    for row in rows:
        if "likeness" in row.get("meta", {}):
            values.append(float(row["meta"]["likeness"]))
            lengths[row["meta"]["length"]] += 1
    if not values:
        return None
    chosen = histogram(values, min(values), _above(values))
    return {"rows": len(values), "mean": fmean(values), "chosen": chosen, "lengths": dict(lengths.most_common())}


def _above(values: Sequence[float]) -> float:
    """The largest value, or what keeps bins from having no width."""
    return max(values) if max(values) > min(values) else min(values) + 1.0


def of_pairs(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Margins of score, and by how many characters the preferred completion is longer; None without pairs."""
    margins, chosen, rejected = [], [], []
    for row in rows:
        if "rejected" in row:
            margins.append(float(row["meta"]["margin"]))
            chosen.append(len(row["completion"]))
            rejected.append(len(row["rejected"]))
    if not margins:
        return None
    longer = [a - b for a, b in zip(chosen, rejected, strict=True)]
    reach = max(1, *map(abs, longer))
    return {
        "pairs": len(margins),
        "margin": sum(margins) / len(margins),
        "chosen_length": sum(chosen) / len(chosen),
        "rejected_length": sum(rejected) / len(rejected),
        "margins": histogram(margins, 0.0, max(1.0, *margins)),
        "longer": histogram(longer, -reach, reach),
    }
