"""The features: one function for training and serving, no look-ahead, no memory beyond the last 48 returns."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.regimes.features import (
    FEATURE_NAMES,
    LONG,
    SHORT,
    WARMUP_BARS,
    features_of_closes,
    features_of_returns,
    start_features,
    step_features,
)

closes = st.lists(st.floats(1e-6, 1e9), min_size=WARMUP_BARS, max_size=WARMUP_BARS + 60)


def walk(bars: int, seed: int = 1, drift: float = 0.0) -> list[float]:
    returns = np.random.default_rng(seed).normal(drift, 0.01, bars)
    return (100.0 * np.exp(np.cumsum(returns))).tolist()


def test_nothing_is_said_before_the_window_is_full() -> None:
    rows = features_of_closes(walk(WARMUP_BARS + 5))
    assert all(row is None for row in rows[: WARMUP_BARS - 1])
    assert all(row is not None and len(row) == len(FEATURE_NAMES) for row in rows[WARMUP_BARS - 1 :])


def test_a_steady_rise_is_the_strongest_trend_there_can_be() -> None:
    row = features_of_closes([100.0 * 1.01**bar for bar in range(WARMUP_BARS)])[-1]
    # every return is log(1.01): sum / sqrt(sum of squares) = sqrt(number of returns), volatility = log(1.01)
    assert row == pytest.approx((math.sqrt(SHORT), math.sqrt(LONG), math.log(math.log(1.01))))


def test_a_market_that_stands_still_has_finite_features() -> None:
    assert features_of_closes([100.0] * WARMUP_BARS)[-1] == pytest.approx((0.0, 0.0, math.log(1e-6)))


@given(closes)
def test_features_are_finite_and_trends_bounded_in_every_market(prices: list[float]) -> None:
    for row in features_of_closes(prices)[WARMUP_BARS - 1 :]:
        assert row is not None and all(map(math.isfinite, row))
        assert abs(row[0]) <= math.sqrt(SHORT) * (1 + 1e-12) and abs(row[1]) <= math.sqrt(LONG) * (1 + 1e-12)


@given(closes, st.integers(0, 100), st.floats(1e-6, 1e9))
def test_the_future_changes_no_past_feature(prices: list[float], at: int, other: float) -> None:
    at = min(at, len(prices) - 1)
    changed = prices[: at + 1] + [other] * (len(prices) - at - 1)
    assert features_of_closes(changed)[: at + 1] == features_of_closes(prices)[: at + 1]


@given(closes, st.lists(st.floats(1e-6, 1e9), max_size=30))
def test_who_joins_late_reads_the_same_bits(prices: list[float], before: list[float]) -> None:
    assert features_of_closes(before + prices)[-1] == features_of_closes(prices)[-1]


def test_training_and_serving_see_the_same_numbers() -> None:
    prices = walk(200)
    state, served = start_features(), []
    for price in prices:
        state, row = step_features(state, price)
        served.append(row)
    assert served == features_of_closes(prices)


def test_returns_alone_give_the_features_of_their_prices() -> None:
    prices = walk(120)
    returns = [math.log(b / a) for a, b in pairwise(prices)]
    assert features_of_returns(returns) == features_of_closes(prices)[1:]
