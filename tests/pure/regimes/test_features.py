"""The features: one function for training and serving, no look-ahead, no memory beyond the last 97 bars."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.regimes.features import (
    FEATURE_NAMES,
    LARGEST_SURPRISE,
    LONG,
    RANGES,
    SHORT,
    WARMUP_BARS,
    Candle,
    features_of,
    start_features,
    step_features,
    trends_of_returns,
)
from tests.candles import candles

prices = st.floats(1e-6, 1e9)


@st.composite
def any_bar(draw: st.DrawFn) -> Candle:
    low, *inside, high = sorted(draw(st.lists(prices, min_size=4, max_size=4)))
    opened, closed = draw(st.permutations(inside))
    return Candle(opened, high, low, closed, draw(st.floats(0.0, 1e12)))


@st.composite
def some_bars(draw: st.DrawFn) -> list[Candle]:
    """A hundred bars of a walk, with a few anywhere among them that are as wild as a bar can be."""
    bars = walk(WARMUP_BARS + 20, seed=draw(st.integers(0, 1_000)))
    for place, bar in draw(st.dictionaries(st.integers(0, len(bars) - 1), any_bar(), max_size=8)).items():
        bars[place] = bar
    return bars


def walk(bars: int, seed: int = 1) -> list[Candle]:
    returns = np.random.default_rng(seed).normal(0.0, 0.01, bars)
    return candles((100.0 * np.exp(np.cumsum(returns))).tolist(), seed)


def flat(bars: int, volume: float = 1.0) -> list[Candle]:
    return [Candle(100.0, 100.0, 100.0, 100.0, volume)] * bars


def test_nothing_is_said_before_the_windows_are_full() -> None:
    rows = features_of(walk(WARMUP_BARS + 5))
    assert all(row is None for row in rows[: WARMUP_BARS - 1])
    assert all(row is not None and len(row) == len(FEATURE_NAMES) for row in rows[WARMUP_BARS - 1 :])


def test_a_steady_rise_is_the_strongest_trend_there_can_be() -> None:
    closes = [100.0 * 1.01**bar for bar in range(WARMUP_BARS)]
    bars = [Candle(a, b, a, b, 1.0) for a, b in pairwise([closes[0], *closes])]
    row = features_of(bars)[-1]
    assert row is not None
    # Every return is log(1.01): sum / root of the sum of squares = root of the number of returns.
    assert row[:2] == pytest.approx((math.sqrt(SHORT), math.sqrt(LONG)))
    # A bar that only rises has the range of its return: variance (0.5 - (2 log 2 - 1)) r^2, Garman & Klass.
    assert row[2] == pytest.approx(0.5 * math.log((1.5 - 2.0 * math.log(2.0)) * math.log(1.01) ** 2))
    assert row[3] == 0.0


def test_the_variance_of_bars_is_that_of_the_walk_inside_them() -> None:
    """Of 20,000 bars with 400 normal steps each the mean variance is the walk's own, within what so fine a grid loses."""
    steps = np.random.default_rng(3).normal(0.0, 0.01 / math.sqrt(400), (20_000, 400))
    paths = 100.0 * np.exp(np.concatenate([np.zeros((20_000, 1)), np.cumsum(steps, axis=1)], axis=1))
    told = [
        math.exp(2.0 * row[2])
        for path in np.array_split(paths, 20_000 // RANGES)
        if (row := features_of([*flat(WARMUP_BARS), *(_joined(path))])[-1]) is not None
    ][:2_000]
    assert np.mean(told) == pytest.approx(0.01**2, rel=0.1)


def _joined(paths: np.ndarray) -> list[Candle]:
    """Bars of these paths, each beginning where the one before it ended, the first at 100."""
    bars, at = list[Candle](), 100.0
    for path in paths:
        moved = path * (at / path[0])
        bars.append(Candle(at, float(moved.max()), float(moved.min()), float(moved[-1]), 1.0))
        at = float(moved[-1])
    return bars


def test_a_gap_between_bars_is_part_of_the_volatility() -> None:
    quiet = features_of(flat(WARMUP_BARS + 1))[-1]
    jumped = features_of([*flat(WARMUP_BARS), Candle(110.0, 110.0, 110.0, 110.0, 1.0)])[-1]
    assert quiet is not None and jumped is not None
    assert quiet[2] == pytest.approx(math.log(1e-6)), "a market that stands still has a finite volatility"
    assert jumped[2] == pytest.approx(0.5 * math.log(math.log(1.1) ** 2 / RANGES))


def test_volume_surprises_when_it_is_not_what_it_usually_is() -> None:
    busy = features_of([*flat(WARMUP_BARS), *flat(RANGES, volume=10.0)])[-1]
    silent = features_of([*flat(WARMUP_BARS), *flat(RANGES, volume=0.0)])[-1]
    never = features_of(flat(WARMUP_BARS, volume=0.0))[-1]
    assert busy is not None and silent is not None and never is not None
    usual = (92 + 4 * 10.0) / 96
    assert busy[3] == pytest.approx(math.log(10.0 / usual))
    assert silent[3] == -LARGEST_SURPRISE and never[3] == 0.0


@given(some_bars())
@settings(max_examples=50, deadline=None)
def test_features_are_finite_and_trends_bounded_in_every_market(bars: list[Candle]) -> None:
    for row in features_of(bars)[WARMUP_BARS - 1 :]:
        assert row is not None and all(map(math.isfinite, row))
        assert abs(row[0]) <= math.sqrt(SHORT) * (1 + 1e-12) and abs(row[1]) <= math.sqrt(LONG) * (1 + 1e-12)


@given(some_bars(), st.integers(0, 120), any_bar())
@settings(max_examples=50, deadline=None)
def test_the_future_changes_no_past_feature(bars: list[Candle], at: int, other: Candle) -> None:
    at = min(at, len(bars) - 1)
    changed = bars[: at + 1] + [other] * (len(bars) - at - 1)
    assert features_of(changed)[: at + 1] == features_of(bars)[: at + 1]


@given(some_bars(), st.lists(any_bar(), max_size=30))
@settings(max_examples=50, deadline=None)
def test_who_joins_late_reads_the_same_bits(bars: list[Candle], before: list[Candle]) -> None:
    assert features_of(before + bars)[-1] == features_of(bars)[-1]


def test_training_and_serving_see_the_same_numbers() -> None:
    bars = walk(200)
    state, served = start_features(), []
    for bar in bars:
        state, row = step_features(state, bar)
        served.append(row)
    assert served == features_of(bars)


def test_returns_alone_give_the_trends_of_their_bars() -> None:
    bars = walk(WARMUP_BARS + 20)
    returns = [math.log(b.close / a.close) for a, b in pairwise(bars)]
    by_bars = [row[:2] for row in features_of(bars) if row is not None]
    assert trends_of_returns(returns)[-len(by_bars) :] == by_bars
    assert trends_of_returns(returns)[LONG - 2] is None
