"""Pairs: the trades of a small market worked by hand, the regression against numpy, and what happens when a leg is gone."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.trading.checker import faults
from shared.trading.columns import MarketColumns
from shared.trading.compiled.portfolios import PortfolioRun, PortfolioTerms, scan_portfolio
from shared.trading.kernel import same
from shared.trading.strategies.pairs import STRATEGY, beta, regression_step, start, z_score
from shared.trading.strategy import BadParams
from tests.pure.trading.portfolio.markets import FREE, Kind, Told, equity, instrument, market_of, trades

PARAMS = {"bars": 4, "enter": 0.9, "exit": 0.5}


def powers(ys: list[float | None], xs: list[float | None], base: float = 2.0) -> MarketColumns:
    """Two instruments at 100 x base^y and 100 x base^x, each bar opening at the close before.

    A z-score does not know the unit of its logs, so beta and z can be worked out in y and x.
    """

    def story(powers: list[float | None]) -> list[Told | None]:
        told: list[Told | None] = []
        before = 100.0
        for power in powers:
            close = before if power is None else 100.0 * base**power
            told.append(None if power is None else Told(before, close))
            before = close
        return told

    return market_of(story(ys), story(xs))


def run(market: MarketColumns, kind: Kind = "perpetual", stop: float = 3.0) -> PortfolioRun:
    # ticks of 1, so a quantity is sized for 1 above the close
    instruments = tuple(instrument(symbol, kind=kind, tick="1") for symbol in market.symbols)
    terms = PortfolioTerms(instruments, "1h", FREE, Decimal(10_000))
    return scan_portfolio(STRATEGY, market, {**PARAMS, "stop": stop}, terms, with_curve=True, with_fills=True)


def test_a_spread_that_is_wide_is_sold_and_bought_back_when_it_is_home() -> None:
    # bars 0..3: y = 0 1 0 2, x = 0 1 0 1, means 3/4 and 1/2
    #   xx = 4 x 1/4 = 1, xy = 3/8 + 1/8 + 3/8 + 5/8 = 3/2, yy = 9/16 + 1/16 + 9/16 + 25/16 = 11/4
    #   beta = 3/2, residual variance = (11/4 - 3/2 x 3/2) / 2 = 1/4
    #   z of bar 3 = (5/4 - 3/2 x 1/2) / 1/2 = 1: above 0.9, so sell y and buy x, 1 : 3/2 of the equity
    # bars 1..4: y = 1 0 2 0, x = 1 0 1 0: the same sums, and z of bar 4 = (-3/4 + 3/4) / 1/2 = 0: home
    market = powers([0, 1, 0, 2, 0, 0], [0, 1, 0, 1, 0, 0])
    told = run(market)
    # at 400 and 200: 4,000 / 401 = 9.97 sold, 6,000 / 201 = 29.85 bought; both end at 100
    assert trades(told) == [
        (4, "A-USDT", "-9.97", "400"),
        (4, "B-USDT", "29.85", "200"),
        (5, "A-USDT", "9.97", "100"),
        (5, "B-USDT", "-29.85", "100"),
    ]
    # 9.97 x 300 - 29.85 x 100 = 6
    assert equity(told) == [10_000, 10_000, 10_000, 10_000, 10_006, 10_006]
    assert told.figures.trades == 2


def test_a_spread_that_runs_away_is_left_and_not_entered_again_before_it_was_home() -> None:
    # sold at the close of bar 3 as above. Bars 1..4: y = 1 0 2 9, x = 1 0 1 2/3, means 3 and 2/3
    #   xx = 2/3, xy = 1/3 + 2/3 = 1, beta = 3/2; residuals -5/2 -2 -3/2 6, so z = 6 / sqrt(48.5 / 2) = 1.22
    # bars 2..5: y = 0 2 9 30, x = 0 1 2/3 1, means 41/4 and 2/3
    #   xx = 2/3, xy = 32/3, beta = 16; residuals 5/12 -163/12 -5/4 173/12, so z = 14.42 / sqrt(394.1 / 2) = 1.03
    market = powers([0, 1, 0, 2, 9, 30, 30], [0, 1, 0, 1, 2 / 3, 1, 1], base=1.01)
    # a stop at 1.1 ends it at bar 4, and bar 5, wide as it is, begins nothing: it has not been home
    assert [bar for bar, *_ in trades(run(market, stop=1.1))] == [4, 4, 5, 5]
    # a stop at 1.3 is not met, and nothing is home yet
    assert [bar for bar, *_ in trades(run(market, stop=1.3))] == [4, 4]


def test_a_pair_that_was_given_up_is_entered_again_once_its_spread_was_home() -> None:
    # as above until bar 4; then the first four bars again, at which y and x went together
    again = [0, 1, 0, 1, 0, 2, 0, 0]
    market = powers([0, 1, 0, 2, 9, *again], [0, 1, 0, 1, 2 / 3, 0, 1, 0, 1, 0, 1, 0, 0], base=1.01)
    bars = [bar for bar, *_ in trades(run(market, stop=1.1))]
    # bars 7..10 are y = 0 1 0 2, x = 0 1 0 1 once more: z = 1, filled at the open of bar 11
    assert bars[:4] == [4, 4, 5, 5]
    assert 11 in bars[4:]


def test_both_legs_or_none_so_on_spot_there_are_none() -> None:
    told = run(powers([0, 1, 0, 2, 0, 0], [0, 1, 0, 1, 0, 0]), kind="spot")
    assert trades(told) == []
    assert told.stats.shorts_refused == 1


def test_a_leg_that_is_gone_for_a_whole_window_ends_the_other() -> None:
    market = powers([0, 1, 0, 2, *[2] * 6], [0, 1, 0, 1, 1, *[None] * 5])
    told = run(market)
    # x is gone from bar 5 on: at the close of bar 8, the fourth without it, y is bought back; x stays at its last close
    assert [bar for bar, name, _, _ in trades(told) if name == "A-USDT"] == [4, 9]
    assert told.legs.lots == [0, 2985]


def test_what_moves_exactly_together_has_no_spread_to_trade() -> None:
    rises = np.cumsum(np.random.default_rng(5).normal(0, 0.1, 60))
    told = run(powers(rises.tolist(), rises.tolist()))
    assert trades(told) == []


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=5, max_size=60),
    st.integers(3, 5),
)
def test_the_rolling_regression_is_that_of_least_squares(points: list[tuple[float, float]], bars: int) -> None:
    line = start(STRATEGY.params({"bars": bars, "enter": 1.0, "exit": 0.0, "stop": 2.0}), 2).line
    for x, y in points:
        line = regression_step(line, x, y)
    xs, ys = (np.array(each[-bars:]) for each in zip(*points, strict=True))
    if np.var(xs) < 1e-4:
        return
    slope, height = np.polyfit(xs, ys, 1)
    residuals = ys - slope * xs - height
    assert beta(line) == pytest.approx(slope, rel=1e-6, abs=1e-6)
    error = math.sqrt(residuals @ residuals / (bars - 2))
    if error > 1e-3:
        assert z_score(line, *points[-1]) == pytest.approx(residuals[-1] / error, rel=1e-4, abs=1e-4)


def test_nothing_is_said_before_the_window_is_full_or_where_x_stands_still() -> None:
    line = start(STRATEGY.params({"bars": 3}), 2).line
    for _ in range(2):
        line = regression_step(line, 1.0, 2.0)
    assert same((beta(line), z_score(line, 1.0, 2.0)), (math.nan, math.nan))
    line = regression_step(line, 1.0, 3.0)
    assert same((beta(line), z_score(line, 1.0, 3.0)), (math.nan, math.nan))


def test_its_thresholds_must_stand_in_their_order() -> None:
    assert faults(STRATEGY) == []
    with pytest.raises(BadParams, match="rule between parameters does not hold"):
        STRATEGY.params({"enter": 2.0, "stop": 1.0})
