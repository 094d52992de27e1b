"""Statistics of scored samples and of preference pairs, small enough for a run directory."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean
from typing import Any

from data_prep.core.rows import prompt_of
from data_prep.core.step import Row

BINS = 10
UNDECIDED = ("error", "timeout")  # outcomes without a valid score


def histogram(values: Sequence[float], low: float, high: float) -> dict[str, Any]:
    """Counts in BINS equal-width bins from `low` to `high`; the last bin includes `high`."""
    width = (high - low) / BINS
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int((value - low) / width + 1e-9)))] += 1
    return {"low": low, "high": high, "counts": counts}


def of_samples(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Distribution of per-question spreads (highest minus lowest score), and if all scores are in [0, 1], of pass rates
    (fraction of samples with score 1). None if no question has several samples.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for row in _scored(rows):
        scores[prompt_of(row)].append(float(row["score"]))
    if all(len(group) < 2 for group in scores.values()):
        return None
    spreads = [max(group) - min(group) for group in scores.values()]
    counts = {
        "questions": len(scores),
        "samples": sum(map(len, scores.values())),
        "no_spread": sum(spread == 0 for spread in spreads),
        "spreads": histogram(spreads, 0.0, max(1.0, *spreads)),
    }
    if not all(0 <= score <= 1 for group in scores.values() for score in group):
        return counts  # a reward model's scale
    rates = [sum(score == 1 for score in group) / len(group) for group in scores.values()]
    return counts | {
        "pass_rate": fmean(rates),
        "all_right": sum(rate == 1 for rate in rates),
        "none_right": sum(rate == 0 for rate in rates),
        "pass_rates": histogram(rates, 0.0, 1.0),
    }


def _scored(rows: Iterable[Row]) -> Iterator[Row]:
    return (row for row in rows if "score" in row and row.get("outcome") not in UNDECIDED)


def of_scores(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Distribution of a pool's scores; None if all are 0 or 1 (pass rates suffice)."""
    values = [float(row["score"]) for row in _scored(rows)]
    if all(value in (0, 1) for value in values):
        return None
    return {"rows": len(values), "mean": fmean(values), "scores": _range_of(values)}


def of_choice(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Scores of the prompts selected by likeness, and counts by length of the answer relative to the reference."""
    chosen = [row["meta"] for row in rows if "likeness" in row.get("meta", {})]
    if not chosen:
        return None
    values, lengths = [float(meta["likeness"]) for meta in chosen], Counter(meta["length"] for meta in chosen)
    shares = dict(lengths.most_common())
    return {"rows": len(values), "mean": fmean(values), "chosen": _range_of(values), "lengths": shares}


def _range_of(values: Sequence[float]) -> dict[str, Any]:
    """A histogram from the smallest to the largest value; of width 1 if all are equal."""
    return histogram(values, min(values), max(values) if max(values) > min(values) else min(values) + 1.0)


def of_pairs(rows: Iterable[Row]) -> dict[str, Any] | None:
    """Score margins, and by how many characters the chosen completion is longer; None without pairs."""
    pairs = [(row["meta"]["margin"], len(row["completion"]), len(row["rejected"])) for row in rows if "rejected" in row]
    if not pairs:
        return None
    margins, longer = [float(margin) for margin, _, _ in pairs], [chosen - rejected for _, chosen, rejected in pairs]
    reach = max(1, *map(abs, longer))
    return {
        "pairs": len(pairs),
        "margin": fmean(margins),
        "chosen_length": fmean(chosen for _, chosen, _ in pairs),
        "rejected_length": fmean(rejected for _, _, rejected in pairs),
        "margins": histogram(margins, 0.0, max(1.0, *margins)),
        "longer": histogram(longer, -reach, reach),
    }
