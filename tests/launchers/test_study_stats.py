"""Means and intervals over seeds and questions, against figures worked out by hand and against evaluation/metrics."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from data_prep.evaluation import intervals
from launchers.study import statistics as study_stats
from launchers.study.statistics import Estimate


def test_standard_error_by_hand():
    # Seeds' means 1/2 and 1: mean square 2 × 1/8. Questions' means 1 and 1/2: 2 × 1/8. Together 1/2, over 4 cells.
    # Degrees of freedom: (1/2)² / (1/16 + 1/16) = 2.
    error, freedom = study_stats.standard_error([[1, 0], [1, 1]])
    assert error == pytest.approx(math.sqrt(0.125))
    assert freedom == 2
    # The seeds agree: all chance is in three questions with means 1, 0, 0; mean square 2 × 1/3, over 6 cells.
    error, freedom = study_stats.standard_error([[1, 0, 0], [1, 0, 0]])
    assert error == pytest.approx(math.sqrt(2 / 3 / 6))
    assert freedom == 2


def test_interval_by_hand():
    # t with 2 degrees of freedom is 4.3027; the half-width 4.3027 × 0.35355 = 1.5212 is cut at the largest difference.
    found = study_stats.change([[1, 0], [1, 1]])
    assert (found.mean, found.low, found.high) == (75, pytest.approx(-77.12, abs=0.01), 100)
    assert (found.seeds, found.sign) == (2, 0)
    # 0.02 ± 12.706 × 0.001 (one degree of freedom, two seeds on one question)
    found = study_stats.change([[0.019], [0.021]])
    assert found.ci95 == [pytest.approx(0.729, abs=1e-3), pytest.approx(3.271, abs=1e-3)]
    assert found.sign == 1


@pytest.mark.parametrize("seed", range(5))
def test_one_seed_is_what_an_evaluation_says(seed):
    rng = random.Random(seed)
    a, b = ({str(i): rng.randrange(9) / 8 for i in range(50)} for _ in range(2))
    share, told = study_stats.score([list(a.values())]), intervals.interval(list(a.values()))
    assert share.ci95 == pytest.approx(told["ci95"], abs=1e-3)
    percent = ({key: 100 * value for key, value in one.items()} for one in (a, b))
    told = intervals.paired(*percent)
    change = study_stats.change([[a[key] - b[key] for key in a]])
    assert [change.mean, *change.ci95] == pytest.approx([told["difference"], *told["ci95"]], abs=1e-3)


def test_no_certainty_where_all_agree():
    assert study_stats.score([[1.0] * 40]).ci95 == [pytest.approx(90.7, abs=0.1), 100]
    assert study_stats.change([[0.0] * 40]).ci95 == pytest.approx([-9.3, 9.3], abs=0.1)
    alone = study_stats.score([[1.0]])
    assert alone.low < 30
    assert study_stats.change([[0.0] * 40], largest=10).high == pytest.approx(93, abs=1)


def test_sign_says_whether_zero_is_excluded():
    assert [Estimate(1, low, high, 3).sign for low, high in ((0.1, 2), (-2, -0.1), (-1, 3), (0, 2))] == [1, -1, 0, 0]


@pytest.mark.parametrize("drift", [0.0, 0.02, 0.05])
def test_intervals_hold_the_truth(drift):
    """Two cells alike, whose trainings drift by chance: 95 % intervals of their difference hold zero."""
    rng, held = random.Random(7), 0
    for _ in range(150):
        hard = [rng.betavariate(0.8, 0.8) for _ in range(60)]
        table = []
        for _ in range(3):
            shifts = [rng.gauss(0, drift) for _ in range(2)]
            a, b = ([fmean(rng.random() < p + s for _ in range(8)) for p in hard] for s in shifts)
            table.append([x - y for x, y in zip(a, b, strict=True)])
        held += study_stats.change(table).sign == 0
    assert held / 150 >= 0.91


def test_smallest_difference_by_hand():
    # Variances 2 and 8 with one degree of freedom each: s² = 5; t(2) = 4.3027; 4.3027 × √(2 × 5 / 2) = 9.621.
    assert study_stats.smallest_difference([[1, 3], [2, 6]], 2) == pytest.approx(9.621, abs=1e-3)
    assert study_stats.smallest_difference([[1, 3], [5]], 1) == pytest.approx(12.706 * 2, abs=1e-2)  # t(1) × √(2 × 2)
    assert study_stats.smallest_difference([[1], [5]], 1) is None
    assert study_stats.smallest_difference([], 0) is None
    assert study_stats.smallest_difference([[1, 3], []], 0) is None  # a cell that has not begun


@pytest.mark.parametrize("effect", [0.0, 6.0])
def test_smallest_difference_is_where_a_t_test_begins_to_see(effect):
    """A difference at the threshold is shown in about half of the cases; none in about 5 of 100."""
    rng, shown = random.Random(3), 0
    for _ in range(400):
        a, b = ([rng.gauss(shift, 1) for _ in range(3)] for shift in (effect, 0.0))
        shown += abs(fmean(a) - fmean(b)) > study_stats.smallest_difference([a, b], 3)
    assert shown >= 380 if effect else 8 <= shown <= 34
