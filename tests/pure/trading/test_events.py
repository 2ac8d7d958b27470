"""The order of events on one sleeve, worked by hand: fills at the open, exits at the close, and what is refused."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.compiled import Run, Targets, Terms, execute
from shared.trading.fills import SIGNAL, fill_ticks
from shared.trading.ledger import applied, equity_at, fee_on, opened_book
from shared.trading.performance import begun, figures, periods_per_year, with_equity, with_fill
from shared.trading.scales import Scale

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
PERP = Instrument(
    symbol="BTC-USDT-PERP", base="BTC", quote="USDT", kind="perpetual", tick=Decimal("0.01"), lot=Decimal("0.001")
)
FREE = Costs(fee_bps=0, slippage_bps=0)


class Fill(NamedTuple):
    bar: int
    lots: int
    ticks: int
    fee: int
    reason: int = SIGNAL


def traded(
    closes: list[float],
    exposures: list[float],
    *,
    opens: list[float] | None = None,
    instrument: Instrument = BTC,
    costs: Costs = FREE,
    trade_from: int = 0,
    size: str | None = None,
    exposure: float = 1.0,
    **exits: float,
) -> tuple[Run, list[Fill]]:
    """Follow these exposures over bars with these closes, each opening where the one before closed, with 1,000 USDT."""
    opens = opens or [closes[0], *closes[:-1]]
    high, low = np.maximum(opens, closes), np.minimum(opens, closes)
    bars = Columns.of(np.arange(len(closes)) * 60_000, opens, high, low, closes, np.ones(len(closes)))
    terms = Terms(instrument, "1m", costs, Decimal(1000), size=Decimal(size) if size else None, exposure=exposure)
    run = execute(Targets.of(exposures, **exits), bars, terms, trade_from=trade_from, with_fills=True, with_curve=True)
    assert run.fills is not None
    return run, [Fill(*fill) for *fill, _ in run.fills.tolist()]


def test_what_a_close_wants_is_filled_at_the_next_open() -> None:
    _, fills = traded([100.0, 100.0, 110.0], [0.0, 0.5, 0.5], opens=[100.0, 100.0, 104.0])
    # half of 1,000 at 100.01 (a tick of room for rounding) is 4.999 BTC; the next bar opens at 104
    assert fills == [Fill(bar=2, lots=4999, ticks=10400, fee=0)]


def test_the_price_is_rounded_once_and_against_the_trader() -> None:
    rules = Scale.of(BTC).rules(BTC, Costs(fee_bps=0, slippage_bps=5))
    # 100.03 x 1.0005 = 100.080015 -> 100.09 for a buyer; 100.03 x 0.9995 = 99.979985 -> 99.97 for a seller
    assert (fill_ticks(100.03, 1, rules), fill_ticks(100.03, -1, rules)) == (10009, 9997)


def test_a_price_on_the_tick_stays_there_without_slippage() -> None:
    rules = Scale.of(BTC).rules(BTC, FREE)
    for price in (0.07, 1.1, 27123.45, 65536.29, 99999.99):
        ticks = round(price * 100)
        assert (fill_ticks(price, 1, rules), fill_ticks(price, -1, rules)) == (ticks, ticks)


def test_a_fee_is_rounded_once_half_up() -> None:
    assert fee_on(1_499, 1_000, 0) == 1  # 1.499
    assert fee_on(1_500, 1_000, 0) == 2  # 1.5
    assert fee_on(4_000_000_000_000_000_000, 1_000, 0) == 4_000_000_000_000_000  # no overflow on the way


def test_fee_and_slippage_leave_cash_for_themselves() -> None:
    run, fills = traded([100.0, 100.0], [1.0, 1.0], costs=Costs(fee_bps=10, slippage_bps=5))
    # one lot costs at most 0.001 x (100.05 + 0.01) x 1.001 = 0.10016; 1,000 / 0.10016006 = 9984.02 lots
    assert fills == [Fill(bar=1, lots=9984, ticks=10005, fee=99_889_920_00 // 100)]
    assert 0 <= run.sleeve.book.cash < 20_000_000_00  # less than the 20 cents that rounding and a tick can leave


def test_a_market_that_opens_higher_is_bought_only_as_far_as_the_cash_goes() -> None:
    run, fills = traded([100.0, 120.0], [1.0, 1.0], opens=[100.0, 120.0])
    assert fills == [Fill(bar=1, lots=8333, ticks=12000, fee=0)]  # 1,000 / 120 = 8.3333
    assert run.sleeve.plan.want == 0  # the rest lapsed


def test_an_order_below_the_least_notional_is_not_sent_but_a_position_can_always_be_left() -> None:
    least = Instrument(
        symbol="BTC-USDT",
        base="BTC",
        quote="USDT",
        tick=Decimal("0.01"),
        lot=Decimal("0.001"),
        min_notional=Decimal(50),
    )
    _, too_small = traded([100.0] * 3, [0.04, 0.04, 0.04], instrument=least)  # 40 USDT
    _, left = traded([100.0, 100.0, 10.0, 10.0], [0.06, 0.06, 0.0, 0.0], instrument=least)  # worth 6 at the end
    assert too_small == []
    assert [fill.lots for fill in left] == [599, -599]


def test_a_new_order_is_made_only_when_the_exposure_changes() -> None:
    _, fills = traded([100.0, 150.0, 80.0, 120.0, 120.0], [0.5, 0.5, 0.5, 0.25, 0.25])
    assert [fill.bar for fill in fills] == [1, 4]


def test_a_stop_is_judged_on_the_close_and_left_at_the_next_open() -> None:
    closes = [100.0, 100.0, 96.0, 94.9, 90.0]
    _, fills = traded(closes, [1.0] * 5, opens=[100.0, 100.0, 100.0, 94.0, 93.0], stop=5.0)
    # entry 100: 96 holds, 94.9 is 5.1 below; sold at the open of the bar after
    assert [(fill.bar, fill.ticks) for fill in fills] == [(1, 10000), (4, 9300)]


def test_after_a_stop_the_sleeve_stays_flat_until_the_strategy_has_been_flat() -> None:
    closes = [100.0, 100.0, 90.0, 90.0, 95.0, 95.0, 95.0]
    _, stubborn = traded(closes, [1.0] * 7, stop=5.0)
    _, renewed = traded(closes, [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0], stop=5.0)
    assert [fill.bar for fill in stubborn] == [1, 3]
    assert [fill.bar for fill in renewed] == [1, 3, 6]


def test_a_take_profit_a_trail_and_an_age_end_a_position() -> None:
    _, profit = traded([100.0, 100.0, 104.0, 106.0, 106.0], [1.0] * 5, take_profit=5.0)
    _, trail = traded([100.0, 100.0, 110.0, 107.1, 106.9, 100.0], [1.0] * 6, trail=3.0)
    _, age = traded([100.0] * 6, [1.0] * 6, max_bars=2)
    assert [fill.bar for fill in profit] == [1, 4]
    assert [fill.bar for fill in trail] == [1, 5]  # 106.9 is 3.1 below the best close
    assert [fill.bar for fill in age] == [1, 3]  # held over the closes of bars 1 and 2


def test_spot_never_sells_what_it_does_not_have_and_says_how_often_it_was_asked_to() -> None:
    run, fills = traded([100.0] * 6, [0.0, -1.0, -1.0, 0.0, -0.5, -0.5])
    assert fills == []
    assert run.stats.shorts_refused == 2


def test_a_perpetual_turns_from_long_to_short_in_one_order_and_two_trades() -> None:
    run, fills = traded([100.0, 100.0, 110.0, 110.0, 100.0, 100.0], [0.5, 0.5, -0.5, -0.5, 0.0, 0.0], instrument=PERP)
    assert [fill.bar for fill in fills] == [1, 3, 5]
    assert run.stats.trades == 2
    assert run.stats.wins == 2
    # long 4.999 x 10; short half of 1,049.99 at 110.01, 4.772 x 10
    assert run.stats.profit == Scale.of(PERP).units(Decimal("49.99") + Decimal("47.72"))


def test_bars_before_the_span_are_looked_at_and_not_traded() -> None:
    _, joined_late = traded([100.0] * 6, [1.0] * 6, trade_from=3)
    _, next_change = traded([100.0] * 6, [1.0, 1.0, 1.0, 0.0, 1.0, 1.0], trade_from=3)
    assert joined_late == []  # it would have entered before; only a change counts
    assert [fill.bar for fill in next_change] == [5]


def test_zero_cost_is_zero() -> None:
    run, _ = traded([100.0] * 9, [0.0, 1.0, 0.0, 0.5, 1.0, 0.2, 0.0, 0.0, 0.0])
    assert (run.figures.net_return, run.figures.fees, run.sleeve.book.lots) == (0.0, 0.0, 0)


def test_the_figures_of_three_returns_are_those_of_the_textbook() -> None:
    stats = begun(1000)
    for equity in (1100, 990, 1089):  # +10 %, -10 %, +10 %
        stats = with_equity(stats, equity)
    stats = with_fill(with_fill(stats, 150, 100.0, True), -50, 100.0, True)
    told = figures(stats, bars=3, start=1000, fees=1.5, periods_per_year=365.2425)
    # mean 1/30, sample deviation sqrt(((1/15)^2 x 2 + (2/15)^2) / 2) = 0.11547; 0.288675 x sqrt(365.2425) = 5.516963
    assert told.sharpe == pytest.approx(5.516963, abs=1e-6)
    assert told.max_drawdown == pytest.approx(0.1)
    assert (told.net_return, told.win_rate, told.profit_factor, told.expectancy_r) == (0.089, 0.5, 3.0, 0.5)


def test_figures_that_cannot_be_known_are_not_invented() -> None:
    told = figures(begun(1000), bars=10, start=1000, fees=0.0, periods_per_year=365.0)
    assert all(map(math.isnan, (told.sharpe, told.win_rate, told.profit_factor, told.expectancy_r)))
    with pytest.raises(NeedsOperator, match=r"a calendar with known sessions .24x7, XNYS., was 'XLON'"):
        periods_per_year("1d", "XLON")


def test_a_ledger_counts_in_units_in_which_every_notional_is_whole() -> None:
    fine = Instrument(symbol="PEPE-USDT", base="PEPE", quote="USDT", tick=Decimal("1E-8"), lot=Decimal("0.1"))
    scale = Scale.of(fine)
    assert (scale.decimals, scale.unit) == (9, 1)
    assert (Scale.of(BTC).decimals, Scale.of(BTC).unit) == (8, 1000)
    assert scale.amount(scale.units(Decimal("12.345678901"))) == Decimal("12.345678901")


def test_a_sale_and_a_purchase_at_one_price_cost_two_fees() -> None:
    book = applied(applied(opened_book(10_000), 5, 500, 3), -5, 500, 2)
    assert (book.cash, book.lots, book.fees, equity_at(book, 77, 1)) == (9_995, 0, 5, 9_995)


def test_a_fixed_size_is_held_whatever_the_exposure_and_the_equity_are() -> None:
    _, fills = traded([100.0] * 6, [0.3, 1.0, 0.0, 0.1, 0.1, 0.1], size="0.5")
    assert [(fill.bar, fill.lots) for fill in fills] == [(1, 500), (3, -500), (4, 500)]


def test_a_fixed_size_is_never_more_than_the_equity_pays_for() -> None:
    _, fills = traded([100.0] * 3, [1.0] * 3, size="50")
    assert [fill.lots for fill in fills] == [9999]  # 1,000 at 100.01, a tick of room for rounding


def test_the_runs_exposure_scales_the_strategys_own() -> None:
    _, fills = traded([100.0] * 3, [0.5] * 3, exposure=0.5)
    assert [fill.lots for fill in fills] == [2499]  # a quarter of 1,000 at 100.01


def test_a_buyer_pays_half_the_spread_and_a_seller_gets_as_much_less() -> None:
    rules = Scale.of(BTC).rules(BTC, Costs(fee_bps=0, slippage_bps=5, spread_bps=10))
    assert (fill_ticks(100.0, 1, rules), fill_ticks(100.0, -1, rules)) == (10010, 9990)  # 5 bps and half of 10


def test_a_small_fill_pays_the_least_fee_and_is_sized_net_of_it() -> None:
    run, fills = traded([100.0] * 3, [1.0] * 3, costs=Costs(fee_bps=0, slippage_bps=0, min_fee=Decimal(400)))
    # 600 of the 1,000 are left to buy with: 600 / 100.01 = 5.9994
    assert fills == [Fill(bar=1, lots=5999, ticks=10000, fee=400_00000000)]
    assert run.sleeve.book.cash == 10_000_000  # 0.1


def test_shares_are_sold_short_only_when_somebody_lends_them() -> None:
    share = Instrument(symbol="AAPL-USD", base="AAPL", quote="USD", kind="share", tick=Decimal("0.01"), lot=Decimal(1))
    kept, _ = traded([100.0] * 3, [-0.5] * 3, instrument=share)
    assert (kept.stats.fills, kept.stats.shorts_refused) == (0, 1)
    assert Scale.of(share).rules(share, Costs(fee_bps=0, slippage_bps=0, borrow_bps_year=0.0)).shorts


def test_terms_that_cannot_be_counted_are_refused_with_what_to_change() -> None:
    with pytest.raises(NeedsOperator, match=r"steps of 0\.01"):
        traded([100.0], [0.0], costs=Costs(fee_bps=0.001, slippage_bps=0))
    with pytest.raises(NeedsOperator, match=r"multiple of its lot 0\.001 above 0, was 0\.0005"):
        traded([100.0], [0.0], size="0.0005")
    with pytest.raises(NeedsOperator, match=r"in 0\.\.1, was 2\.0"):
        traded([100.0], [0.0], exposure=2.0)
    with pytest.raises(NeedsOperator, match="one target for each of the 2 bars"):
        traded([100.0, 100.0], [0.0])


@pytest.mark.parametrize(
    ("costs", "said"),
    [
        ({"fee_bps": -1.0}, "fee_bps must be in 0..10000, was -1.0"),
        ({"slippage_bps": math.nan}, "slippage_bps must be in"),
        ({"slippage_bps": 9_999.0, "spread_bps": 2.0}, "below 10000 bps together"),
        ({"min_fee": Decimal("NaN")}, "min_fee must be a finite number"),
        ({"tiers": ((Decimal(5), 1.0), (Decimal(5), 2.0))}, "rising notionals"),
        ({"tiers": ((Decimal(5), -1.0),)}, "fees in 0..10000"),
        ({"max_volume_share": 1.5}, "max_volume_share must be in 0..1"),
    ],
)
def test_costs_that_nobody_charges_are_refused_by_name(costs: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Costs(**{"fee_bps": 0.0, "slippage_bps": 0.0, **costs})


def test_costs_of_before_are_read_as_they_were_written() -> None:
    before = {"fee_bps": 10.0, "slippage_bps": 5.0}
    assert msgspec.to_builtins(msgspec.convert(before, Costs)) == before
