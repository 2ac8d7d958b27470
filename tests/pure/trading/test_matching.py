"""A venue in detail, worked by hand: where fills are, what rests, what a bar's volume allows, what holding costs.

Bars are written (open, high, low, close), one lot is 0.001 BTC, a tick is 0.01, cash is 1,000 USDT.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs, SlippageModel
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.compiled import Failure, Run, Targets, Terms, execute
from shared.trading.fills import REASONS
from shared.trading.frictions import DAY_MS, frictions, mixed, normal, slippage_of, weather, weather_step
from shared.trading.scales import Scale
from shared.trading.values import Bar

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
PERP = Instrument(
    symbol="BTC-USDT-PERP", base="BTC", quote="USDT", kind="perpetual", tick=Decimal("0.01"), lot=Decimal("0.001")
)
FREE = Costs(fee_bps=0, slippage_bps=0)
FLAT = (100.0, 100.0, 100.0, 100.0)
Told = list[tuple[int, int, float, str]]


def costs(**given: Any) -> Costs:
    return Costs(**{"fee_bps": 0.0, "slippage_bps": 0.0, **given})


def played(
    candles: list[tuple[float, float, float, float]],
    exposures: list[float],
    *,
    instrument: Instrument = BTC,
    costs: Costs = FREE,
    volume: float | list[float] = 1e9,
    step_ms: int = 60_000,
    first_ms: int = 0,
    size: str | None = "1",
    targets: dict[str, Any] | None = None,
    **terms: Any,
) -> tuple[Run, Told]:
    """Follow these exposures, a fixed size of 1 BTC unless told otherwise: (bar, lots, price, reason) of each fill."""
    opens, highs, lows, closes = zip(*candles, strict=True)
    count = len(candles)
    at = first_ms + np.arange(count) * step_ms
    bars = Columns.of(at, opens, highs, lows, closes, np.broadcast_to(volume, count).copy())
    timeframe = {60_000: "1m", 3_600_000: "1h", DAY_MS: "1d"}[step_ms]
    on = Terms(instrument, timeframe, costs, Decimal(1000), size=None if size is None else Decimal(size), **terms)
    run = execute(Targets.of(exposures, **(targets or {})), bars, on, with_fills=True, with_curve=True)
    assert run.fills is not None and run.curve is not None
    assert run.curve[-1] == run.stats.equity
    return run, [(bar, lots, ticks / 100, REASONS[why]) for bar, lots, ticks, _, why, _ in run.fills.tolist()]


# where market orders are filled

RISING = [(100.0, 102.0, 99.0, 101.0), (103.0, 106.0, 103.0, 105.0), (107.0, 109.0, 106.0, 108.0)]


@pytest.mark.parametrize(
    ("fill", "bar", "price"), [("next_open", 1, 103.0), ("same_close", 0, 101.0), ("next_close", 1, 105.0)]
)
def test_a_target_of_the_first_close_is_filled_where_the_convention_says(fill: Any, bar: int, price: float) -> None:
    run, told = played(RISING, [1.0, 1.0, 1.0], fill=fill)
    assert told == [(bar, 1000, price, "signal")]
    assert run.stats.equity == Scale.of(BTC).units(Decimal(1000) + Decimal(108) - Decimal(str(price)))


def test_a_fill_at_the_same_close_costs_the_bar_in_which_it_is_made() -> None:
    run, _ = played(RISING, [1.0] * 3, fill="same_close", costs=costs(fee_bps=100))
    assert run.curve is not None
    # the fee of 1 % of 101 is gone at the very close at which it was paid
    assert run.curve[0] == Scale.of(BTC).units(Decimal("998.99"))


# orders that rest

DIP = [FLAT, (100.0, 101.0, 96.0, 98.0), (98.0, 99.0, 97.0, 98.5)]


def test_a_limit_is_filled_at_its_price_when_the_bar_passes_it() -> None:
    assert played(DIP, [1.0] * 3, targets={"limit": 97.0})[1] == [(1, 1000, 97.0, "signal")]


def test_a_limit_that_is_only_touched_is_not_filled() -> None:
    assert played(DIP, [1.0] * 3, targets={"limit": 96.0})[1] == []


def test_a_limit_that_the_open_has_passed_is_filled_at_the_open() -> None:
    gap = [FLAT, (95.0, 96.0, 94.0, 95.0)]
    assert played(gap, [1.0] * 2, targets={"limit": 97.0})[1] == [(1, 1000, 95.0, "signal")]


def test_a_limit_rests_for_one_bar_and_is_renewed_by_a_target_that_says_the_same() -> None:
    late = [FLAT, FLAT, FLAT, (100.0, 100.0, 96.0, 97.0)]
    assert played(late, [1.0] * 4, targets={"limit": 97.0})[1] == [(3, 1000, 97.0, "signal")]
    assert played(late, [1.0, 0.0, 0.0, 0.0], targets={"limit": 97.0})[1] == []


def test_a_limit_pays_the_makers_fee_and_no_slippage() -> None:
    run, told = played(DIP, [1.0] * 3, targets={"limit": 97.0}, costs=costs(fee_bps=10, maker_bps=2, slippage_bps=50))
    assert told[0][2] == 97.0
    assert run.sleeve.book.fees == Scale.of(BTC).units(Decimal("0.0194"))  # 2 bps of 97


def test_a_limit_may_sell_as_well() -> None:
    up = [FLAT, FLAT, (100.0, 104.0, 100.0, 103.0), FLAT]
    told = played(up, [1.0, 0.0, 0.0, 0.0], targets={"limit": [np.nan, 103.0, np.nan, np.nan]})[1]
    assert told == [(1, 1000, 100.0, "signal"), (2, -1000, 103.0, "signal")]


def test_a_trigger_becomes_a_market_order_once_it_is_touched() -> None:
    up = [FLAT, (100.0, 103.0, 99.0, 102.0)]
    assert played(up, [1.0] * 2, targets={"trigger": 103.0})[1] == [(1, 1000, 103.0, "signal")]
    assert played(up, [1.0] * 2, targets={"trigger": 103.01})[1] == []
    slipped = played(up, [1.0] * 2, targets={"trigger": 102.0}, costs=costs(slippage_bps=100))[1]
    assert slipped == [(1, 1000, 103.02, "signal")]  # 102 and 1 %


def test_a_trigger_that_the_open_has_passed_is_filled_at_the_open() -> None:
    gap = [FLAT, (105.0, 106.0, 104.0, 105.0)]
    assert played(gap, [1.0] * 2, targets={"trigger": 103.0})[1] == [(1, 1000, 105.0, "signal")]


def test_a_target_with_two_prices_is_refused() -> None:
    with pytest.raises(Failure, match="a limit or a trigger, not both"):
        played(DIP, [1.0] * 3, targets={"limit": 97.0, "trigger": 103.0})


# exits that rest at the venue: long 1 BTC from 100, at the open of bar 1


def exit_of(*after: tuple[float, float, float, float], **target: float) -> Told:
    candles = [FLAT, (100.0, 100.5, 99.5, 100.0), *after]
    return played(candles, [1.0] * len(candles), exits="at_venue", targets=target)[1][1:]


def test_a_stop_at_the_venue_is_filled_inside_the_bar_at_its_price() -> None:
    assert exit_of((100.0, 101.0, 94.0, 96.0), stop=5.0) == [(2, -1000, 95.0, "stop")]


def test_a_stop_that_the_open_has_passed_is_filled_at_the_open() -> None:
    assert exit_of((93.0, 99.0, 92.0, 98.0), stop=5.0) == [(2, -1000, 93.0, "stop")]


def test_a_stop_is_filled_when_it_is_touched_a_take_profit_when_it_is_passed() -> None:
    assert exit_of((100.0, 101.0, 95.0, 96.0), stop=5.0) == [(2, -1000, 95.0, "stop")]
    assert exit_of((100.0, 105.0, 99.0, 104.0), take_profit=5.0) == []
    assert exit_of((100.0, 105.01, 99.0, 104.0), take_profit=5.0) == [(2, -1000, 105.0, "take_profit")]


def test_a_bar_that_touches_stop_and_target_is_taken_to_have_touched_the_stop_first() -> None:
    assert exit_of((100.0, 106.0, 94.0, 105.0), stop=5.0, take_profit=5.0) == [(2, -1000, 95.0, "stop")]


def test_an_open_beyond_the_target_comes_before_the_stop() -> None:
    assert exit_of((107.0, 108.0, 94.0, 95.0), stop=5.0, take_profit=5.0) == [(2, -1000, 107.0, "take_profit")]


def test_a_trail_follows_the_best_price_and_never_loosens() -> None:
    told = exit_of((100.0, 104.0, 100.0, 103.5), (103.0, 103.5, 102.2, 103.0), (102.5, 103.0, 100.5, 102.0), trail=2.0)
    assert told == [(4, -1000, 102.0, "trail")]  # 2 below 104, although the bar between made no new high


def test_a_trail_ends_a_bar_whose_close_has_come_back_from_its_own_high() -> None:
    assert exit_of((100.0, 106.0, 99.9, 103.0), trail=2.0) == [(2, -1000, 104.0, "trail")]


def test_a_trail_does_not_know_whether_a_high_came_before_a_low() -> None:
    # 98.1 is more than 2 below 104, but the low may have been first, when the trail still was at 98.5 (100.5 - 2)
    assert exit_of((100.0, 104.0, 98.6, 103.0), trail=2.0) == []


def test_the_nearer_of_stop_and_trail_protects() -> None:
    assert exit_of((100.0, 104.0, 100.0, 103.5), (103.0, 103.0, 90.0, 91.0), stop=5.0, trail=2.0) == [
        (3, -1000, 102.0, "trail")
    ]
    assert exit_of((100.0, 100.0, 90.0, 91.0), stop=1.0, trail=5.0) == [(2, -1000, 99.0, "stop")]


def test_an_exit_by_age_is_left_at_the_next_open_also_when_others_rest() -> None:
    assert exit_of(FLAT, (101.0, 101.0, 101.0, 101.0), max_bars=2, stop=5.0) == [(3, -1000, 101.0, "max_bars")]


def test_a_short_is_stopped_above() -> None:
    candles = [FLAT, FLAT, (101.0, 106.0, 100.0, 104.0)]
    told = played(candles, [-1.0] * 3, instrument=PERP, exits="at_venue", targets={"stop": 5.0})[1]
    assert told == [(1, -1000, 100.0, "signal"), (2, 1000, 105.0, "stop")]


def test_after_an_exit_at_the_venue_the_sleeve_stays_flat_until_the_strategy_has_been_flat() -> None:
    crash = [FLAT, FLAT, (100.0, 100.0, 90.0, 92.0), *[(92.0, 93.0, 91.0, 92.0)] * 3]
    stubborn = played(crash, [1.0] * 6, exits="at_venue", targets={"stop": 5.0})[1]
    renewed = played(crash, [1.0, 1.0, 1.0, 0.0, 1.0, 1.0], exits="at_venue", targets={"stop": 5.0})[1]
    assert [bar for bar, *_ in stubborn] == [1, 2]
    assert [bar for bar, *_ in renewed] == [1, 2, 5]


def test_a_position_begun_inside_a_bar_may_be_stopped_in_it_but_takes_profit_only_by_its_close() -> None:
    wild = [FLAT, (100.0, 110.0, 90.0, 96.0)]  # bought at 97 on the way down; 110 may have come before
    stopped = played(wild, [1.0] * 2, exits="at_venue", targets={"limit": 97.0, "stop": 5.0})[1]
    held = played(wild, [1.0] * 2, exits="at_venue", targets={"limit": 97.0, "take_profit": 5.0})[1]
    back = [FLAT, (100.0, 110.0, 90.0, 104.0)]
    taken = played(back, [1.0] * 2, exits="at_venue", targets={"limit": 97.0, "take_profit": 5.0})[1]
    assert stopped == [(1, 1000, 97.0, "signal"), (1, -1000, 92.0, "stop")]
    assert held == [(1, 1000, 97.0, "signal")]
    assert taken == [(1, 1000, 97.0, "signal"), (1, -1000, 102.0, "take_profit")]


def test_a_stop_takes_and_slips_a_target_rests_and_does_not() -> None:
    dear = costs(fee_bps=10, maker_bps=0, slippage_bps=100)
    stop, stopped = played(
        [FLAT, FLAT, (100.0, 100.0, 90.0, 95.0)],
        [1.0] * 3,
        exits="at_venue",
        costs=dear,
        targets={"stop": 5.0},
        size="0.5",
    )
    goal, taken = played(
        [FLAT, FLAT, (100.0, 110.0, 99.0, 105.0)],
        [1.0] * 3,
        exits="at_venue",
        costs=dear,
        targets={"take_profit": 5.0},
        size="0.5",
    )
    # in at 101; the stop at 96 is left at 96 x 0.99 = 95.04, the target at 106 is left there, free of a fee
    assert (stopped[1][2], taken[1][2]) == (95.04, 106.0)
    units = Scale.of(BTC).units
    assert stop.sleeve.book.fees == units(Decimal("0.0505") + Decimal("0.04752"))
    assert goal.sleeve.book.fees == units(Decimal("0.0505"))


# shares of the volume


def test_no_fill_exceeds_its_share_of_the_bars_volume_and_the_rest_stays_wanted() -> None:
    _, told = played([FLAT] * 6, [1.0] * 6, costs=costs(max_volume_share=0.1), volume=[9.0, 4.0, 0.0, 3.0, 9.0, 9.0])
    # 1 BTC is wanted; a tenth of 4, of nothing, of 3, and what is left of it of 9
    assert told == [(1, 400, 100.0, "signal"), (3, 300, 100.0, "signal"), (4, 300, 100.0, "signal")]


def test_the_rest_is_forgotten_when_the_target_changes() -> None:
    _, told = played([FLAT] * 6, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0], costs=costs(max_volume_share=0.1), volume=4.0)
    assert told == [
        (1, 400, 100.0, "signal"),
        (2, 400, 100.0, "signal"),
        (3, -400, 100.0, "signal"),
        (4, -400, 100.0, "signal"),
    ]


def test_a_stop_that_the_volume_has_no_room_for_is_worked_off_at_the_next_opens() -> None:
    candles = [FLAT, FLAT, (100.0, 100.0, 90.0, 91.0), (90.0, 90.0, 88.0, 89.0), (87.0, 88.0, 86.0, 87.0)]
    _, told = played(
        candles,
        [1.0] * 5,
        exits="at_venue",
        targets={"stop": 5.0},
        costs=costs(max_volume_share=0.1),
        volume=[9.0, 10.0, 5.0, 3.0, 9.0],
    )
    assert told[1:] == [(2, -500, 95.0, "stop"), (3, -300, 90.0, "stop"), (4, -200, 87.0, "stop")]


# fees


def test_a_fee_falls_when_enough_was_traded_in_the_run() -> None:
    run, _ = played(
        [FLAT] * 6,
        [1.0, 0.0, 1.0, 0.0, 0.0, 0.0],
        costs=costs(fee_bps=10, tiers=((Decimal(150), 5.0), (Decimal(250), 0.0))),
    )
    assert run.fills is not None
    # 100 a fill: the first two at 10 bps (0 and 100 traded), the third at 5 bps (200), the fourth free (300)
    assert run.fills[:, 3].tolist() == [10_000_000, 10_000_000, 5_000_000, 0]


# what holding costs

EIGHT_HOURS = 8 * 3_600_000


def test_funding_is_paid_by_who_is_long_at_its_time_and_received_by_who_is_short() -> None:
    candles = [FLAT, FLAT, (110.0, 110.0, 110.0, 110.0), FLAT]
    funding = np.array([0, 7_200_000]), np.array([0.5, 0.001])  # at the opens of bars 0 and 2; bars of an hour
    for side, paid in ((1.0, "0.11"), (-1.0, "-0.11")):  # 0.1 % of 110; nothing was held at the first
        run, _ = played([*candles], [side] * 4, instrument=PERP, step_ms=3_600_000, funding=funding)
        amount = Scale.of(PERP).units(Decimal(paid))
        assert run.charges is not None
        assert [(bar, cost, REASONS[why]) for bar, cost, why, _ in run.charges.tolist()] == [(2, amount, "funding")]
        assert run.stats.charges == amount
        assert run.stats.equity == Scale.of(PERP).units(Decimal(1000)) - amount


def test_funding_inside_a_bar_is_on_what_is_held_after_its_open() -> None:
    funding = np.array([EIGHT_HOURS, DAY_MS, DAY_MS + EIGHT_HOURS]), np.array([0.01, 0.01, 0.001])
    run, _ = played([FLAT, FLAT], [1.0, 1.0], instrument=PERP, step_ms=DAY_MS, funding=funding)
    assert run.charges is not None
    # bought at the open of day 1: not held yet at that very time, held at 8 o'clock
    # one fill, that of the open, came before it
    assert run.charges.tolist() == [[1, Scale.of(PERP).units(Decimal("0.1")), REASONS.index("funding"), 1]]


def test_only_perpetuals_have_funding() -> None:
    with pytest.raises(NeedsOperator, match="Only perpetuals have funding: BTC-USDT is spot"):
        played([FLAT], [0.0], funding=(np.array([0]), np.array([0.1])))


def test_a_short_in_shares_pays_by_the_day_for_what_it_borrows() -> None:
    year = Instrument(
        symbol="AAPL-USD",
        base="AAPL",
        quote="USD",
        kind="share",
        tick=Decimal("0.01"),
        lot=Decimal("0.001"),
        calendar="24x7",
    )
    run, _ = played(
        [FLAT] * 4, [-1.0, -1.0, -1.0, -1.0], instrument=year, costs=costs(borrow_bps_year=3650.0), step_ms=DAY_MS
    )
    assert run.charges is not None
    # sold short at the open of day 1; 36.5 % a year of 100 is 0.1 for each of the two days that follow
    tenth = Scale.of(year).units(Decimal("0.1"))
    assert run.charges.tolist() == [[bar, tenth, REASONS.index("borrowing"), 1] for bar in (2, 3)]
    assert run.stats.equity == Scale.of(year).units(Decimal("999.8"))


# slippage


def slips(model: SlippageModel, bars: list[Bar], *, bps: float = 10.0, notional: float = 0.0) -> float:
    """The slippage of an order after these daily bars, in bps, on the day after."""
    given = Costs(fee_bps=0, slippage_bps=bps, slippage_model=model)
    rules = Scale.of(BTC).rules(BTC, given)
    f = frictions(BTC, given, rules, fill="next_open", exits="on_close", funding=None, bar_ms=DAY_MS)
    seen = weather(f)
    for bar in bars:
        seen = weather_step(seen, bar, f)
    now = Bar(len(bars) * DAY_MS, 100.0, 100.0, 100.0, 100.0, 10.0)
    return 10_000 * slippage_of(notional * 1e8, now, 0, seen, f)


def days(ranges: list[float], volume: float = 10.0) -> list[Bar]:
    """Daily bars around 100 of these ranges."""
    return [Bar(i * DAY_MS, 100.0, 100.0 + r / 2, 100.0 - r / 2, 100.0, volume) for i, r in enumerate(ranges)]


def test_slippage_follows_the_range_of_the_bars_between_a_half_and_three() -> None:
    only = SlippageModel(size=False)
    assert slips(only, days([2.0] * 50)) == pytest.approx(10.0)  # not known yet: 14 + 60 bars are needed
    assert slips(only, days([2.0] * 80)) == pytest.approx(10.0)
    assert slips(only, days([2.0] * 80 + [1000.0] * 3)) == pytest.approx(30.0)
    assert slips(only, days([2.0] * 80 + [0.0] * 60)) == pytest.approx(5.0)


def test_slippage_follows_the_size_against_the_daily_turnover() -> None:
    only = SlippageModel(volatility=False)
    quiet = days([2.0] * 30)  # 10 a day at 100: a turnover of 1,000, one percent of it is 10
    assert slips(only, quiet, notional=1.0) == pytest.approx(5.0)
    assert slips(only, quiet, notional=15.0) == pytest.approx(15.0)
    assert slips(only, quiet, notional=1e6) == pytest.approx(20.0)
    assert slips(only, quiet[:19], notional=1e6) == pytest.approx(10.0)  # 20 days are not known yet


def test_slippage_is_dearer_at_weekends_and_after_a_bad_week() -> None:
    only = SlippageModel(volatility=False, size=False, weekend=1.5, stress=2.0, stress_fall=0.05)
    assert slips(only, days([0.0] * 1)) == pytest.approx(10.0)  # 2 January 1970 was a Friday
    assert slips(only, days([0.0] * 2)) == pytest.approx(15.0)
    assert slips(only, days([0.0] * 3)) == pytest.approx(15.0)
    assert slips(only, days([0.0] * 4)) == pytest.approx(10.0)
    fallen = [*days([0.0] * 7), Bar(7 * DAY_MS, 95.1, 95.1, 95.1, 95.1, 1.0)]
    worse = [*days([0.0] * 7), Bar(7 * DAY_MS, 94.9, 94.9, 94.9, 94.9, 1.0)]
    assert (slips(only, fallen), slips(only, worse)) == (pytest.approx(10.0), pytest.approx(20.0))


def test_noise_has_the_mean_and_the_deviation_that_it_says_and_is_never_below_zero() -> None:
    drawn = np.array([normal(7, 60 * t, 0) for t in range(20_000)])
    # of 20,000 draws the mean has a standard error of 0.007 and the deviation one of 0.005: four of them
    assert abs(drawn.mean()) < 0.028
    assert abs(drawn.std() - 1.0) < 0.02
    assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.028
    assert normal(8, 60, 0) != normal(7, 60, 0) != normal(7, 60, 1)
    many = [slips(SlippageModel(volatility=False, size=False, noise=5.0, seed=s), []) for s in range(200)]
    assert min(many) == 0.0 and max(many) > 20.0


def test_the_hash_behind_the_noise_stays_below_two_to_the_32() -> None:
    assert all(0 <= mixed(x) < 2**32 for x in (0, 1, 2**31, 2**32 - 1, 2**62))
    assert len({mixed(x) for x in range(10_000)}) == 10_000
