"""What it costs to hold a portfolio: funding and borrowing, worked by hand, and charged as on one instrument."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.trading.columns import Columns
from shared.trading.compiled import Targets, Terms, execute
from shared.trading.compiled.portfolios import PortfolioTerms
from tests.pure.trading.portfolio.markets import FREE, Told, charges, equity, instrument, market_of, run_told, trades

TEN, TWENTY = 9.99, 19.99  # sized at 10 and 20, one tick above
MINUTE = 60_000


def test_a_long_pays_and_a_short_receives_what_each_holds_at_its_funding_time() -> None:
    market = market_of(
        [Told(10, TEN, 0.5), Told(10, 10), Told(12, 12), Told(12, 12)],
        [Told(20, TWENTY, -0.5), Told(20, 20), Told(20, 20), Told(22, 22)],
    )
    # From bar 1 on long 50 of A, short 25 of B. A at the open of bar 2: 50 x 12 x 1 %. B within bar 3: -25 x 22 x 2 %.
    funding = {"A-USDT": ([2 * MINUTE], [0.01]), "B-USDT": ([3 * MINUTE + 7], [0.02])}
    run = run_told(market, kind="perpetual", funding=funding)
    assert trades(run) == [(1, "A-USDT", "50", "10"), (1, "B-USDT", "-25", "20")]
    assert charges(run) == [(2, "A-USDT", "6", "funding"), (3, "B-USDT", "-11", "funding")]
    assert equity(run) == [1000.0, 1000.0, 1000 + 100 - 6, 1000 + 100 - 6 - 50 + 11]
    assert run.stats.charges == -5 * 10**8


def test_funding_at_the_open_is_of_what_was_held_before_it_and_later_of_what_is_held_after() -> None:
    market = market_of([Told(10, TEN, 0.5), Told(10, 10), Told(10, 10, 0.0), Told(10, 10)])
    at_the_open = run_told(market, kind="perpetual", funding={"A-USDT": ([MINUTE, 3 * MINUTE], [0.01, 0.01])})
    assert charges(at_the_open) == [(3, "A-USDT", "5", "funding")]  # bought at bar 1, sold at bar 3
    just_after = run_told(market, kind="perpetual", funding={"A-USDT": ([MINUTE + 1, 3 * MINUTE + 1], [0.01, 0.01])})
    assert charges(just_after) == [(1, "A-USDT", "5", "funding")]


def test_funding_of_what_has_no_bar_is_at_its_last_close() -> None:
    market = market_of([Told(10, TEN, 0.5), Told(10, 8), None, Told(8, 8)], [Told(5, 5)] * 4)
    run = run_told(market, kind="perpetual", funding={"A-USDT": ([2 * MINUTE], [0.01])})
    assert charges(run) == [(2, "A-USDT", "4", "funding")]  # 50 x 8 x 1 %


def test_what_is_owed_in_shares_is_paid_for_by_the_time_it_is_owed() -> None:
    market = market_of([Told(10, TEN, -0.5), Told(10, 8), None, Told(8, 8)], [Told(5, 5)] * 4)
    year = Costs(fee_bps=0, slippage_bps=0, borrow_bps_year=10_000.0)  # as much as is owed, each year
    run = run_told(market, kind="share", costs=year)
    # Short 50 from bar 1 on. Each minute from then to bar 3, at the close of 8: 50 x 8 / (365 x 1440) = 0.000761035
    assert charges(run) == [(2, "A-USDT", "0.00076104", "borrowing"), (3, "A-USDT", "0.00076104", "borrowing")]


def test_shares_that_nobody_lends_are_not_sold_short() -> None:
    market = market_of([Told(10, TEN, -0.5), Told(10, 10)])
    run = run_told(market, kind="share")
    assert trades(run) == []
    assert run.stats.shorts_refused == 1


@pytest.mark.parametrize(("kind", "borrow"), [("perpetual", None), ("share", 2_000.0)])
def test_a_portfolio_of_one_pays_what_the_instrument_alone_pays(kind: Any, borrow: float | None) -> None:
    """The same functions: short all the time, the charges of both loops are the same integers."""
    rng = np.random.default_rng(3)
    close = (100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 200)))).round(2)
    open = np.concatenate([[100.0], close[:-1]])
    times = MINUTE * np.arange(200)
    bars = Columns.of(times, open, np.maximum(open, close), np.minimum(open, close), close, np.ones(200))
    at, rates = MINUTE * np.arange(3, 200, 20) + 11, rng.uniform(-0.001, 0.001, 10)
    costs = Costs(fee_bps=5, slippage_bps=0, borrow_bps_year=borrow)
    funding = (at, rates) if kind == "perpetual" else None
    one = instrument("A-USDT", kind=kind)
    terms = Terms(one, "1m", costs, Decimal(1000), funding=funding)
    alone = execute(Targets.of(np.full(200, -0.5)), bars, terms, with_fills=True)
    told = market_of([Told(o, c, -0.5 if i == 0 else None) for i, (o, c) in enumerate(zip(open, close, strict=True))])
    many = run_told(
        told, kind=kind, costs=costs, funding=None if funding is None else {"A-USDT": (at.tolist(), rates.tolist())}
    )
    assert alone.charges is not None and many.charges is not None and len(many.charges) > 9
    assert many.charges[:, [0, 2, 3]].tolist() == alone.charges[:, :3].tolist()
    assert many.stats.equity == alone.stats.equity


@pytest.mark.parametrize(
    ("funding", "said"),
    [
        ({"C-USDT": ([1], [0.1])}, "Funding is of C-USDT, the portfolio trades A-USDT, B-USDT"),
        ({"B-USDT": ([1], [0.1])}, "Only perpetuals have funding: B-USDT is spot"),
        ({"A-USDT": ([2, 1], [0.1, 0.1])}, "rising times"),
    ],
)
def test_funding_that_cannot_be_is_refused_in_words(funding: dict[str, Any], said: str) -> None:
    arrays = {symbol: (np.array(at), np.array(rates)) for symbol, (at, rates) in funding.items()}
    instruments = (instrument("A-USDT", kind="perpetual"), instrument("B-USDT"))
    with pytest.raises(NeedsOperator, match=said):
        _ = PortfolioTerms(instruments, "1m", FREE, Decimal(1000), funding=arrays).carry
