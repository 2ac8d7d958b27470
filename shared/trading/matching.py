"""One bar at a venue in detail, for backtests: orders that rest, exits inside the bar, a share of the volume, funding.

The order of events, `docs/fills.md` with its reasons:

    before the open  borrowing since the bar before, funding up to now
    at the open      market orders (`next_open`); exits that the open has already passed
    inside the bar   funding, on what is held now; a limit or a trigger; exits, the stop before the target
    at the close     market orders (`next_close`); the mark; exits by age or, `on_close`, by the close; the new target;
                     its market order, if it is filled at this very close (`same_close`)

The strategy never sees any of it, so a bar is played at once, when it has closed. Under plain terms this does what
`fills` does, to the last unit: a property test holds the two together.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.trading.exits import Exit, aged, exit_at_open, exit_inside, resting_ticks, with_best
from shared.trading.fills import (
    BORROWING,
    FUNDING,
    NO_EXITS,
    NOISE,
    TOO_LARGE,
    Plan,
    Sleeve,
    decided,
    filled,
    judged,
    opened,
    refusing,
    slipped_ticks,
)
from shared.trading.frictions import (
    NEXT_CLOSE,
    NEXT_OPEN,
    SAME_CLOSE,
    Frictions,
    Weather,
    borrowing_cost,
    fee_rate,
    funding_cost,
    room,
    slippage_of,
    weather,
    weather_step,
    whole_units,
)
from shared.trading.kernel import kernel
from shared.trading.ledger import Book, equity_at, fits
from shared.trading.loop import Series, bar_of, needs_typical, noted, typical_range
from shared.trading.performance import Stats, begun, with_charge, with_equity
from shared.trading.risk import affordable
from shared.trading.scales import Rules
from shared.trading.values import Bar, Target


class VenueAccount(NamedTuple):
    """What a run keeps from bar to bar."""

    sleeve: Sleeve
    stats: Stats
    written: int  # numbers that were noted
    traded: float  # notional so far, ledger units
    taken: int  # lots of this bar's volume
    fills: int  # in this bar
    funded: int  # funding times that are over
    weather: Weather


@kernel
def opening(cash: int, f: Frictions) -> VenueAccount:
    """The account before the first bar, with `cash` in ledger units."""
    return VenueAccount(opened(cash), begun(cash), 0, 0.0, 0, 0, 0, weather(f))


@kernel
def opened_bar(a: VenueAccount, i: int, bars: Series, f: Frictions, notes: list[int]) -> VenueAccount:
    """Nothing: `closed_bar` plays the whole bar."""
    return a


@kernel
def closed_bar(
    a: VenueAccount, i: int, bars: Series, target: Target, may_trade: bool, f: Frictions, notes: list[int]
) -> VenueAccount:
    """Play bar `i` and, at its close, want what the target says."""
    bar = bar_of(bars, i)
    typical = math.nan
    if a.sleeve.plan.want != 0 and needs_typical(a.sleeve):
        typical = typical_range(bars.high, bars.low, bars.close, i - 1)
    a = VenueAccount(a.sleeve, a.stats, a.written, a.traded, 0, 0, a.funded, a.weather)
    if i > 0 and f.borrow_ms > 0.0 and a.sleeve.book.lots < 0:
        a = borrowed(a, i, bars.close[i - 1], bar.opened_at_ms - bars.opened_at_ms[i - 1], f, notes)
    a = funded(a, i, bar.open, bar.opened_at_ms, f, notes)
    if a.sleeve.plan.want != 0 and f.fill == NEXT_OPEN and not is_resting(a.sleeve.plan.target):
        a = traded(a, i, bar, bar.open, 0, typical, f, notes)
    if f.exits_rest:
        a = left(a, i, bar, exit_at_open(a.sleeve, bar, f.rules), f, notes)
    a = funded(a, i, bar.open, bar.opened_at_ms + f.bar_ms - 1, f, notes)
    is_inside = False
    if a.sleeve.plan.want != 0 and is_resting(a.sleeve.plan.target):
        a, is_inside = rested(a, i, bar, typical, f, notes)
    if f.exits_rest:
        a = left(a, i, bar, exit_inside(a.sleeve, bar, is_inside, f.rules), f, notes)
        a = with_sleeve(a, with_best(a.sleeve, bar, is_inside))
    if f.slippage.is_on:
        a = with_weather(a, weather_step(a.weather, bar, f))
    if a.sleeve.plan.want != 0 and f.fill == NEXT_CLOSE:
        a = traded(a, i, bar, bar.close, 0, typical, f, notes)
    a = concluded(a, bar, target, may_trade, f)
    if f.fill == SAME_CLOSE:
        if a.sleeve.plan.want != 0 and a.sleeve.refused == 0 and not is_resting(a.sleeve.plan.target):
            typical = typical_range(bars.high, bars.low, bars.close, i) if needs_typical(a.sleeve) else math.nan
            a = traded(a, i, bar, bar.close, 0, typical, f, notes)
        a = marked(a, bar.close, f.rules)
    return a


@kernel
def traded(
    a: VenueAccount, i: int, bar: Bar, price: float, limit: int, typical: float, f: Frictions, notes: list[int]
) -> VenueAccount:
    """Fill what is wanted: at the market around `price`, or at `limit` ticks as one who rested there.

    What the bar's volume has no room for stays wanted; what cannot be paid for lapses.
    """
    plan = a.sleeve.plan
    book = a.sleeve.book
    rules = f.rules
    lots = room(plan.want, a.taken, bar.volume, f)
    rest = plan.want - lots
    rate = fee_rate(a.traded, limit > 0, f)
    ticks = limit
    if limit == 0:
        notional = float(abs(lots)) * price * rules.ticks * float(rules.unit)
        ticks = slipped_ticks(price, lots, slippage_of(notional, bar, a.fills, a.weather, f), rules)
    if lots > 0 and not rules.shorts:
        paid = affordable(lots, book.cash, ticks, rate, rules)
        if paid < lots:
            lots, rest = paid, 0
    if lots == 0:
        return with_sleeve(a, wanting(a.sleeve, rest))
    sleeve, stats = filled(a.sleeve, a.stats, lots, ticks, rate, typical, rules)
    fee = sleeve.book.fees - book.fees
    written = noted(notes, a.written, i, lots, ticks, fee, plan.reason, sleeve.watch.risk)
    notional = float(abs(lots)) * float(ticks) * float(rules.unit)
    return VenueAccount(
        wanting(sleeve, rest),
        stats,
        written,
        a.traded + notional,
        a.taken + abs(lots),
        a.fills + 1,
        a.funded,
        a.weather,
    )


@kernel
def rested(
    a: VenueAccount, i: int, bar: Bar, typical: float, f: Frictions, notes: list[int]
) -> tuple[VenueAccount, bool]:
    """Fill the limit or trigger that rests during this bar, if the bar comes to it, and whether that was inside it.

    Touching is enough for a trigger, a limit must be passed. What was not filled is wanted again at the close, if the
    target is still the same then.
    """
    want = a.sleeve.plan.want
    target = a.sleeve.plan.target
    price = 0.0  # none was reached
    limit = 0
    is_inside = False
    if target.limit > 0.0:
        limit = resting_ticks(target.limit, want, bar, f.rules)
        at_open = slipped_ticks(bar.open, want, 0.0, f.rules)
        if (want > 0 and at_open <= limit) or (want < 0 and at_open >= limit):
            price = bar.open
            limit = at_open
        elif (want > 0 and bar.low * f.rules.ticks < float(limit) - NOISE) or (
            want < 0 and bar.high * f.rules.ticks > float(limit) + NOISE
        ):
            price = target.limit
            is_inside = True
    elif (want > 0 and bar.open >= target.trigger) or (want < 0 and bar.open <= target.trigger):
        price = bar.open
    elif (want > 0 and bar.high >= target.trigger) or (want < 0 and bar.low <= target.trigger):
        price = target.trigger
        is_inside = True
    if price > 0.0:
        a = traded(a, i, bar, price, limit, typical, f, notes)
        if a.sleeve.plan.want == 0:
            return a, is_inside
    return with_sleeve(a, forgotten(a.sleeve)), is_inside


@kernel
def left(a: VenueAccount, i: int, bar: Bar, exit: Exit, f: Frictions, notes: list[int]) -> VenueAccount:
    """Leave the position so. What the volume has no room for is left at the market, from the close on."""
    if exit.reason == 0:
        return a
    s = a.sleeve
    plan = Plan(-s.book.lots, s.plan.acted, 1 if s.book.lots > 0 else -1, exit.reason, NO_EXITS)
    a = traded(
        with_sleeve(a, Sleeve(s.book, plan, s.watch, s.refused)), i, bar, exit.price, exit.limit, math.nan, f, notes
    )
    return with_sleeve(a, forgotten(a.sleeve))


@kernel
def concluded(a: VenueAccount, bar: Bar, target: Target, may_trade: bool, f: Frictions) -> VenueAccount:
    """Mark the book, judge what is judged on closes, and turn the target into a want.

    The rest of an order that the volume had no room for is kept as long as the target is the one that made it.
    """
    if f.fill != SAME_CLOSE:  # else the mark comes after the fill
        a = marked(a, bar.close, f.rules)
    sleeve = a.sleeve
    if sleeve.watch.is_armed:
        sleeve = aged(sleeve) if f.exits_rest else judged(sleeve, bar.close)
    if sleeve.plan.want != 0 and (sleeve.plan.lock != 0 or target.exposure != sleeve.plan.acted):
        sleeve = forgotten(sleeve)
    equity = equity_at(sleeve.book, int(bar.close * f.rules.ticks + 0.5), f.rules.unit)
    sleeve, stats = decided(sleeve, a.stats, equity, bar.close, target, may_trade, f.rules)
    return VenueAccount(sleeve, stats, a.written, a.traded, a.taken, a.fills, a.funded, a.weather)


@kernel
def borrowed(a: VenueAccount, i: int, price: float, since_ms: int, f: Frictions, notes: list[int]) -> VenueAccount:
    """Pay for what was owed since the bar before, at its close."""
    cost = borrowing_cost(a.sleeve.book.lots, price, f.borrow_ms, since_ms, f.rules)
    return charged(a, i, cost, BORROWING, f, notes)


@kernel
def funded(a: VenueAccount, i: int, price: float, until_ms: int, f: Frictions, notes: list[int]) -> VenueAccount:
    """Pay or receive funding at all times up to `until_ms`, on what is held now at this price."""
    k = a.funded
    while k < len(f.funding_at) and f.funding_at[k] <= float(until_ms):
        if a.sleeve.book.lots != 0:
            a = charged(a, i, funding_cost(a.sleeve.book.lots, price, f.funding_rate[k], f.rules), FUNDING, f, notes)
        k += 1
    return VenueAccount(a.sleeve, a.stats, a.written, a.traded, a.taken, a.fills, k, a.weather)


@kernel
def charged(a: VenueAccount, i: int, cost: float, reason: int, f: Frictions, notes: list[int]) -> VenueAccount:
    """Take `cost` (ledger units, rounded half up; negative: give) from the cash."""
    amount = whole_units(cost)
    if amount == 0:
        return a
    s = a.sleeve
    book = Book(s.book.cash - amount, s.book.lots, s.book.staked, s.book.fees)
    sleeve = Sleeve(book, s.plan, s.watch, s.refused)
    if not fits(book.lots, f.rules.top, f.rules.unit, book.cash):
        sleeve = refusing(sleeve, TOO_LARGE)
    written = noted(notes, a.written, i, 0, 0, amount, reason, s.watch.risk)
    return VenueAccount(sleeve, with_charge(a.stats, amount), written, a.traded, a.taken, a.fills, a.funded, a.weather)


@kernel
def marked(a: VenueAccount, close: float, rules: Rules) -> VenueAccount:
    """What the account is worth at this close."""
    equity = equity_at(a.sleeve.book, int(close * rules.ticks + 0.5), rules.unit)
    stats = with_equity(a.stats, equity) if equity != a.stats.equity else a.stats
    return VenueAccount(a.sleeve, stats, a.written, a.traded, a.taken, a.fills, a.funded, a.weather)


@kernel
def is_resting(target: Target) -> bool:
    """Whether an order toward this target waits at a price."""
    return target.limit > 0.0 or target.trigger > 0.0


@kernel
def wanting(sleeve: Sleeve, want: int) -> Sleeve:
    """The same sleeve, and so many lots are wanted."""
    p = sleeve.plan
    return Sleeve(sleeve.book, Plan(want, p.acted, p.lock, p.reason, p.target), sleeve.watch, sleeve.refused)


@kernel
def forgotten(sleeve: Sleeve) -> Sleeve:
    """Nothing is wanted, and any target will be a change."""
    p = sleeve.plan
    return Sleeve(sleeve.book, Plan(0, math.nan, p.lock, p.reason, p.target), sleeve.watch, sleeve.refused)


@kernel
def with_sleeve(a: VenueAccount, sleeve: Sleeve) -> VenueAccount:
    """The same account with this sleeve."""
    return VenueAccount(sleeve, a.stats, a.written, a.traded, a.taken, a.fills, a.funded, a.weather)


@kernel
def with_weather(a: VenueAccount, weather: Weather) -> VenueAccount:
    """The same account in this weather."""
    return VenueAccount(a.sleeve, a.stats, a.written, a.traded, a.taken, a.fills, a.funded, weather)
