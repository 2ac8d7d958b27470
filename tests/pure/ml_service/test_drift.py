"""The drift test: silent while a model foretells as it promised, and loud soon after it no longer does."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.ml_service.drift import BATCH_BARS, Drift, DriftTest


def told(log_likelihoods: list[float], test: DriftTest) -> list[tuple[int, Drift]]:
    """(bars seen, drift) of each alarm."""
    return [(at, drift) for at, one in enumerate(log_likelihoods, start=1) if (drift := test.on_bar(one))]


def bars(batches: int, mean: float, seed: int = 1) -> list[float]:
    """Log-likelihoods whose batches have this mean, and a deviation of 0.3 around it."""
    centers = np.random.default_rng(seed).normal(mean, 0.3, batches)
    return np.repeat(centers, BATCH_BARS).tolist()


def test_a_model_that_keeps_its_promise_raises_an_alarm_once_in_a_million_bars() -> None:
    alarms = [told(bars(1_000, -2.5, seed), DriftTest(-2.5, 0.3)) for seed in range(40)]  # 1.9 million bars
    # Two are expected by chance; more than six would be in 1 of 200 such experiments.
    assert sum(map(len, alarms)) <= 6


def test_one_deviation_less_is_told_within_1000_bars_and_since_when() -> None:
    first, drift = told(bars(100, -2.5) + bars(100, -2.8, seed=2), DriftTest(-2.5, 0.3))[0]
    assert 100 * BATCH_BARS < first <= 100 * BATCH_BARS + 1_000
    assert drift.expected == -2.5 and -3.0 < drift.seen < -2.6
    assert abs(drift.bars - (first - 100 * BATCH_BARS)) <= 5 * BATCH_BARS


def test_a_drift_that_goes_on_is_told_again_and_not_on_every_bar() -> None:
    alarms = [at for at, _ in told(bars(200, -3.1), DriftTest(-2.5, 0.3))]
    assert len(alarms) > 3 and min(np.diff(alarms)) >= 3 * BATCH_BARS


def test_a_model_that_foretells_better_than_promised_has_not_drifted() -> None:
    assert told(bars(500, -1.0), DriftTest(-2.5, 0.3)) == []


@given(st.lists(st.floats(), max_size=200))
@settings(deadline=None)
def test_where_nothing_was_promised_nothing_is_broken(log_likelihoods: list[float]) -> None:
    assert told(log_likelihoods, DriftTest()) == []
