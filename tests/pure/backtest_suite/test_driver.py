"""One run: what it tells is what the ledger holds, and its fingerprint names all that it depends on."""

from __future__ import annotations

import pickle
from dataclasses import replace
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backtest_suite.cards import run_card
from services.backtest_suite.driver import Experiment
from services.backtest_suite.manifests import Manifest
from services.backtest_suite.trades import trades_of
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.trading.columns import Columns
from shared.trading.compiled import Terms, scan
from shared.trading.fills import share_of
from shared.trading.scales import Scale
from shared.trading.strategies import BUILT_IN
from tests.pure.backtest_suite.markets import BTC, FREE, bars_at, experiment, trends
from tests.pure.trading.test_same_bits import QUICK, RESTLESS, any_bars, any_detailed_terms, any_terms

SCALE = Scale.of(BTC)
SIGNAL, STOP, FUNDING = 0, 1, 6
NO_CHARGES = np.zeros((0, 4), np.int64)


def test_a_run_tells_what_the_loop_counted() -> None:
    made = experiment(cash=Decimal(5_000))
    result = made.run({"fast": 5, "slow": 20})
    scanned = scan(made.strategy, made.bars.columns, {"fast": 5, "slow": 20}, made.terms, with_curve=True)

    assert result.figures == scanned.figures
    assert (result.orders, len(result.trades)) == (scanned.stats.fills, scanned.figures.trades)
    assert result.equity_final == SCALE.amount(scanned.stats.equity)
    assert len(result.equity) == len(made.bars)
    assert result.equity[-1] == pytest.approx(float(result.equity_final), rel=1e-12)
    assert sum(trade.fees for trade in result.trades) <= result.fees  # the open position has paid its own


def test_a_round_trip_is_told_with_its_price_its_fees_and_why_it_ended() -> None:
    # Bought 2 BTC at 100.00 (fee 0.20), sold 1 at 110.00 (0.11) and 1 at 90.00 (0.09), stopped:
    # (110 + 90 - 2 x 100) - 0.20 - 0.11 - 0.09 = -0.40. The stop was 5.00 away: 10.00 at stake, so -0.04 R.
    lot, stake = 100_000, SCALE.units(Decimal(10))  # lots in 1 BTC
    fills = np.array(
        [
            (3, 2 * lot, 10_000, SCALE.units(Decimal("0.20")), SIGNAL, stake),
            (5, -lot, 11_000, SCALE.units(Decimal("0.11")), SIGNAL, stake),
            (9, -lot, 9_000, SCALE.units(Decimal("0.09")), STOP, 0),
        ]
    )
    times = np.arange(10) * 60_000
    (trade,) = trades_of(fills, NO_CHARGES, times, SCALE)
    assert (trade.side, trade.quantity, trade.entry_price, trade.exit_price) == ("long", 2, 100.0, 100.0)
    assert (trade.fees, trade.pnl) == (Decimal("0.40"), Decimal("-0.40"))
    assert (trade.risk, trade.result_r) == (Decimal(10), pytest.approx(-0.04))
    assert (trade.entry_at.minute, trade.exit_at.minute, trade.bars_held, trade.reason) == (3, 9, 6, "stop")


def test_a_fill_that_turns_a_position_ends_one_trade_and_begins_the_next() -> None:
    # Long 1 at 100, sold 3 at 120 (fee 0.30: 0.10 to close, 0.20 to open 2 short), bought 2 back at 110:
    # +20 - 0.10, then 2 x 10 - 0.20. At stake were 4 and then 2 x 4: 4.975 R and 2.475 R.
    lot = 100_000
    fills = np.array(
        [
            (0, lot, 10_000, 0, SIGNAL, SCALE.units(Decimal(4))),
            (1, -3 * lot, 12_000, SCALE.units(Decimal("0.30")), SIGNAL, SCALE.units(Decimal(8))),
            (2, 2 * lot, 11_000, 0, SIGNAL, 0),
        ]
    )
    one, two = trades_of(fills, NO_CHARGES, np.arange(3) * 60_000, SCALE)
    assert (one.side, one.pnl, one.fees) == ("long", Decimal("19.9"), Decimal("0.1"))
    assert (two.side, two.pnl, two.fees, two.quantity) == ("short", Decimal("19.8"), Decimal("0.2"), 2)
    assert (one.result_r, two.result_r) == (pytest.approx(4.975), pytest.approx(2.475))


