"""One account, many instruments: the order of events, worked by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.trading.columns import MarketColumns
from shared.trading.compiled import Failure
from shared.trading.compiled.portfolios import PortfolioTerms, scan_portfolio
from shared.trading.kernel import kernel
from shared.trading.portfolio import Market
from shared.trading.strategy import portfolio_strategy
from shared.trading.values import Regime
from tests.pure.trading.portfolio.markets import (
    FREE,
    NoParams,
    NoState,
    Told,
    equity,
    instrument,
    market_of,
    run_told,
    start_told,
    step_told,
    told_strategy,
    trades,
)

# A quantity is sized for a price one tick (0.01) above the close, so that rounding a fill never makes it dearer:
# closes of 9.99 and 19.99 are sized at 10 and 20.
TEN, TWENTY = 9.99, 19.99


def test_weights_become_quantities_at_the_close_and_are_filled_at_the_next_open() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), Told(10, 11), Told(11, 12)],
        [Told(20, TWENTY, 0.25), Told(19, 18), Told(18, 18)],
    )
    run = run_told(market)
    # 500 / 10 = 50 of A, 250 / 20 = 12.5 of B; then 1000 + 50 x (11 - 10) + 12.5 x (18 - 19), and 50 x 1 more
    assert trades(run) == [(1, "A-USDT", "50", "10"), (1, "B-USDT", "12.5", "19")]
    assert equity(run) == [1000.0, 1037.5, 1087.5]


def test_fees_and_slippage_are_charged_to_every_leg() -> None:
    market = market_of([Told(10, TEN, 0.5), Told(10, 10), Told(10, 10, 0.0), Told(10, 10)])
    run = run_told(market, costs=Costs(fee_bps=100, slippage_bps=100))
    # 500 / (9.99 x 1.01 + 0.01 = 10.0999) / 1.01 = 49.015, in lots of 0.01: 49.01
    # bought at 10.10: 495.001 and a fee of 4.95001; sold at 9.90: 485.199 less 4.85199
    assert trades(run) == [(1, "A-USDT", "49.01", "10.1"), (3, "A-USDT", "-49.01", "9.9")]
    assert run.figures.fees == pytest.approx(4.95001 + 4.85199, abs=1e-12)
    assert equity(run)[-1] == pytest.approx(1000 - 495.001 - 4.95001 + 485.199 - 4.85199, abs=1e-9)
    assert (run.figures.trades, run.figures.win_rate) == (1, 0.0)


def test_what_is_sold_pays_for_what_is_bought_at_the_same_open() -> None:
    market = market_of(
        [Told(20, TWENTY), Told(20, TWENTY), Told(20, TWENTY, 1.0), Told(20, 20)],
        [Told(10, TEN, 1.0), Told(10, TEN), Told(10, TEN, 0.0), Told(10, 10)],
    )
    run = run_told(market)
    # B stands behind A and is still sold first: 100 x 10 = 1000; equity at the close of bar 2 is 999, so 999 / 20 = 49.95
    assert trades(run) == [(1, "B-USDT", "100", "10"), (3, "B-USDT", "-100", "10"), (3, "A-USDT", "49.95", "20")]


def test_purchases_that_open_dearer_all_shrink_by_the_same_share() -> None:
    market = market_of([Told(10, TEN, 0.5), Told(11, 11)], [Told(20, TWENTY, 0.5), Told(22, 22)])
    run = run_told(market)
    # 50 x 11 + 25 x 22 = 1100 for 1000: 10/11 of each, 45.45 and 22.72
    assert trades(run) == [(1, "A-USDT", "45.45", "11"), (1, "B-USDT", "22.72", "22")]
    assert float(run.scales[0].amount(run.account.cash)) == pytest.approx(1000 - 45.45 * 11 - 22.72 * 22)


def test_a_listing_in_mid_span_is_not_traded_before_it_is_there() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), Told(10, 10), Told(10, 10), Told(10, 10)],
        [None, None, Told(20, TWENTY, 0.5), Told(20, 20)],
    )
    assert np.isnan(market.close[:2, 1]).all()
    # at the close of bar 2 A holds 50 x 10 of 1000; it is sized at 10.01 now, 49.95, and 0.05 of it are sold
    assert trades(run_told(market)) == [
        (1, "A-USDT", "50", "10"),
        (3, "A-USDT", "-0.05", "10"),
        (3, "B-USDT", "25", "20"),
    ]


def test_what_has_no_bar_any_more_is_marked_at_its_last_close_and_makes_no_order() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), Told(10, 12), None, None],
        [Told(20, 20), Told(20, 20), Told(20, 20, 0.0), Told(20, 20)],
    )
    run = run_told(market)
    assert trades(run) == [(1, "A-USDT", "50", "10")]
    assert equity(run) == [1000.0, 1100.0, 1100.0, 1100.0]
    assert run.legs.lots == [5000, 0]


def test_an_order_whose_bar_is_absent_waits_for_the_next_one() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), None, None, Told(8, 8)],
        [Told(20, TWENTY, 0.5), Told(20, 20), Told(20, 20), Told(20, 20)],
    )
    assert trades(run_told(market)) == [(1, "B-USDT", "25", "20"), (3, "A-USDT", "50", "8")]


def test_a_decision_replaces_the_orders_that_wait() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), None, Told(10, 10)],
        [Told(20, TWENTY, 0.0), Told(20, 20, 0.0), Told(20, 20)],
    )
    assert trades(run_told(market)) == []  # at bar 1 something was decided, and A had no bar: nothing is ordered of it


def test_a_leg_within_the_rebalance_band_is_left_alone_unless_it_shall_end() -> None:
    def market(after: float) -> MarketColumns:
        return market_of([Told(10, TEN, 0.5), Told(10, 10), Told(10, 11, after), Told(11, 11)])

    # 50 x 11 = 550 of 1050 are 0.5238 of the equity
    assert len(trades(run_told(market(0.5), rebalance_band=0.02))) == 2
    assert len(trades(run_told(market(0.5), rebalance_band=0.03))) == 1
    assert trades(run_told(market(0.0), rebalance_band=0.9))[-1] == (3, "A-USDT", "-50", "11")


def test_an_order_below_the_least_notional_is_not_sent() -> None:
    market = market_of([Told(10, TEN, 0.5), Told(10, 10)], [Told(20, TWENTY, 0.04), Told(20, 20)])
    assert trades(run_told(market, least="50")) == [(1, "A-USDT", "50", "10")]


def test_on_spot_nothing_is_owed_and_it_is_counted() -> None:
    market = market_of([Told(10, TEN, -0.5), Told(10, 10)], [Told(20, TWENTY, 0.5), Told(20, 20)])
    run = run_told(market)
    assert trades(run) == [(1, "B-USDT", "25", "20")]
    assert run.stats.shorts_refused == 1


def test_a_short_owes_what_it_sold() -> None:
    market = market_of([Told(10, TEN, -0.5), Told(10, 12), Told(12, 8, 0.0), Told(8, 8)])
    run = run_told(market, kind="perpetual")
    assert trades(run) == [(1, "A-USDT", "-50", "10"), (3, "A-USDT", "50", "8")]
    assert equity(run) == [1000.0, 900.0, 1100.0, 1100.0]
    assert (run.stats.trades, run.stats.wins, run.stats.profit) == (1, 1, 100 * 10**8)


def test_from_long_to_short_is_one_order_and_two_trades() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), Told(10, 10), Told(10, TEN, -0.5), Told(10, 10), Told(9, 9, 0.0), Told(9, 9)]
    )
    run = run_told(market, kind="perpetual", costs=Costs(fee_bps=0, slippage_bps=0, min_fee=Decimal(1)))
    # 50 less a least fee of 1: (500 - 1) / 10 = 49.9; equity 998.501 at the second close: (499.2505 - 1) / 10 = 49.82
    assert trades(run) == [(1, "A-USDT", "49.9", "10"), (3, "A-USDT", "-99.72", "10"), (5, "A-USDT", "49.82", "9")]
    # the long: bought and sold at 10 for a fee of 1 and its part of the second, 49.9 / 99.72; the short won 49.82
    fee = int(10**8 * (4990 / 9972) + 0.5)
    assert run.stats.loss == 10**8 + fee
    assert run.stats.profit == 4982 * 10**6 - (10**8 - fee) - 10**8
    assert (run.stats.trades, run.stats.wins) == (2, 1)


def test_the_legs_of_one_intent_wait_for_each_other() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), None, Told(10, 10)],
        [Told(20, TWENTY, -0.5), Told(20, 20), Told(21, 20)],
    )
    run = run_told(market, kind="perpetual", is_one_intent=True)
    assert trades(run) == [(2, "A-USDT", "50", "10"), (2, "B-USDT", "-25", "21")]


@pytest.mark.parametrize(
    ("second_leg", "options"),
    [
        ([Told(20, TWENTY, -0.1), None, Told(20, 20)], {"kind": "perpetual"}),  # it has no bar when it would be ordered
        ([Told(20, TWENTY), Told(20, TWENTY, -0.1), Told(20, 20)], {"kind": "spot"}),  # it cannot be owed
        ([Told(20, TWENTY), Told(20, TWENTY, -0.1), Told(20, 20)], {"kind": "perpetual", "least": "101"}),
    ],
)
def test_of_one_intent_no_leg_is_ordered_when_one_cannot_be(
    second_leg: list[Told | None], options: dict[str, Any]
) -> None:
    market = market_of([Told(10, TEN), Told(10, TEN, 0.5), Told(10, 10)], second_leg)
    assert trades(run_told(market, is_one_intent=False, trade_from=1, **options)) == [(2, "A-USDT", "50", "10")]
    assert trades(run_told(market, is_one_intent=True, trade_from=1, **options)) == []


def test_what_was_decided_before_the_span_is_acted_on_where_it_begins() -> None:
    market = market_of([Told(10, TEN, 0.5), Told(10, 10), Told(10, TEN), Told(10, 10)])
    run = run_told(market, trade_from=2)
    assert trades(run) == [(3, "A-USDT", "50", "10")]
    assert run.figures.bars == 2


def test_instruments_of_different_steps_are_counted_in_one_unit() -> None:
    market = market_of([Told(10, TEN, 0.5), Told(10, 10)], [Told(0.00002, 0.00002, 0.5), Told(0.00002, 0.00003)])
    instruments = (instrument("A-USDT", lot="1"), instrument("B-USDT", tick="0.00000001", lot="1"))
    terms = PortfolioTerms(instruments, "1m", FREE, Decimal(1000))
    run = scan_portfolio(told_strategy(), market, {}, terms, with_curve=True, with_fills=True)
    # 500 / 10 = 50 of A; 500 / 0.00002001 = 24,987,506 of B (one tick above 0.00002), which rise by half
    assert trades(run) == [(1, "A-USDT", "50", "10"), (1, "B-USDT", "24987506", "0.00002")]
    assert equity(run)[-1] == pytest.approx(1000 + 24_987_506 * 0.00001, abs=1e-9)


@pytest.mark.parametrize("weights", [(0.7, 0.4), (0.7, -0.4), (float("inf"), 0.0)])
def test_weights_above_the_equity_stop_the_run(weights: tuple[float, float]) -> None:
    first, second = weights

    @kernel
    def greedy(s: NoState, market: Market, regime: Regime, p: NoParams, weights: list[float]) -> tuple[NoState, bool]:
        """Wants more than there is."""
        weights[0] = first
        weights[1] = second
        return s, True

    made = portfolio_strategy("greedy", NoParams, start_told, greedy, bounds={}, warmup=lambda p: 0)
    market = market_of([Told(10, 10)] * 3, [Told(20, 20)] * 3)
    terms = PortfolioTerms(tuple(map(instrument, market.symbols)), "1m", FREE, Decimal(1000))
    with pytest.raises(Failure, match=r"greedy .*weights must be numbers whose sizes add up to 1"):
        scan_portfolio(made, market, {}, terms)


def test_positions_that_would_not_fit_the_ledger_are_refused_and_never_wrapped() -> None:
    market = market_of([Told(10, TEN, 1.0), Told(10, 10), Told(10, 10**9)])
    with pytest.raises(Failure, match="would not fit the ledger's integers: use less cash"):
        run_told(market, cash="1000000000")


def test_a_strategy_that_raises_is_told_with_its_bar_and_its_own_traceback() -> None:
    @kernel
    def fragile(s: NoState, market: Market, regime: Regime, p: NoParams, weights: list[float]) -> tuple[NoState, bool]:
        """Divides by what may be nothing."""
        weights[0] = 1.0 / (market.close[0] - 12.0)
        return s, False

    made = portfolio_strategy("fragile", NoParams, start_told, fragile, bounds={}, warmup=lambda p: 0)
    market = market_of([Told(10, 10), Told(10, 11), Told(11, 12), Told(12, 13)])
    terms = PortfolioTerms((instrument("A-USDT"),), "1m", FREE, Decimal(1000))
    with pytest.raises(Failure, match=r"fragile .* raised ZeroDivisionError at bar 2 \(1970-01-01 00:02\)") as told:
        scan_portfolio(made, market, {}, terms)
    assert isinstance(told.value.__cause__, ZeroDivisionError)


def test_a_strategy_that_needs_a_regime_holds_nothing_without_one() -> None:
    strategy = portfolio_strategy(
        "moody", NoParams, start_told, step_told, bounds={}, warmup=lambda p: 0, needs_regime=True
    )
    market = market_of([Told(10, TEN, 0.5), Told(10, TEN, 0.5), Told(10, 10), Told(10, 10), Told(10, 10)])
    terms = PortfolioTerms((instrument("A-USDT"),), "1m", FREE, Decimal(1000))
    bull = np.array([np.nan, 0.5, 0.5, np.nan, np.nan])
    regimes = (bull, bull / 2, bull / 2)
    assert scan_portfolio(strategy, market, {}, terms).stats.fills == 0
    run = scan_portfolio(strategy, market, {}, terms, regimes=regimes, with_fills=True)
    assert trades(run) == [(2, "A-USDT", "50", "10"), (4, "A-USDT", "-50", "10")]


def test_terms_that_do_not_fit_are_refused_in_words() -> None:
    market = market_of([Told(10, 10)], [Told(20, 20)])
    a, b = instrument("A-USDT"), instrument("B-USDT")

    def terms(*instruments: Any, costs: Costs = FREE, band: float = 0.0) -> PortfolioTerms:
        return PortfolioTerms(instruments, "1m", costs, Decimal(1000), band)

    with pytest.raises(NeedsOperator, match="one settlement currency, there were USD, USDT"):
        terms(a, instrument("B-USD"))
    with pytest.raises(NeedsOperator, match="cannot charge max_volume_share yet"):
        terms(a, b, costs=Costs(fee_bps=0, slippage_bps=0, max_volume_share=0.1))
    with pytest.raises(NeedsOperator, match=r"rebalance band must be 0 <= band < 1 .* was 1\.5"):
        terms(a, b, band=1.5)
    with pytest.raises(NeedsOperator, match="must be for A-USDT, B-USDT in this order, were for B-USDT, A-USDT"):
        scan_portfolio(told_strategy(), market, {}, terms(b, a))
    with pytest.raises(NeedsOperator, match="told takes 3 to 9 instruments, there were 2"):
        scan_portfolio(told_strategy(instruments=(3, 9)), market, {}, terms(a, b))


def test_bars_side_by_side_stand_at_their_times_and_are_named_by_their_content() -> None:
    market = market_of([Told(1, 2), None, Told(3, 4)], [None, Told(5, 6), Told(7, 8)])
    assert market.opened_at_ms.tolist() == [0, 60_000, 120_000]
    assert np.array_equal(market.close, [[2, np.nan], [np.nan, 6], [4, 8]], equal_nan=True)
    assert market.tops.tolist() == [4, 8]
    assert market.between(60_000, 120_000).open[:, 1].tolist() == [5, 7]
    assert market.sha256() != market_of([Told(1, 2), None, Told(3, 4)], [None, Told(5, 6), Told(7, 9)]).sha256()
