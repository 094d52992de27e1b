"""Statistics against values computed by hand, by enumeration, by simulation and from tables."""

from __future__ import annotations

import itertools
import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import DataError
from data_prep.evaluation import intervals


@given(st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_sample(data):
    n = data.draw(st.integers(1, 9))
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations([1] * c + [0] * (n - c), k))
    assert intervals.pass_at_k(n, c, k) == pytest.approx(fmean(any(d) for d in draws))


@given(st.integers(1, 200), st.data())
def test_pass_at_k_is_bounded_grows_with_k_and_at_one_is_the_share(n, data):
    c = data.draw(st.integers(0, n))
    values = [intervals.pass_at_k(n, c, k) for k in range(1, n + 1)]
    assert values[0] == pytest.approx(c / n)
    assert values[-1] == (1 if c else 0)
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(values))


@pytest.mark.parametrize(("n", "c", "k"), [(4, 5, 1), (4, -1, 1), (4, 2, 0), (4, 2, 5)])
def test_pass_at_k_rejects_impossible_counts(n, c, k):
    with pytest.raises(ValueError, match="pass@k needs"):
        intervals.pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ([("7", 1), ("7", 1), ("9", 0), ("3", 0)], 1.0),
        ([("7", 1), ("9", 0), ("9", 0), ("3", 0)], 0.0),
        ([("7", 1), ("7", 1), ("9", 0), ("9", 0)], 0.5),  # two tied answers, one right
        ([("7", 1), ("8", 0), ("9", 0)], 1 / 3),
        ([(None, 0), (None, 0), ("7", 1)], 1.0),  # who has no answer does not vote
        ([(None, 0), (None, 0)], 0.0),
    ],
)
def test_majority(votes, expected):
    assert intervals.majority(votes) == pytest.approx(expected)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1), st.randoms())
def test_majority_does_not_depend_on_order(votes, rng):
    right = {"a": 1.0, "b": 0.0, "c": 0.0}
    votes = [(answer, right[answer]) for answer, _ in votes]
    shuffled = rng.sample(votes, len(votes))
    assert intervals.majority(votes) == intervals.majority(shuffled)


@pytest.mark.parametrize(
    ("df", "table"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980), (10**6, 1.960)],
)
def test_t_quantile_agrees_with_the_printed_table(df, table):
    assert intervals.t_quantile(df) == pytest.approx(table, abs=5e-4)


def test_wilson_agrees_with_a_published_example():
    # Newcombe 1998 (Statistics in Medicine 17:857), table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    z = 1.959964
    for right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        assert intervals.wilson(right / n, n, z) == pytest.approx((low, high), abs=5e-5)


def test_interval_by_hand():
    # means 0, 0, 1, 1: mean 0.5, sd sqrt(1/3), stderr sqrt(1/12) = 0.288675, effective n = .25 / (1/12) = 3,
    # t(3) = 3.18245; Wilson: centre 0.5, half = t/(1+t²/3) · sqrt(.25/3 + t²/36) = 0.439170
    found = intervals.interval([0, 0, 1, 1])
    assert found["mean"] == 50
    assert found["stderr"] == pytest.approx(28.8675, abs=1e-3)
    assert found["ci95"] == pytest.approx([6.083, 93.917], abs=1e-3)


def test_interval_in_the_middle_is_mean_plus_minus_two_stderr():
    means = [1.0] * 540 + [0.0] * 460
    found = intervals.interval(means)
    assert found["ci95"][0] == pytest.approx(54 - 1.96 * found["stderr"], abs=0.05)
    assert found["ci95"][1] == pytest.approx(54 + 1.96 * found["stderr"], abs=0.05)


def test_interval_has_width_when_all_prompts_agree():
    assert intervals.interval([1.0] * 40)["ci95"] == pytest.approx([90.72, 100], abs=0.01)
    assert intervals.interval([0.0] * 40)["ci95"] == pytest.approx([0, 9.28], abs=0.01)
    assert intervals.interval([1.0])["ci95"][0] < 25


