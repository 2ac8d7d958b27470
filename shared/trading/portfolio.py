"""A strategy over many instruments: one cash account, one integer ledger, and the order of events of one slice of time.

    before it     borrowing since the slice before, and funding up to now, of what is held: `carried`
    at the open   what an earlier close wanted is filled, leg by leg: `filled_at_open`
    inside        funding, on what is held now
    at the close  the account is marked, the strategy writes the weights that it wishes for, and, when it has decided,
                  they become wants: `marked`, `planned`

An instrument whose bar is absent has NaN prices: no order of it is made or filled, and what is held of it is marked at its
last close. An order whose bar is absent waits for the next one; a decision replaces all orders that wait.

Spot is never owed and never bought on credit: what is sold is booked first, and purchases that open dearer than the close
they were sized at all shrink by the same share. So nothing depends on the order in which the instruments stand.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.trading.fills import BORROWING, FUNDING, SIGNAL, fill_ticks, share_of
from shared.trading.frictions import borrowing_cost, funding_cost, whole_units
from shared.trading.kernel import kernel
from shared.trading.ledger import LIMIT, fee_on
from shared.trading.performance import Stats, with_charge, with_fill, with_short_refused
from shared.trading.risk import is_worth_sending, lots_for
from shared.trading.scales import Rules

# Why a portfolio refused to go on, by number.
TOO_LARGE, NOT_WEIGHTS = 1, 2
REFUSALS = (
    "",
    "the positions would not fit the ledger's integers: use less cash or coarser lots",
    "weights must be numbers whose sizes add up to 1 at most",
)
NOISE = 1e-9  # 50 x 0.02 is a little more than 1
NOTED = (
    6  # numbers that are noted of a fill: bar, instrument, lots, ticks, fee, reason; of a charge lots and ticks are 0
)

Row = list[float]  # one number for each instrument


class Market(NamedTuple):
    """The closed bars of one time, one for each instrument in the order of the run; NaN where a bar is absent."""

    opened_at_ms: int  # since 1970 UTC
    open: Row
    high: Row
    low: Row
    close: Row
    volume: Row


class RuleRows(NamedTuple):
    """What differs between the `Rules` of the instruments. A ledger unit is the same amount of money in all of them."""

    ticks: list[float]
    unit: list[int]
    min_notional: list[int]
    max_lots: list[int]
    shorts: list[int]  # 0 or 1
    top: list[float]


class Carry(NamedTuple):
    """What holding costs. When it is off nothing of it is looked at."""

    is_on: bool
    borrow_ms: list[float]  # (n,) fraction of what is owed, each millisecond
    funding_at: list[float]  # (m,) ms, of all instruments together, none earlier than the one before
    funding_of: list[int]  # (m,) whose it is
    funding_rate: list[float]  # (m,) of the position's worth, paid by a long
    bar_ms: int


class PortfolioRules(NamedTuple):
    """What execution must know, as numbers that compile."""

    common: Rules  # what all instruments have in common; the rest of it counts for nothing
    rows: RuleRows
    carry: Carry
    rebalance_band: float  # of the equity: a leg that is off by less is left alone
    is_one_intent: bool  # all legs are ordered and filled together, or none is


class Legs(NamedTuple):
    """What is held and wanted of every instrument. Changed in place."""

    lots: list[int]  # held, signed
    want: list[int]  # lots to trade, signed; 0: nothing
    flow: list[int]  # cash that the open trade has brought so far: its result, once it is flat
    mark: list[int]  # ticks of the last close, of what is held
    held: list[int]  # the instruments that are held, as many as `Account.held` says


class Account(NamedTuple):
    """The money that all legs share, in ledger units."""

    cash: int
    fees: int  # paid since the beginning
    held: int  # instruments of which something is held
    waiting: int  # instruments of which something is wanted
    refused: int  # 0, or why it cannot go on


@kernel
def opened_account(cash: int) -> Account:
    """An account that has never traded."""
    return Account(cash, 0, 0, 0, 0)


def no_legs(instruments: int) -> Legs:
    """Nothing is held and nothing is wanted."""
    return Legs(*([0] * instruments for _ in Legs._fields))


@kernel
def rules_of(rules: PortfolioRules, k: int) -> Rules:
    """The rules of one instrument."""
    rows = rules.rows
    return Rules(
        ticks=rows.ticks[k],
        unit=rows.unit[k],
        fee_ppm=rules.common.fee_ppm,
        min_fee=rules.common.min_fee,
        slippage=rules.common.slippage,
        min_notional=rows.min_notional[k],
        max_lots=rows.max_lots[k],
        size=0,
        exposure=1.0,
        shorts=rows.shorts[k] != 0,
        rests=False,
        top=rows.top[k],
    )


@kernel
def is_present(price: float) -> bool:
    """Whether there is a bar."""
    return not math.isnan(price)


@kernel
def is_purchase(want: int, rules: Rules) -> bool:
    """Whether it must be paid for in full: what cannot be owed is not bought on credit either."""
    return want > 0 and not rules.shorts


@kernel
def carried(
    account: Account,
    legs: Legs,
    stats: Stats,
    i: int,
    since_ms: int,
    rules: PortfolioRules,
    notes: list[int],
    written: int,
) -> tuple[Account, Stats, int]:
    """Pay for what was owed since the slice before, at the close before."""
    for j in range(account.held):
        k = legs.held[j]
        rate = rules.carry.borrow_ms[k]
        if legs.lots[k] < 0 and rate > 0.0:
            its = rules_of(rules, k)
            cost = borrowing_cost(legs.lots[k], float(legs.mark[k]) / its.ticks, rate, since_ms, its)
            account, stats, written = charged(account, legs, stats, i, k, cost, BORROWING, notes, written)
    return account, stats, written


@kernel
def funded(
    account: Account,
    legs: Legs,
    stats: Stats,
    open: Row,
    i: int,
    over: int,
    until_ms: int,
    rules: PortfolioRules,
    notes: list[int],
    written: int,
) -> tuple[Account, Stats, int, int]:
    """Pay or receive funding at all times up to `until_ms`, on what is held now, at its open or else its last close.

    `over` funding times were done before; returned last is how many are now.
    """
    carry = rules.carry
    while over < len(carry.funding_at) and carry.funding_at[over] <= float(until_ms):
        k = carry.funding_of[over]
        if legs.lots[k] != 0:
            its = rules_of(rules, k)
            price = open[k] if is_present(open[k]) else float(legs.mark[k]) / its.ticks
            cost = funding_cost(legs.lots[k], price, carry.funding_rate[over], its)
            account, stats, written = charged(account, legs, stats, i, k, cost, FUNDING, notes, written)
        over += 1
    return account, stats, written, over


@kernel
def charged(
    account: Account,
    legs: Legs,
    stats: Stats,
    i: int,
    k: int,
    cost: float,
    reason: int,
    notes: list[int],
    written: int,
) -> tuple[Account, Stats, int]:
    """Take `cost` (ledger units; negative: give) from the cash, on account of instrument `k`'s open trade."""
    amount = whole_units(cost)
    if amount == 0:
        return account, stats, written
    cash = account.cash - amount
    legs.flow[k] -= amount
    written = noted(notes, written, i, k, 0, 0, amount, reason)
    refused = account.refused if abs(float(cash)) < LIMIT else TOO_LARGE
    return Account(cash, account.fees, account.held, account.waiting, refused), with_charge(stats, amount), written


