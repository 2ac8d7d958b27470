"""The order of events of one bar, for backtest, paper and live alike.

    at the open   what the close before wanted is filled: `fill_at_open` (live, the venue does that, and `booked` books it)
    at the close  the book is marked, stop, take-profit, trail and age are judged, and the strategy's target becomes a
                  want: `at_close`

The strategy steps between the two and sees neither book nor fill.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.trading.kernel import kernel
from shared.trading.ledger import Book, applied, equity_at, fee_on, fits, opened_book
from shared.trading.performance import Stats, with_equity, with_fill, with_short_refused
from shared.trading.risk import affordable, is_worth_sending, lots_for, permitted
from shared.trading.scales import Rules
from shared.trading.values import Target

# Why an order was wanted, by number: numbers compile.
SIGNAL, STOP, TAKE_PROFIT, TRAIL, MAX_BARS, COMMAND, FUNDING, BORROWING = 0, 1, 2, 3, 4, 5, 6, 7
REASONS = ("signal", "stop", "take_profit", "trail", "max_bars", "command", "funding", "borrowing")

# Why a sleeve refused to go on, by number.
TOO_LARGE, NOT_AN_EXPOSURE, CANNOT_REST, TWO_PRICES, NO_DISTANCE = 1, 2, 3, 4, 5
REFUSALS = (
    "",
    "the position would not fit the ledger's integers: use less cash or a coarser lot",
    "a target's exposure must be a number in -1..1",
    "an order that rests at the venue, by a limit or a trigger, is for backtests only",
    "a target may name a limit or a trigger, not both",
    "stop, take-profit and trail are distances from the entry, in price, and never below 0 (NaN: none)",
)
NOTE = 6  # numbers that are noted of a fill: bar, lots, ticks, fee, reason, what is at stake after it
NOISE = 1e-6  # ticks; 27123.45 x 100 is 2712345.0000000005, which must not become the next tick


class Plan(NamedTuple):
    """What is wanted and not yet filled, and what was last asked for."""

    want: int  # lots to trade (signed); 0: nothing
    acted: float  # the exposure that was last acted on: only another one makes an order
    lock: int  # sign of the exposure that an exit ended; 0: none
    reason: int  # of the want
    target: Target  # whose exits hold for what the want opens


class Watch(NamedTuple):
    """The open position, as its exits and its result need it."""

    is_armed: bool  # has exits
    target: Target  # that opened it
    entry: float  # mean price
    best: float  # close since entry
    bars: int  # closed since entry, counted while armed
    distance: float  # price units at stake: the stop, else the typical range of a bar
    risk: float  # ledger units that this distance puts at stake


class Sleeve(NamedTuple):
    """One strategy on one instrument: its money, its plan, its position."""

    book: Book
    plan: Plan
    watch: Watch
    refused: int  # 0, or why it cannot go on


class Account(NamedTuple):
    """What a run keeps from bar to bar."""

    sleeve: Sleeve
    stats: Stats
    written: int  # numbers that were noted


NO_EXITS = Target(0.0, math.nan, math.nan, math.nan, 0, math.nan, math.nan)


@kernel
def no_watch() -> Watch:
    """Nothing is held."""
    return Watch(False, NO_EXITS, math.nan, math.nan, 0, math.nan, 0.0)


@kernel
def opened(cash: int) -> Sleeve:
    """A sleeve that has never traded, with `cash` in ledger units."""
    return Sleeve(opened_book(cash), Plan(0, 0.0, 0, SIGNAL, NO_EXITS), no_watch(), 0)


@kernel
def fill_ticks(open: float, lots: int, rules: Rules) -> int:
    """The price at which an order of `lots` (signed) is filled at the market: the open and the slippage."""
    return slipped_ticks(open, lots, rules.slippage, rules)


@kernel
def slipped_ticks(price: float, lots: int, slippage: float, rules: Rules) -> int:
    """A price and a slippage (fraction of it), in ticks: rounded once, against the trader."""
    if lots > 0:
        return math.ceil(price * rules.ticks * (1.0 + slippage) - NOISE)
    return max(1, math.floor(price * rules.ticks * (1.0 - slippage) + NOISE))


@kernel
def fill_lots(sleeve: Sleeve, ticks: int, rules: Rules) -> int:
    """How much of what is wanted is filled at this price: all of it, or on spot what the cash pays for."""
    want = sleeve.plan.want
    return affordable(want, sleeve.book.cash, ticks, rules.fee_ppm, rules) if want > 0 and not rules.shorts else want


@kernel
def fill_at_open(sleeve: Sleeve, stats: Stats, open: float, typical: float, rules: Rules) -> tuple[Sleeve, Stats]:
    """Fill what is wanted at this open; what cannot be paid for lapses. `typical` is the mean true range before it."""
    ticks = fill_ticks(open, sleeve.plan.want, rules)
    lots = fill_lots(sleeve, ticks, rules)
    if lots != 0:
        sleeve, stats = filled(sleeve, stats, lots, ticks, rules.fee_ppm, typical, rules)
    return lapsed(sleeve), stats


@kernel
def filled(
    sleeve: Sleeve, stats: Stats, lots: int, ticks: int, fee_ppm: int, typical: float, rules: Rules
) -> tuple[Sleeve, Stats]:
    """Book a fill of `lots` (signed, not 0) at this price, as two when it turns a position."""
    notional = abs(lots) * ticks * rules.unit
    fee = fee_on(notional, fee_ppm, rules.min_fee)
    held = sleeve.book.lots
    if (held > 0 and held + lots < 0) or (held < 0 and held + lots > 0):  # a trade ends here and another begins
        closing = abs(held) * ticks * rules.unit
        closing_fee = share_of(fee, abs(held), abs(lots))
        sleeve, stats = booked(sleeve, stats, -held, closing, closing_fee, typical, rules)
        lots, notional, fee = lots + held, notional - closing, fee - closing_fee
    return booked(sleeve, stats, lots, notional, fee, typical, rules)


@kernel
def booked(
    sleeve: Sleeve, stats: Stats, lots: int, notional: int, fee: int, typical: float, rules: Rules
) -> tuple[Sleeve, Stats]:
    """Book one fill of `lots` (signed, never from long to short at once) for `notional` and `fee` (ledger units)."""
    held = sleeve.book.lots
    staked = sleeve.book.staked
    risk = sleeve.watch.risk
    book = applied(sleeve.book, lots, notional, fee)
    plan = sleeve.plan
    watch = sleeve.watch if book.lots != 0 else no_watch()
    if abs(book.lots) > abs(held):
        target = plan.target if held == 0 else watch.target
        watch = watched(watch, target, held, lots, notional, typical, rules)
    plan = Plan(plan.want - lots, plan.acted, plan.lock, plan.reason, plan.target)
    return Sleeve(book, plan, watch, sleeve.refused), with_fill(stats, book.cash - staked, risk, book.lots == 0)


@kernel
def watched(watch: Watch, target: Target, held: int, lots: int, notional: int, typical: float, rules: Rules) -> Watch:
    """The watch on a position of `held` lots that grows by `lots`: its mean entry, and what is at stake."""
    price = float(notional) / float(abs(lots) * rules.unit) / rules.ticks
    entry = price
    if held != 0:
        entry = (watch.entry * float(abs(held)) + price * float(abs(lots))) / float(abs(held) + abs(lots))
    distance = target.stop if target.stop > 0.0 else typical
    if not distance > 1.0 / rules.ticks:  # a market that does not move: a tick is the least that can be lost
        distance = 1.0 / rules.ticks
    is_armed = target.stop > 0.0 or target.take_profit > 0.0 or target.trail > 0.0 or target.max_bars > 0
    best = price if held == 0 else watch.best
    risk = watch.risk + distance * rules.ticks * float(abs(lots)) * float(rules.unit)
    return Watch(is_armed, target, entry, best, watch.bars, distance, risk)


@kernel
def share_of(fee: int, part: int, whole: int) -> int:
    """What a part of an order pays of its fee."""
    return int(float(fee) * (float(part) / float(whole)) + 0.5)


@kernel
def lapsed(sleeve: Sleeve) -> Sleeve:
    """What is still wanted is not wanted any more."""
    plan = sleeve.plan
    return Sleeve(sleeve.book, Plan(0, plan.acted, plan.lock, plan.reason, plan.target), sleeve.watch, sleeve.refused)


@kernel
def at_close(
    sleeve: Sleeve, stats: Stats, close: float, target: Target, may_trade: bool, rules: Rules
) -> tuple[Sleeve, Stats]:
    """Mark the book, judge the exits, and turn the target into a want. `may_trade` False: nothing new is begun."""
    equity = equity_at(sleeve.book, int(close * rules.ticks + 0.5), rules.unit)
    if equity != stats.equity:
        stats = with_equity(stats, equity)
    if sleeve.watch.is_armed:
        sleeve = judged(sleeve, close)
    return decided(sleeve, stats, equity, close, target, may_trade, rules)


@kernel
def decided(
    sleeve: Sleeve, stats: Stats, equity: int, close: float, target: Target, may_trade: bool, rules: Rules
) -> tuple[Sleeve, Stats]:
    """Turn the target into a want, when it is another than the one that was acted on."""
    exposure = target.exposure
    if sleeve.plan.lock != 0:
        if exposure * float(sleeve.plan.lock) > 0.0:
            exposure = 0.0
            target = NO_EXITS
        else:
            sleeve = unlocked(sleeve)
    if exposure != sleeve.plan.acted and sleeve.plan.want == 0:
        if exposure < 0.0 and not rules.shorts:
            stats = with_short_refused(stats)
        sleeve = planned(sleeve, exposure, target, equity, close, may_trade, rules)
    return sleeve, stats


@kernel
def judged(sleeve: Sleeve, close: float) -> Sleeve:
    """Whether this close ends the position. If so the sleeve is locked, which makes its exposure 0."""
    watch = sleeve.watch
    target = watch.target
    side = 1.0 if sleeve.book.lots > 0 else -1.0
    best = close if (close - watch.best) * side > 0.0 else watch.best
    bars = watch.bars + 1
    gain = (close - watch.entry) * side
    reason = SIGNAL
    if target.stop > 0.0 and gain <= -target.stop:
        reason = STOP
    elif target.trail > 0.0 and (best - close) * side >= target.trail:
        reason = TRAIL
    elif target.take_profit > 0.0 and gain >= target.take_profit:
        reason = TAKE_PROFIT
    elif target.max_bars > 0 and bars >= target.max_bars:
        reason = MAX_BARS
    plan = sleeve.plan
    if reason != SIGNAL and plan.lock == 0:
        plan = Plan(plan.want, plan.acted, 1 if sleeve.book.lots > 0 else -1, reason, plan.target)
    watch = Watch(watch.is_armed, target, watch.entry, best, bars, watch.distance, watch.risk)
    return Sleeve(sleeve.book, plan, watch, sleeve.refused)


@kernel
def unlocked(sleeve: Sleeve) -> Sleeve:
    """The strategy's exposure has been 0 or has changed sign since the exit: it may enter again."""
    plan = sleeve.plan
    return Sleeve(sleeve.book, Plan(plan.want, plan.acted, 0, plan.reason, plan.target), sleeve.watch, sleeve.refused)


