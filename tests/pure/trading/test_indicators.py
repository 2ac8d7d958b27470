"""Each indicator is what its definition says, on every series, one value at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.trading.indicators import (
    atr,
    atr_step,
    bollinger,
    bollinger_step,
    deviation,
    deviation_step,
    donchian,
    donchian_step,
    ema,
    ema_step,
    highest,
    highest_step,
    is_ready,
    rsi,
    rsi_step,
    sma,
    sma_step,
    value,
)
from shared.trading.values import Bar

SERIES = st.lists(st.floats(0.01, 1e5), min_size=1, max_size=80)
LENGTH = st.integers(1, 12)


def last(state: Any, step: Callable[[Any, Any], Any], series: list[Any]) -> Any:
    """The state after all of a series."""
    for x in series:
        state = step(state, x)
    return state


def candles(series: list[float]) -> list[Bar]:
    """Bars that open where the one before closed, with a little above and below."""
    pairs = zip([series[0], *series[:-1]], series, strict=True)
    return [Bar(0, a, max(a, b) * 1.01, min(a, b) * 0.99, b, 1.0) for a, b in pairs]


@given(SERIES, LENGTH)
def test_a_simple_average_is_the_mean_of_its_window(series: list[float], bars: int) -> None:
    state = last(sma(bars), sma_step, series)
    assert is_ready(state) == (len(series) >= bars)
    if is_ready(state):
        assert value(state) == pytest.approx(statistics.fmean(series[-bars:]), rel=1e-6, abs=1e-6)


@given(SERIES, LENGTH)
def test_a_deviation_is_the_sample_deviation_of_its_window(series: list[float], bars: int) -> None:
    state = last(deviation(bars), deviation_step, series)
    if is_ready(state):
        assert value(state) == pytest.approx(statistics.stdev(series[-bars:]), rel=1e-4, abs=1e-2)
    assert is_ready(state) == (len(series) >= bars > 1)


@given(SERIES, LENGTH, st.floats(0.5, 5.0))
def test_a_band_lies_population_deviations_around_the_mean(series: list[float], bars: int, width: float) -> None:
    state = last(bollinger(bars, width), bollinger_step, series)
    assert is_ready(state) == (len(series) >= bars)
    if is_ready(state):
        window = series[-bars:]
        middle, reach = statistics.fmean(window), width * statistics.pstdev(window)
        assert value(state) == pytest.approx(middle, rel=1e-6, abs=1e-6)
        assert (state.lower, state.upper) == pytest.approx((middle - reach, middle + reach), rel=1e-4, abs=5e-2)


@given(SERIES, LENGTH)
def test_the_highest_is_the_largest_of_its_window(series: list[float], bars: int) -> None:
    state = highest(bars)
    for i, x in enumerate(series):
        state = highest_step(state, x)
        assert (value(state) == max(series[max(0, i + 1 - bars) : i + 1])) == (i + 1 >= bars)


@given(SERIES, LENGTH)
def test_a_channel_runs_from_the_lowest_low_to_the_highest_high(series: list[float], bars: int) -> None:
    market = candles(series)
    state = last(donchian(bars), donchian_step, market)
    if is_ready(state):
        window = market[-bars:]
        assert (state.lower, state.upper) == (min(b.low for b in window), max(b.high for b in window))


def test_an_exponential_average_begins_with_a_mean_and_moves_by_its_weight() -> None:
    assert not is_ready(last(ema(3), ema_step, [1.0, 2.0]))
    assert value(last(ema(3), ema_step, [1.0, 2.0, 3.0])) == 2.0
    assert value(last(ema(3), ema_step, [1.0, 2.0, 3.0, 4.0])) == 3.0  # 2 + 2/4 x (4 - 2)


def test_a_true_range_counts_the_gap_and_is_smoothed_as_wilder_did() -> None:
    market = [Bar(0, 10, 12, 9, 11, 1), Bar(0, 14, 15, 14, 14.5, 1), Bar(0, 14, 16, 13, 15, 1)]
    # ranges: 12 - 9 = 3; 15 - 11 = 4 (from the close before); 16 - 13 = 3
    assert value(last(atr(2), atr_step, market[:2])) == 3.5
    assert value(last(atr(2), atr_step, market)) == 3.25  # (3.5 x 1 + 3) / 2


def test_relative_strength_is_of_wilders_averages() -> None:
    # changes +2, -1, +1; means of the first two: 1 and 0.5; then (1 + 1) / 2 = 1 and 0.25
    assert value(last(rsi(2), rsi_step, [10.0, 12.0, 11.0])) == pytest.approx(100 * 1 / 1.5)
    assert value(last(rsi(2), rsi_step, [10.0, 12.0, 11.0, 12.0])) == pytest.approx(100 * 1 / 1.25)
    assert value(last(rsi(2), rsi_step, [10.0] * 5)) == 50.0
    assert math.isnan(value(last(rsi(2), rsi_step, [10.0, 12.0])))
