"""Edge cases that broke an earlier system, each with what we do about it. `docs/hard_cases.md` lists all of them.

Bars are hourly and written by their closes; each opens where the one before closed unless `opens` says otherwise.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest

from services.backtest_suite.data import Bars
from services.backtest_suite.driver import DECIDED, Experiment
from services.backtest_suite.results import Result
from shared.contracts.governance import Costs, SlippageModel
from shared.trading.columns import Columns
from shared.trading.compiled import Failure, Targets, scan, vector_targets
from shared.trading.kernel import kernel
from shared.trading.strategies import BUILT_IN
from shared.trading.strategy import strategy
from shared.trading.trader import SleeveRefused, Trader
from shared.trading.values import Bar, Regime, Target, long
from tests.pure.backtest_suite.markets import BTC, FREE, HOUR_MS, experiment, trends
from tests.pure.trading.test_kernels import TERMS, walk


def followed(
    closes: list[float],
    exposures: list[float],
    *,
    opens: list[float] | None = None,
    at: list[int] | None = None,
    stop: float = math.nan,
    costs: Costs = FREE,
    **given: Any,
) -> Result:
    """One coin held where the exposure is 1, on the bars of these hours."""
    open = np.array(opens or [closes[0], *closes[:-1]], float)
    close = np.array(closes, float)
    hours = np.arange(len(closes)) if at is None else np.array(at)
    columns = Columns.of(
        hours * HOUR_MS, open, np.maximum(open, close), np.minimum(open, close), close, np.full(len(closes), 1e9)
    )
    bars = Bars("BTC-USDT", "1h", columns, BTC)
    targets = Targets.of(exposures, stop=stop)
    return Experiment.of(DECIDED, bars, targets=targets, size=Decimal(1), costs=costs, **given).run()


def fills_of(result: Result) -> list[tuple[int, float]]:
    """(hour, price) of each fill."""
    assert result.run.fills is not None
    times = result.experiment.bars.columns.opened_at_ms
    return [(int(times[bar]) // HOUR_MS, ticks / 100) for bar, _, ticks, *_ in result.run.fills.tolist()]


def test_a_missing_bar_makes_no_order_and_the_stop_is_judged_on_the_first_bar_after_it() -> None:
    # Hour 2 is missing. At the close of hour 3 the price is 10 below the entry, the stop is 5 away: out at hour 4.
    run = followed([100, 100, 90, 91], [1, 1, 1, 1], at=[0, 1, 3, 4], stop=5.0)
    assert fills_of(run) == [(1, 100.0), (4, 90.0)]
    assert [trade.reason for trade in run.trades] == ["stop"]
    assert (run.experiment.bars.gaps, run.experiment.bars.missing) == (1, 1)


def test_an_order_made_before_missing_bars_is_filled_where_the_market_opens_again() -> None:
    run = followed([100, 130, 130], [1, 1, 0], at=[0, 5, 6], opens=[100, 120, 130])
    assert fills_of(run) == [(5, 120.0)]
    assert (run.experiment.bars.gaps, run.experiment.bars.missing) == (1, 4)


def test_with_too_few_bars_to_look_back_on_nothing_is_ordered_and_nothing_is_invented() -> None:
    run = experiment(bars=trends(50)).run({"slow": 100})
    assert (run.orders, run.trades) == (0, [])
    assert run.equity_final == Decimal(10_000)
    assert math.isnan(run.metrics.sharpe) and math.isnan(run.metrics.win_rate)


def test_a_market_that_opens_below_the_stop_of_its_close_is_stopped_from_the_price_that_was_paid() -> None:
    # Decided at 100 with a stop 5 away, bought at 90: the stop lies at 85 and not at 95, above the entry.
    run = followed([100, 88, 86, 85, 85], [1, 1, 1, 1, 1], opens=[100, 90, 88, 86, 85], stop=5.0)
    assert fills_of(run) == [(1, 90.0), (4, 85.0)]


@pytest.mark.parametrize("exit", ["stop", "take_profit", "trail"])
def test_an_exit_on_the_wrong_side_of_the_entry_is_refused_with_its_bar(exit: str) -> None:
    columns = walk(10)
    exposures = np.where(np.arange(10) < 4, 0.0, 1.0)
    targets = Targets.of(exposures, **{exit: np.where(np.arange(10) < 4, math.nan, -2.0)})
    bars = Bars("BTC-USDT", "1m", columns, BTC)
    with pytest.raises(
        Failure, match=r"distances from the entry, .*never below 0 \(NaN: none\), at bar 4 \(1970-01-01 00:04"
    ):
        Experiment.of(DECIDED, bars, targets=targets).run()


def test_the_risk_of_a_trade_without_a_stop_is_known_from_the_second_bar_on() -> None:
    # One bar has been seen, from 100 to 104: a range of 4 is at stake, and 8 were earned: 2 R.
    run = followed([104, 104, 112, 112], [1, 1, 0, 0], opens=[100, 104, 104, 112])
    (trade,) = run.trades
    assert (trade.risk, trade.pnl, trade.result_r) == (Decimal(4), Decimal(8), 2.0)


def test_the_wildest_slippage_leaves_a_price_of_at_least_a_tick_and_money_that_adds_up() -> None:
    wild = Costs(fee_bps=10, slippage_bps=9_000, slippage_model=SlippageModel(stress=100.0, noise=10.0, seed=4))
    run = followed([1.0] * 40, [float(i % 2) for i in range(40)], costs=wild)
    prices = [price for _, price in fills_of(run)]
    assert min(prices) >= 0.01
    assert max(prices) <= 2.0 + 0.01  # slippage is the whole price at most
    spent = sum(trade.pnl for trade in run.trades)
    assert run.equity_final == Decimal(10_000) + spent  # every trade has ended


def test_a_run_that_is_refused_names_the_bar_whatever_decides() -> None:
    exposures = np.where(np.arange(300) == 217, 3.0, 0.5)
    bars = Bars("BTC-USDT", "1m", walk(300), BTC)
    for given in ({}, {"fill": "same_close"}):
        with pytest.raises(
            Failure, match=r"Targets: a target's exposure .* in -1\.\.1, at bar 217 \(1970-01-01 03:37, open="
        ):
            Experiment.of(DECIDED, bars, targets=Targets.of(exposures), **given).run()


def test_a_position_too_large_to_count_names_the_bar_that_wanted_it() -> None:
    close = np.where(np.arange(60) < 40, 1.0, 1e13)
    columns = Columns.of(np.arange(60) * HOUR_MS, close, close, close, close, np.ones(60))
    targets = Targets.of(np.where(np.arange(60) < 25, 0.0, 1.0))
    with pytest.raises(Failure, match=r"use less cash or a coarser lot, at bar 25 \("):
        Experiment.of(DECIDED, Bars("BTC-USDT", "1h", columns, BTC), targets=targets, cash=Decimal(1_000_000)).run()


class Params(NamedTuple):
    at: int = 40  # bar


class State(NamedTuple):
    seen: int


@kernel
def start(p: Params) -> State:
    return State(0)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Wants its stop above the entry on one bar."""
    return State(s.seen + 1), long(1.0 if s.seen >= p.at else 0.0, stop=-2.0)