def test_interval_of_scores_outside_zero_to_one_is_not_clipped():
    found = intervals.interval([-1.0, 1.0, -1.0, -1.0])
    assert found["mean"] == -50
    assert found["ci95"][0] == pytest.approx(-50 - 3.18245 * 50, abs=0.01)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_interval_holds_its_mean_and_stays_within_bounds(means):
    found = intervals.interval(means)
    low, high = found["ci95"]
    assert 0 <= low <= found["mean"] + 1e-3
    assert found["mean"] - 1e-3 <= high <= 100
    assert low < high


def test_interval_covers_the_truth_19_times_in_20_with_clustered_samples():
    # 60 prompts of very different difficulty, 8 samples each: as 480 independent ones they would cover 64 %.
    rng, hits, trials = random.Random(0), 0, 1500
    for _ in range(trials):
        truth = [rng.betavariate(0.3, 0.7) for _ in range(60)]
        means = [fmean(rng.random() < p for _ in range(8)) for p in truth]
        low, high = intervals.interval(means)["ci95"]
        hits += low <= 30 <= high
    assert 0.93 <= hits / trials <= 0.97


def test_paired_by_hand():
    # differences 100, 0, 0, 50: mean 37.5, sd 47.871, stderr 23.936, t(3) = 3.18245
    found = intervals.paired({"p": 100, "q": 50, "r": 0, "s": 100, "x": 1}, {"p": 0, "q": 50, "r": 0, "s": 50})
    assert found["prompts"] == 4
    assert found["difference"] == 37.5
    assert found["stderr"] == pytest.approx(23.936, abs=1e-3)
    assert found["ci95"] == pytest.approx([max(-100, 37.5 - 76.174), 100], abs=0.01)


def test_paired_without_change_has_an_interval_with_width():
    same = {str(i): 100.0 for i in range(40)}
    assert intervals.paired(same, same)["ci95"] == pytest.approx([-9.28, 9.28], abs=0.01)


@given(st.dictionaries(st.text("pq", min_size=1), st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1))
def test_paired_is_antisymmetric(values):
    a, b = ({p: v[i] for p, v in values.items()} for i in (0, 1))
    forth, back = intervals.paired(a, b), intervals.paired(b, a)
    assert forth["difference"] == -back["difference"]
    assert forth["ci95"] == [-back["ci95"][1], -back["ci95"][0]]


def test_paired_without_a_common_prompt_is_rejected():
    with pytest.raises(DataError, match="no prompt in common"):
        intervals.paired({"a": 1.0}, {"b": 1.0})


def test_paired_ratio_by_hand():
    # means 20 and 40: half. Residuals a - b/2 over 40: -5/40, 5/40; sd 0.17678, stderr 0.125, t(1) = 12.706
    found = intervals.paired_ratio({"p": 10, "q": 30, "x": 1}, {"p": 30, "q": 50})
    assert (found["a"], found["b"], found["change"]) == (20, 40, -50)
    assert found["ci95"] == pytest.approx([-50 - 158.83, -50 + 158.83], abs=0.01)


def test_paired_ratio_is_exact_for_equal_ratios_and_covers_the_truth():
    b = {str(i): 10.0 + i for i in range(30)}
    assert intervals.paired_ratio({p: 0.7 * v for p, v in b.items()}, b)["ci95"] == pytest.approx([-30, -30])
    rng, hits = random.Random(4), 0
    for _ in range(400):
        b = {str(i): rng.uniform(20, 200) for i in range(50)}
        a = {p: 0.8 * v * rng.uniform(0.6, 1.4) for p, v in b.items()}
        low, high = intervals.paired_ratio(a, b)["ci95"]
        hits += low <= -20 <= high
    assert 0.91 <= hits / 400 <= 0.98


@pytest.mark.parametrize(("b", "message"), [({"q": 1.0}, "no prompt in common"), ({"p": 0.0}, "not above 0")])
def test_paired_ratio_rejects_undefined_ratios(b, message):
    with pytest.raises(DataError, match=message):
        intervals.paired_ratio({"p": 1.0}, b)