@kernel
def planned(
    sleeve: Sleeve, exposure: float, target: Target, equity: int, close: float, may_trade: bool, rules: Rules
) -> Sleeve:
    """Fix the quantity that brings the sleeve to `exposure` of its `equity`, to be filled at the next open."""
    book = sleeve.book
    plan = sleeve.plan
    if not -1.0 <= exposure <= 1.0:
        return refusing(sleeve, NOT_AN_EXPOSURE)
    if target.limit > 0.0 or target.trigger > 0.0:
        if not rules.rests:
            return refusing(sleeve, CANNOT_REST)
        if target.limit > 0.0 and target.trigger > 0.0:
            return refusing(sleeve, TWO_PRICES)
    if target.stop < 0.0 or target.take_profit < 0.0 or target.trail < 0.0 or target.max_bars < 0:
        return refusing(sleeve, NO_DISTANCE)
    wanted = 0 if exposure == 0.0 or (exposure < 0.0 and not rules.shorts) else lots_for(exposure, equity, close, rules)
    wanted = permitted(wanted, book.lots, may_trade)
    order = wanted - book.lots
    top = rules.top if rules.top > 0.0 else close * rules.ticks
    if not fits(abs(wanted) + abs(order), top, rules.unit, book.cash):
        return refusing(sleeve, TOO_LARGE)
    if not is_worth_sending(order, wanted, close, rules):
        order = 0
    reason = plan.reason if wanted == 0 and book.lots != 0 else SIGNAL  # an exit, when one was judged
    return Sleeve(book, Plan(order, exposure, plan.lock, reason, target), sleeve.watch, sleeve.refused)


@kernel
def refusing(sleeve: Sleeve, why: int) -> Sleeve:
    """The sleeve cannot go on. It wants something that is never filled, so that a loop which looks only at wants looks."""
    plan = sleeve.plan
    return Sleeve(sleeve.book, Plan(1, plan.acted, plan.lock, plan.reason, plan.target), sleeve.watch, why)
