"""What `/trades/stats` answers, against figures worked by hand."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ops_api.earnings import Earnings, wilson_interval
from shared.contracts.execution import TradeClosed

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)


def trade(n: int, pnl: str, fees: str = "0.4", risk: str = "10") -> TradeClosed:
    """The n-th trade, an hour long."""
    return TradeClosed(
        trade_id=f"t{n}",
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1h",
        side="long",
        opened_at=BEGIN + n * HOUR,
        closed_at=BEGIN + (n + 1) * HOUR,
        bars_held=1,
        quantity=Decimal(1),
        entry_price=Decimal(100),
        exit_price=Decimal(101),
        fees=Decimal(fees),
        pnl=Decimal(pnl),
        risk=Decimal(risk),
        result_r=float(Decimal(pnl) / Decimal(risk)),
        exit_reason="signal",
        preset_id="p",
        model_id="",
        decision_id="",
        regime="BULL",
    )


def test_the_figures_of_three_trades_and_five_closes_are_those_worked_by_hand() -> None:
    earnings = Earnings("1h")
    for n, equity in enumerate(("1000", "1010", "1010", "1030.2", "1009.596")):
        earnings.book_snapshot(BEGIN + n * HOUR, Decimal(equity))
    earnings.book_trade(trade(0, "12", fees="0.5"))
    earnings.book_trade(trade(1, "-5", fees="0.4"))
    earnings.book_trade(trade(2, "3", fees="0.3", risk="6"))

    stats = earnings.stats()

    assert (stats.total_trades, stats.n, stats.bars) == (3, 3, 4)
    assert stats.win_rate == pytest.approx(2 / 3)
    assert stats.fees == pytest.approx(1.2)
    assert stats.net_profit == pytest.approx(10.0)  # 12 - 5 + 3, each net of its fees
    assert stats.profit_factor == pytest.approx(15 / 5)
    assert stats.expectancy_r == pytest.approx((1.2 - 0.5 + 0.5) / 3)
    assert (stats.average_win, stats.average_loss) == (7.5, 5.0)
    assert (stats.best_trade, stats.worst_trade) == (12.0, -5.0)
    # Returns 0.01, 0, 0.02, -0.02: mean 0.0025, squared deviations 0.000875 over 3, 365.2425 x 24 hours a year.
    assert stats.sharpe == pytest.approx(0.0025 / math.sqrt(0.000875 / 3) * math.sqrt(365.2425 * 24))
    assert stats.max_drawdown == pytest.approx((1030.2 - 1009.596) / 1030.2)
    assert (stats.equity_start, stats.equity_end) == (1000.0, 1009.596)
    assert stats.net_return == pytest.approx(0.009596)
    assert (stats.since, stats.until) == (BEGIN, BEGIN + 4 * HOUR)


def test_before_anything_happened_nothing_is_claimed() -> None:
    stats = Earnings("1m").stats()

    assert stats.total_trades == 0
    unknown = (
        stats.win_rate,
        stats.sharpe,
        stats.max_drawdown,
        stats.profit_factor,
        stats.equity_end,
        stats.net_return,
    )
    assert all(map(math.isnan, unknown))
    assert math.isnan(stats.win_rate_interval.low)


def test_a_trade_that_only_paid_its_fees_is_no_winner() -> None:
    earnings = Earnings("1m")
    earnings.book_trade(trade(0, "0"))

    assert earnings.stats().win_rate == 0.0


def test_hours_without_a_snapshot_count_as_hours_without_change() -> None:
    told, quiet = Earnings("1h"), Earnings("1h")
    for n, equity in enumerate((1000, 1010, 1010, 1010, 1005)):
        told.book_snapshot(BEGIN + n * HOUR, Decimal(equity))
        if n != 2:
            quiet.book_snapshot(BEGIN + n * HOUR, Decimal(equity))

    assert quiet.stats() == told.stats()


def test_the_interval_of_two_wins_in_three_is_wilsons() -> None:
    # Wilson 1927, 95 %: (0.667 + 0.640 -+ 1.960 sqrt(0.0741 + 0.1067)) / 2.2805
    interval = wilson_interval(2, 3)

    assert interval.low == pytest.approx(0.2077, abs=5e-5)
    assert interval.high == pytest.approx(0.9385, abs=5e-5)


@given(n=st.integers(1, 10_000), share=st.floats(0, 1))
def test_the_win_rate_lies_in_its_interval_which_narrows_with_more_trades(n: int, share: float) -> None:
    wins = round(n * share)
    few, many = wilson_interval(wins, n), wilson_interval(10 * wins, 10 * n)

    assert 0.0 <= few.low <= wins / n + 1e-12
    assert wins / n - 1e-12 <= few.high <= 1.0
    assert many.high - many.low < few.high - few.low