@kernel
def filled_at_open(
    account: Account,
    legs: Legs,
    stats: Stats,
    open: Row,
    i: int,
    rules: PortfolioRules,
    notes: list[int],
    written: int,
) -> tuple[Account, Stats, int]:
    """Fill what is wanted and has an open in bar `i`. One intent is filled whole or waits.

    `written` counts the numbers noted in `notes`, and goes on counting where there is no more room.
    """
    if rules.is_one_intent and is_any_absent(legs, open):
        return account, stats, written
    cost = 0
    purchases = 0
    for k in range(len(open)):
        want = legs.want[k]
        if want != 0 and is_present(open[k]):
            its = rules_of(rules, k)
            ticks = fill_ticks(open[k], want, its)
            if is_purchase(want, its):
                notional = want * ticks * its.unit
                cost += notional + fee_on(notional, its.fee_ppm, its.min_fee)
                purchases += 1
            else:
                account, stats = booked(account, legs, stats, k, want, ticks, its)
                fee = fee_on(abs(want) * ticks * its.unit, its.fee_ppm, its.min_fee)
                written = noted(notes, written, i, k, want, ticks, fee, SIGNAL)
    share = affordable_share(cost, account.cash, purchases, rules.common.min_fee)
    waiting = 0
    held = 0
    for k in range(len(open)):
        want = legs.want[k]
        if want != 0:
            if is_present(open[k]):
                its = rules_of(rules, k)
                if is_purchase(want, its):
                    lots = want if share == 1.0 else int(float(want) * share)
                    ticks = fill_ticks(open[k], lots, its)
                    if lots != 0:
                        account, stats = booked(account, legs, stats, k, lots, ticks, its)
                        fee = fee_on(lots * ticks * its.unit, its.fee_ppm, its.min_fee)
                        written = noted(notes, written, i, k, lots, ticks, fee, SIGNAL)
                legs.want[k] = 0
            else:
                waiting += 1
        if legs.lots[k] != 0:
            legs.held[held] = k
            held += 1
    return Account(account.cash, account.fees, held, waiting, account.refused), stats, written


@kernel
def is_any_absent(legs: Legs, open: Row) -> bool:
    """Whether a leg that is wanted has no open now."""
    absent = 0
    for k in range(len(open)):
        if legs.want[k] != 0 and not is_present(open[k]):
            absent += 1
    return absent != 0