def test_funding_is_borne_by_the_trade_that_was_open() -> None:
    # Short 1 from bar 1 to bar 4 at 100 and 90: +10. Funding: 0.50 paid on bar 2, 0.20 received on bar 4, before the open.
    # Turned on bar 4 to long 1, which is left on bar 9 at 90: what is charged on bar 4 after the open is the long's.
    lot = 100_000
    fills = np.array([(1, -lot, 10_000, 0, SIGNAL, 1), (4, 2 * lot, 9_000, 0, SIGNAL, 1), (9, -lot, 9_000, 0, STOP, 0)])
    charges = np.array(
        [
            (bar, SCALE.units(Decimal(paid)), FUNDING, before)
            for bar, paid, before in ((2, "0.50", 1), (4, "-0.20", 1), (4, "0.30", 2))
        ]
    )
    short, long = trades_of(fills, charges, np.arange(10) * 60_000, SCALE)
    assert (short.charges, short.pnl) == (Decimal("0.3"), Decimal("9.7"))
    assert (long.charges, long.pnl) == (Decimal("0.3"), Decimal("-0.3"))


Fill = tuple[int, int, int, int]


@given(
    fills=st.lists(
        st.tuples(
            st.integers(-500, 500).filter(bool),
            st.integers(1, 10**6),
            st.integers(0, 10**6),
            st.integers(-(10**6), 10**6),
        ),
        max_size=30,
    )
)
def test_trades_earn_what_the_cash_says(fills: list[Fill]) -> None:
    """Law 1: from flat to flat, the net results of the trades are the change of cash, to the last unit."""
    cash = lots = at_flat = 0
    charges: list[tuple[int, int, int, int]] = []
    for bar, (bought, ticks, fee, charge) in enumerate(fills):
        if lots != 0:  # before the open
            charges.append((bar, charge, FUNDING, bar))  # a fill a bar
            cash -= charge
        if lots * (lots + bought) < 0:  # what closes pays its share
            at_flat = cash + lots * ticks * SCALE.unit - share_of(fee, abs(lots), abs(bought))
        cash -= bought * ticks * SCALE.unit + fee
        lots += bought
        if lots == 0:
            at_flat = cash
    rows = np.array([(i, *fill[:3], SIGNAL, 1) for i, fill in enumerate(fills)], np.int64).reshape(-1, 6)
    held = np.array(charges, np.int64).reshape(-1, 4)
    trades = trades_of(rows, held, np.arange(len(fills) + 1), SCALE)
    assert sum((trade.pnl for trade in trades), Decimal(0)) == SCALE.amount(at_flat)


@settings(max_examples=80, deadline=None)
@given(data=st.data(), bars=any_bars(), terms=any_terms() | any_detailed_terms())
def test_the_mean_result_of_the_trades_in_r_is_the_expectancy_that_the_loop_counted(
    data: st.DataObject, bars: Columns, terms: Terms
) -> None:
    params = {**data.draw(QUICK["restless"]), "rests": 0 if terms.is_plain else data.draw(st.integers(0, 2))}
    run = scan(RESTLESS, bars, params, terms, with_fills=True)
    assert run.fills is not None and run.charges is not None
    scale = Scale.of(terms.instrument)
    trades = trades_of(run.fills, run.charges, bars.opened_at_ms, scale)
    assert len(trades) == run.figures.trades
    assert sum(scale.units(trade.pnl) for trade in trades) == run.stats.profit - run.stats.loss
    if trades:
        told = [trade.result_r for trade in trades]
        # the risk is told in whole units of the ledger, as the engine tells it
        rounding = sum(abs(trade.result_r) / scale.units(trade.risk) for trade in trades)
        assert sum(told) == pytest.approx(run.figures.expectancy_r * len(told), rel=1e-9, abs=rounding + 1e-9)


