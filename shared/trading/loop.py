"""One run over many bars, written once. `bound` puts functions in; Python runs it, or numba compiles it.

A strategy's `start` and `step` are put in, and what happens on a bar. That comes in two kinds of the same form: the
plain one here, which is what the engine does (`fills`), and a venue in detail (`matching`). Which of them a run needs
is known before it begins, so a plain run carries nothing of the other, in its loop or while it compiles.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

from shared.trading.fills import NOTE, Account, Sleeve, at_close, fill_at_open, fill_ticks, opened
from shared.trading.indicators import true_range
from shared.trading.kernel import kernel
from shared.trading.performance import begun
from shared.trading.scales import Rules
from shared.trading.values import Bar, Regime, Target

Column = Sequence[float]
MOST_RISK = 4e18  # ledger units that fit an integer; a stop may be as far away as it likes
TYPICAL_BARS = 14  # the ATR's usual length; the risk of a trade without a stop is one of these


@kernel
def typical_range(high: Column, low: Column, close: Column, last: int) -> float:
    """The plain mean of the true ranges of the up to 14 bars that end at index `last`. NaN before the first bar."""
    first = max(last - TYPICAL_BARS + 1, 0)
    total = 0.0
    before = close[first - 1] if first > 0 else math.nan
    for i in range(first, last + 1):
        total += true_range(high[i], low[i], before)
        before = close[i]
    return total / float(last + 1 - first) if last >= first else math.nan


@kernel
def needs_typical(sleeve: Sleeve) -> bool:
    """Whether the want makes a position larger whose risk is not told by a stop. Asked before the 14 bars are read."""
    held = sleeve.book.lots
    after = held + sleeve.plan.want
    if after == 0 or (held != 0 and (held > 0) == (after > 0) and abs(after) <= abs(held)):
        return False
    return not (sleeve.plan.target.stop > 0.0 and (held == 0 or sleeve.watch.target.stop > 0.0))


@kernel
def noted(notes: list[int], written: int, i: int, lots: int, ticks: int, fee: int, reason: int, risk: float) -> int:
    """Note a fill where there is room; the numbers that are written then. `risk` is of the position after it."""
    if written + NOTE > len(notes):
        return written
    notes[written] = i
    notes[written + 1] = lots
    notes[written + 2] = ticks
    notes[written + 3] = fee
    notes[written + 4] = reason
    notes[written + 5] = int(risk + 0.5) if risk < MOST_RISK else int(MOST_RISK)
    return written + NOTE


@kernel
def opening(cash: int, rules: Rules) -> Account:
    """The account before the first bar, with `cash` in ledger units."""
    return Account(opened(cash), begun(cash), 0)


@kernel
def opened_bar(
    account: Account, i: int, open: Column, high: Column, low: Column, close: Column, rules: Rules, notes: list[int]
) -> Account:
    """Fill what is wanted at the open of bar `i`."""
    before = account.sleeve
    typical = typical_range(high, low, close, i - 1) if needs_typical(before) else math.nan
    sleeve, stats = fill_at_open(before, account.stats, open[i], typical, rules)
    written = account.written
    lots = sleeve.book.lots - before.book.lots
    if lots != 0:
        fee = sleeve.book.fees - before.book.fees
        ticks = fill_ticks(open[i], before.plan.want, rules)
        written = noted(notes, written, i, lots, ticks, fee, before.plan.reason, sleeve.watch.risk)
    return Account(sleeve, stats, written)


@kernel
def closed_bar(
    account: Account,
    i: int,
    opened_at: Sequence[int],
    open: Column,
    high: Column,
    low: Column,
    close: Column,
    volume: Column,
    target: Target,
    may_trade: bool,
    rules: Rules,
    notes: list[int],
) -> Account:
    """Mark the book at the close of bar `i`, judge the exits, and want what the target says."""
    sleeve, stats = at_close(account.sleeve, account.stats, close[i], target, may_trade, rules)
    return Account(sleeve, stats, account.written)


# `bound` puts a strategy's own, and numba's, in the place of these.
def start(params: Any) -> Any: ...
def step(state: Any, bar: Bar, regime: Regime, params: Any) -> tuple[Any, Target]: ...
def lent(owner: Any) -> Any:
    """The owner itself; compiled, the same with rings that are not counted."""
    return owner


def unpacked(table: Any, row: int, like: Any) -> Any: ...
def pack(table: Any, row: int, value: Any) -> None: ...


def run(
    opened_at: Sequence[int],
    open: Column,
    high: Column,
    low: Column,
    close: Column,
    volume: Column,
    bull: Column,
    bear: Column,
    chop: Column,
    params: Any,
    owner: Any,
    purse: Any,
    rules: Any,
    trade_from: int,
    notes: list[int],
) -> tuple[Sleeve, Any, int, bool]:
    """Step a strategy over columns of bars and trade what it wants.

    Regimes are columns of the same length, or of length 1. `owner` is the state to begin with and `purse` the account;
    both are consumed, and must live as long as the loop runs. Orders are made from bar `trade_from` on. `notes` takes
    `NOTE` numbers for each fill, as many as there is room for.

    Nothing else is told bar by bar: a curve follows from the fills, and a test or a store a bar is 5 % of the loop.
    Returns the sleeve, its sums, how many numbers were noted, and whether the strategy raised. That is caught here and in
    no frame further out: an exception leaks what the compiled frames that it passes hold, and no ring is held here.
    """
    state = lent(owner)
    account = lent(purse)
    rules = lent(rules)
    with_regime = 1 if len(bull) > 1 else 0
    raised = False
    try:
        for i in range(len(close)):
            if account.sleeve.plan.want != 0:
                if account.sleeve.refused != 0:
                    break
                account = opened_bar(account, i, open, high, low, close, rules, notes)
            k = i * with_regime
            bar = Bar(opened_at[i], open[i], high[i], low[i], close[i], volume[i])
            state, target = step(state, bar, Regime(bull[k], bear[k], chop[k]), params)
            account = closed_bar(
                account, i, opened_at, open, high, low, close, volume, target, i >= trade_from, rules, notes
            )
    except Exception:  # noqa: BLE001 - found again, interpreted, by who asked
        raised = True
    return account.sleeve, account.stats, account.written, raised


def rows(
    opened_at: Sequence[int],
    open: Column,
    high: Column,
    low: Column,
    close: Column,
    volume: Column,
    bull: Column,
    bear: Column,
    chop: Column,
    table: Any,
    like: Any,
    cash: int,
    rules: Any,
    trade_from: Sequence[int],
    notes: list[int],
    told: Any,
) -> None:
    """Run each row of a table of parameters, and write what came of it to the same row of `told`.

    `like` shows what a row's numbers are.
    """
    for row in range(len(trade_from)):
        params = unpacked(table, row, like)
        owner, purse = start(params), opening(cash, rules)
        result = run(
            opened_at,
            open,
            high,
            low,
            close,
            volume,
            bull,
            bear,
            chop,
            params,
            owner,
            purse,
            rules,
            trade_from[row],
            notes,
        )
        pack(told, row, result)


def follow(
    opened_at: Sequence[int],
    open: Column,
    high: Column,
    low: Column,
    close: Column,
    volume: Column,
    exposure: Column,
    stop: Column,
    take_profit: Column,
    trail: Column,
    max_bars: Sequence[int],
    limit: Column,
    trigger: Column,
    purse: Any,
    rules: Any,
    trade_from: int,
    notes: list[int],
) -> tuple[Sleeve, Any, int]:
    """The same as `run` with targets that somebody else decided, one for each bar."""
    account = lent(purse)
    rules = lent(rules)
    for i in range(len(close)):
        if account.sleeve.plan.want != 0:
            if account.sleeve.refused != 0:
                break
            account = opened_bar(account, i, open, high, low, close, rules, notes)
        target = Target(exposure[i], stop[i], take_profit[i], trail[i], max_bars[i], limit[i], trigger[i])
        account = closed_bar(
            account, i, opened_at, open, high, low, close, volume, target, i >= trade_from, rules, notes
        )
    return account.sleeve, account.stats, account.written


def bound(function: types.FunctionType, **names: Callable[..., Any]) -> types.FunctionType:
    """The same code with these functions in the place of the names above."""
    return types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
