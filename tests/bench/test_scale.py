"""The simulations of bench/scale agree with closed forms where these hold."""

from __future__ import annotations

from tests.bench.scale import daly, rate, recommended, simulated, young


def test_without_failures_a_run_takes_its_steps_and_checkpoints() -> None:
    assert simulated(10, 1.0, 5.0, 60.0, 1e12, 100, seed=1) == 100 * 1.0 + 10 * 5.0


def test_the_recommended_interval_is_near_youngs_and_dalys() -> None:
    best, means = recommended(10.0, 30.0, 120.0, 4 * 3600.0, 2000)
    for formula in (young, daly):
        every = formula(30.0, 4 * 3600.0) / 10.0
        assert every / 2 < best < every * 2
    assert means[best] < min(means[min(means)], means[max(means)])


def test_more_workers_than_the_engine_can_serve_wait_for_it() -> None:
    assert abs(rate(8, 0.001) - 8 / 30) < 0.02
    assert rate(4096, 0.01) <= 1 / 0.01