BACKWARDS = strategy("backwards", Params, start, step, bounds={"at": (0, 1000)}, warmup=lambda p: 0)


def test_backtest_and_engine_refuse_such_an_exit_at_the_same_bar() -> None:
    with pytest.raises(Failure, match=r"backwards Params\(at=40\): stop, take-profit and trail .*, at bar 40 "):
        scan(BACKWARDS, walk(60), {}, TERMS)
    trader = Trader(BACKWARDS, BTC, "1m", Decimal(1_000), FREE)
    trader.admit("only", {})
    trader.choose("only")
    bars = [Bar(*row) for row in zip(*(column.tolist() for column in walk(60).all()), strict=True)]
    for bar in bars[:40]:
        trader.on_bar(bar)
    with pytest.raises(SleeveRefused, match="distances from the entry"):
        trader.on_bar(bars[40])


def test_a_function_over_columns_that_raises_is_told_with_what_it_was_given() -> None:
    def by_length(bars: Columns, length: int) -> np.ndarray:
        return np.full(len(bars), 1.0) / (1 // (length - 7))

    with pytest.raises(
        Failure,
        match=r"by_length raised ZeroDivisionError, given 300 bars from 1970-01-01 00:00 to 1970-01-01 04:59, 7: ",
    ):
        vector_targets(by_length, walk(300), 7)


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_market_that_never_moves_is_no_error_and_has_no_ratio(name: str) -> None:
    close = np.full(400, 100.0)
    still = Columns.of(np.arange(400) * 60_000, close, close, close, close, np.ones(400))
    told = scan(BUILT_IN[name], still, {}, TERMS).figures
    assert told.trades == 0
    assert math.isnan(told.sharpe)