def test_the_same_run_has_the_same_fingerprint_and_the_same_bits() -> None:
    one, two = (experiment().run({"fast": 10}) for _ in range(2))
    assert one.fingerprint == two.fingerprint
    assert one.result_sha256 == two.result_sha256


def test_ten_basis_points_are_ten_basis_points_however_they_are_written() -> None:
    params = BUILT_IN["trend_follow"].defaults._asdict()
    one = experiment(costs=Costs(fee_bps=10, slippage_bps=5))
    two = experiment(costs=Costs(fee_bps=float("10"), slippage_bps=5.0, spread_bps=float("0"), min_fee=Decimal(0)))
    travelled = replace(one, assumptions=pickle.loads(pickle.dumps(one.assumptions)))
    assert len({each.fingerprint(params) for each in (one, two, travelled)}) == 1


OTHERS: dict[str, Any] = {
    "cash": Decimal(9_999),
    "costs": Costs(fee_bps=10, slippage_bps=6),
    "size": Decimal("0.5"),
    "exposure": 0.5,
    "trade_from": 7,
    "seed": 1,
}


@pytest.mark.parametrize("name", OTHERS)
def test_whatever_a_run_depends_on_is_in_its_fingerprint(name: str) -> None:
    params = BUILT_IN["trend_follow"].defaults._asdict()
    assert experiment().fingerprint(params) != experiment(**{name: OTHERS[name]}).fingerprint(params)


def test_other_bars_other_code_and_other_steps_are_other_fingerprints() -> None:
    params, bars = BUILT_IN["trend_follow"].defaults._asdict(), trends()
    coarse = replace(bars, instrument=msgspec.structs.replace(BTC, lot=Decimal(1)))
    other_code = replace(BUILT_IN["trend_follow"], step=BUILT_IN["momentum"].step)
    made = {
        experiment().fingerprint(params),
        experiment(bars=trends(1199)).fingerprint(params),
        experiment(bars=coarse).fingerprint(params),
        Experiment.of(other_code, bars).fingerprint(params),
        experiment().fingerprint({**params, "fast": 21}),
    }
    assert len(made) == 5


def test_whole_lots_are_whole() -> None:
    shares = msgspec.structs.replace(BTC, lot=Decimal(1))
    result = experiment(bars=replace(trends(), instrument=shares)).run({"fast": 5, "slow": 20})
    assert result.trades
    assert all(trade.quantity == int(trade.quantity) for trade in result.trades)


def test_zero_cost_is_zero() -> None:
    result = experiment(costs=FREE).run({"fast": 5, "slow": 20})
    assert result.orders > 2
    assert result.fees == 0


def test_a_manifest_survives_its_file() -> None:
    manifest = experiment().run().manifest
    again = msgspec.json.decode(msgspec.json.encode(manifest), type=Manifest)
    assert again.assumptions == manifest.assumptions
    assert (again.params, again.data, again.fingerprint) == (manifest.params, manifest.data, manifest.fingerprint)


def test_no_bars_are_an_error_and_not_an_empty_result() -> None:
    with pytest.raises(NeedsOperator, match="needs at least one bar"):
        experiment(bars=bars_at([]))


def test_a_notebook_shows_a_run_by_itself() -> None:
    shown = run_card(experiment().run())
    for said in ("trend_follow", "universe", "fee 10 bps, slippage 5 bps", "seed", "<svg"):
        assert said in shown
    assert "http" not in shown