@kernel
def affordable_share(cost: int, cash: int, purchases: int, min_fee: int) -> float:
    """The part of all purchases that the cash pays for, fees included; 1.0 when it is all of them."""
    if cost == 0 or cost <= cash:
        return 1.0
    # Less what floats may blur, and what a fee can be above its part of the purchase: its rounding, and the least fee.
    purse = float(cash) * (1.0 - 1e-12) - float(purchases) * (1.0 + float(min_fee))
    return max(purse, 0.0) / float(cost)


@kernel
def booked(
    account: Account, legs: Legs, stats: Stats, k: int, lots: int, ticks: int, rules: Rules
) -> tuple[Account, Stats]:
    """Book one fill of `lots` (signed) of instrument `k`. A trade runs from flat to flat, or to the other side."""
    worth = lots * ticks * rules.unit
    fee = fee_on(abs(worth), rules.fee_ppm, rules.min_fee)
    before = legs.lots[k]
    after = before + lots
    flow = legs.flow[k] - worth - fee
    result = flow
    is_closed = after == 0
    if (before > 0 and after < 0) or (before < 0 and after > 0):
        result = legs.flow[k] + before * ticks * rules.unit - share_of(fee, abs(before), abs(lots))
        stats = with_fill(stats, result, 0.0, True)
    else:
        stats = with_fill(stats, result, 0.0, is_closed)
        if not is_closed:
            result = 0
    legs.lots[k] = after
    legs.flow[k] = flow - result
    return Account(
        account.cash - worth - fee, account.fees + fee, account.held, account.waiting, account.refused
    ), stats


@kernel
def noted(notes: list[int], written: int, i: int, k: int, lots: int, ticks: int, fee: int, reason: int) -> int:
    """Note one fill or charge where there is room for it."""
    if written + NOTED <= len(notes):
        notes[written] = i
        notes[written + 1] = k
        notes[written + 2] = lots
        notes[written + 3] = ticks
        notes[written + 4] = fee
        notes[written + 5] = reason
    return written + NOTED


@kernel
def marked(account: Account, legs: Legs, close: Row, rows: RuleRows) -> int:
    """The equity at these closes in ledger units; exact, so in any order."""
    equity = account.cash
    for j in range(account.held):
        k = legs.held[j]
        mark = legs.mark[k]
        if is_present(close[k]):
            mark = int(close[k] * rows.ticks[k] + 0.5)
            legs.mark[k] = mark
        equity += legs.lots[k] * mark * rows.unit[k]
    return equity


@kernel
def planned(
    account: Account,
    legs: Legs,
    stats: Stats,
    weights: Row,
    equity: int,
    close: Row,
    rules: PortfolioRules,
) -> tuple[Account, Stats]:
    """Fix the quantities that bring every instrument to its weight of the `equity`, to be filled at the next open.

    A leg that is off by less than the rebalance band is left as it is, unless it shall end. Of one intent, all legs that
    shall be held can be ordered or none is.
    """
    gross = 0.0
    worst = abs(float(account.cash))
    waiting = 0
    is_whole = True
    for k in range(len(weights)):
        weight = weights[k]
        held = legs.lots[k]
        order = 0
        if weight != 0.0 or held != 0:
            gross += abs(weight)
            its = rules_of(rules, k)
            if weight < 0.0 and not its.shorts:
                stats = with_short_refused(stats)
            top = its.top
            if is_present(close[k]):
                if gross <= 1.0 + NOISE:  # false of NaN as well, of which nothing may be made
                    order = ordered(weight, held, equity, close[k], its, rules.rebalance_band)
                if top == 0.0:
                    top = close[k] * its.ticks
            if weight != 0.0 and held + order == 0:
                is_whole = False
            worst += (abs(float(held)) + 2.0 * abs(float(order))) * top * float(its.unit)
        legs.want[k] = order
        if order != 0:
            waiting += 1
    refused = 0
    if not gross <= 1.0 + NOISE:
        refused = NOT_WEIGHTS
    elif not worst < LIMIT:
        refused = TOO_LARGE
    if refused != 0 or (rules.is_one_intent and not is_whole):
        waiting = 0
        for k in range(len(weights)):
            legs.want[k] = 0
    return Account(account.cash, account.fees, account.held, waiting, refused), stats


@kernel
def ordered(weight: float, held: int, equity: int, close: float, rules: Rules, rebalance_band: float) -> int:
    """The lots to trade of one instrument so that it has its weight."""
    if weight == 0.0 or (weight < 0.0 and not rules.shorts):
        return -held
    if held != 0 and equity > 0:
        now = float(held) * close * rules.ticks * float(rules.unit) / float(equity)
        if abs(now - weight) < rebalance_band:
            return 0
    wanted = lots_for(weight, equity, close, rules)
    order = wanted - held
    return order if is_worth_sending(order, wanted, close, rules) else 0
