"""Statistics of evaluations: pass@k, majority votes, intervals over prompts, paired differences.

Prompts are the sampling unit: the k samples of a prompt are averaged first, and
the variance is taken over prompts (clustered standard errors: Miller 2024, arXiv 2411.00640). Returned figures are in
percent.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist, fmean, stdev
from typing import Any

from data_prep.errors import DataError


def pass_at_k(n: int, c: int, k: int) -> float:
    """Probability that at least one of k samples is right, given c right among n (Chen et al. 2021, eq. 1).

    Unbiased: 1 - C(n-c, k) / C(n, k). Raises ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n} c={c} k={k}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def majority(votes: Sequence[tuple[str | None, float]]) -> float:
    """Expected score of the most frequent answer among one prompt's (answer, score) votes.

    Self-consistency (Wang et al. 2022, arXiv 2203.11171). Equal answers must have equal texts; None abstains. Ties
    are broken uniformly at random, in expectation. An answer's score is the mean over its samples. Without votes: 0.
    """
    scores: dict[str, list[float]] = {}
    for answer, score in votes:
        if answer is not None:
            scores.setdefault(answer, []).append(score)
    if not scores:
        return 0.0
    most = max(map(len, scores.values()))
    return fmean(fmean(s) for s in scores.values() if len(s) == most)


@lru_cache(maxsize=256)
def t_quantile(df: int) -> float:
    """The 97.5 % quantile of Student's t, by bisection of its distribution function (Abramowitz & Stegun 26.7.1).

    The normal quantile above 1000 degrees of freedom (error < 0.003), and for 0, where the variance is unknown.
    """
    if df > 1000 or df == 0:
        return NormalDist().inv_cdf(0.975)
    import mpmath  # type: ignore[import-untyped]  # comes with sympy

    low, high = 0.0, 1e4
    for _ in range(60):
        t = (low + high) / 2
        outside = mpmath.betainc(df / 2, 0.5, 0, df / (df + t * t), regularized=True)  # P(|T| > t)
        low, high = (t, high) if outside > 0.05 else (low, t)
    return high


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean; 0 for a single value."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def wilson(p: float, n: float, z: float) -> tuple[float, float]:
    """Score interval for a proportion p of n trials at quantile z (Wilson 1927); n may be an effective sample size."""
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(means: Sequence[float]) -> dict[str, Any]:
    """Mean, standard error and 95 % interval, in percent, over prompts' mean scores (fractions).

    Scores within 0..1 get Wilson's interval with the effective number of prompts p(1-p)/stderr² and Student's
    quantile (Korn & Graubard 1998; Franco et al. 2019). It stays within 0..100, agrees with mean ± t·stderr
    in the middle, and never has zero width: if all prompts agree, the effective number is the number of prompts,
    so 40 of 40 right gives [90.7, 100]. Scores outside 0..1 get mean ± t·stderr.
    """
    n = len(means)
    mean = fmean(means)
    error, t = standard_error(means), t_quantile(n - 1)
    if min(means) < 0 or max(means) > 1:
        low, high = mean - t * error, mean + t * error
    else:
        effective = mean * (1 - mean) / error**2 if error > 1e-9 else n
        low, high = wilson(mean, effective, t)
    return {"mean": percent(mean), "stderr": percent(error), "ci95": [percent(low), percent(high)]}


def paired(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, Any]:
    """Mean of a - b over the prompts in both, with standard error and 95 % t interval (Miller 2024, paired).

    `a` and `b` map prompts to mean scores in percent; the returned figures are in percent as well. If all prompts
    have the same difference, the interval covers the proportion that 0 of n does not exclude (Wilson): with
    no change in 40 prompts it is [-9.3, 9.3]. Raises DataError if no prompt is in both.
    """
    shared = _shared(a, b)
    differences = [a[p] - b[p] for p in shared]
    n = len(differences)
    mean = fmean(differences)
    error, t = standard_error(differences), t_quantile(n - 1)
    half = t * error if error > 1e-7 else 100 * wilson(0.0, n, t)[1]
    most = 100.0 if all(0 <= value <= 100 for p in shared for value in (a[p], b[p])) else math.inf  # not proportions
    ci95 = [round(max(-most, mean - half), 4), round(min(most, mean + half), 4)]
    return {"difference": round(mean, 4), "stderr": round(error, 4), "ci95": ci95, "prompts": n}


def paired_ratio(a: Mapping[str, float], b: Mapping[str, float]) -> dict[str, Any]:
    """Change from b to a in percent of b's mean over the prompts in both, with a 95 % t interval.

    `a` and `b` map prompts to positive means, such as tokens. The interval is that of a ratio of means by the delta
    method (Casella & Berger 2002, 5.5.4), paired by prompt. Raises DataError if no prompt is in both.
    """
    shared = _shared(a, b)
    means = fmean(a[p] for p in shared), fmean(b[p] for p in shared)
    if means[1] <= 0:
        raise DataError("the second evaluation's mean is not above 0")
    ratio = means[0] / means[1]
    left = [(a[p] - ratio * b[p]) / means[1] for p in shared]
    change, half = 100 * (ratio - 1), 100 * t_quantile(len(left) - 1) * standard_error(left)
    ci95 = [round(change - half, 4), round(change + half, 4)]
    return {"a": round(means[0], 2), "b": round(means[1], 2), "change": round(change, 4), "ci95": ci95}


def _shared(a: Mapping[str, float], b: Mapping[str, float]) -> list[str]:
    """Prompts in both. Raises DataError if there are none."""
    if not (shared := sorted(a.keys() & b.keys())):
        raise DataError("the two evaluations have no prompt in common")
    return shared


def percent(fraction: float) -> float:
    """A fraction in percent, rounded for records."""
    return round(100 * fraction, 4)
