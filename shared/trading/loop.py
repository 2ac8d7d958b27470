"""One run over many bars, written once. `bound` puts functions in; Python runs it, or numba compiles it.

A strategy's `start` and `step` are put in, and what happens on a bar. That comes in two kinds of the same form: the
plain one here, which is what the engine does (`fills`), and a venue in detail (`matching`). Which of them a run needs
is known before it begins, so a plain run carries nothing of the other, in its loop or while it compiles.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from shared.trading.fills import NOTE, Account, Sleeve, at_close, fill_at_open, fill_ticks, opened
from shared.trading.indicators import true_range
from shared.trading.kernel import kernel
from shared.trading.performance import begun
from shared.trading.scales import Rules
from shared.trading.values import Bar, Regime, Target

MOST_RISK = 4e18  # ledger units that fit an integer; a stop may be as far away as it likes
TYPICAL_BARS = 14  # the ATR's usual length; the risk of a trade without a stop is one of these


class Column(Protocol):
    """Numbers by their place: a list, an array or, compiled, what is lent of one."""

    def __len__(self) -> int: ...
    def __getitem__(self, at: int, /) -> Any: ...


class Series(NamedTuple):
    """Bars of one instrument as columns of one length, oldest first."""

    opened_at_ms: Column
    open: Column
    high: Column
    low: Column
    close: Column
    volume: Column


class Regimes(NamedTuple):
    """What the market was read as after each bar, as columns; of length 1 where it never changes."""

    bull: Column
    bear: Column
    chop: Column


@kernel
def bar_of(bars: Series, i: int) -> Bar:
    """Bar `i`."""
    return Bar(bars.opened_at_ms[i], bars.open[i], bars.high[i], bars.low[i], bars.close[i], bars.volume[i])


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
def opened_bar(account: Account, i: int, bars: Series, rules: Rules, notes: list[int]) -> Account:
    """Fill what is wanted at the open of bar `i`."""
    before = account.sleeve
    open = bars.open[i]
    typical = typical_range(bars.high, bars.low, bars.close, i - 1) if needs_typical(before) else math.nan
    sleeve, stats = fill_at_open(before, account.stats, open, typical, rules)
    written = account.written
    lots = sleeve.book.lots - before.book.lots
    if lots != 0:
        fee = sleeve.book.fees - before.book.fees
        ticks = fill_ticks(open, before.plan.want, rules)
        written = noted(notes, written, i, lots, ticks, fee, before.plan.reason, sleeve.watch.risk)
    return Account(sleeve, stats, written)


@kernel
def closed_bar(
    account: Account, i: int, bars: Series, target: Target, may_trade: bool, rules: Rules, notes: list[int]
) -> Account:
    """Mark the book at the close of bar `i`, judge the exits, and want what the target says."""
    sleeve, stats = at_close(account.sleeve, account.stats, bars.close[i], target, may_trade, rules)
    return Account(sleeve, stats, account.written)


# `bound` puts a strategy's own, and numba's, in the place of these.
def start(params: Any) -> Any: ...
def step(state: Any, bar: Bar, regime: Regime, params: Any) -> tuple[Any, Target]: ...
def lent(owner: Any) -> Any:
    """The owner itself; compiled, the same with rings that are not counted."""
    return owner


def trusted(owner: Any) -> Any:
    """Lent without asking at each index, for what the loop alone indexes."""
    return owner


def unpacked(table: Any, row: int, like: Any) -> Any: ...
def pack(table: Any, row: int, value: Any) -> None: ...


def run(
    bars: Series,
    regimes: Regimes,
    params: Any,
    state: Any,
    account: Any,
    rules: Any,
    trade_from: int,
    notes: list[int],
) -> Any:
    """Step a strategy over columns of bars and trade what it wants: the account at the end.

    `state` and `account` are those to begin with, and are consumed. Orders are made from bar `trade_from` on. `notes`
    takes `NOTE` numbers for each fill, as many as there is room for. Nothing else is told bar by bar: a curve follows
    from the fills, and a test or a store a bar is 5 % of the loop.
    """
    with_regime = 1 if len(regimes.bull) > 1 else 0
    for i in range(len(bars.close)):
        if account.sleeve.plan.want != 0:
            if account.sleeve.refused != 0:
                break
            account = opened_bar(account, i, bars, rules, notes)
        k = i * with_regime
        state, target = step(state, bar_of(bars, i), Regime(regimes.bull[k], regimes.bear[k], regimes.chop[k]), params)
        account = closed_bar(account, i, bars, target, i >= trade_from, rules, notes)
    return account


def attempt(
    bars: Series,
    regimes: Regimes,
    params: Any,
    owner: Any,
    purse: Any,
    rules: Any,
    trade_from: int,
    notes: list[int],
) -> tuple[Sleeve, Any, int, bool]:
    """The same, from an owner's state and account, which must live as long as the loop runs.

    Returns the sleeve, its sums, how many numbers were noted, and whether the strategy raised. That is caught here and in
    no frame further out: an exception leaks what the compiled frames that it passes hold, and `run` holds nothing of its
    own.
    """
    state, account = lent(owner), lent(purse)
    given = trusted(bars), trusted(regimes), params, state, account, lent(rules), trade_from, trusted(notes)
    raised, play = False, run
    try:  # numba makes a branch of each instruction in here, and four more of the name of a class to catch
        account = play(*given)
    except:  # noqa: E722 - found again, interpreted, by who asked
        raised = True
    return account.sleeve, account.stats, account.written, raised


def rows(
    bars: Series,
    regimes: Regimes,
    table: Any,
    like: Any,
    cash: int,
    rules: Any,
    trade_from: Sequence[int],
    notes: list[int],
    told: Any,
) -> None:
    """Attempt each row of a table of parameters, and write what came of it to the same row of `told`.

    `like` shows what a row's numbers are.
    """
    for row in range(len(trade_from)):
        params = unpacked(table, row, like)
        owner, purse = start(params), opening(cash, rules)
        pack(told, row, attempt(bars, regimes, params, owner, purse, rules, trade_from[row], notes))


def follow(
    bars: Series, targets: Any, purse: Any, rules: Any, trade_from: int, notes: list[int]
) -> tuple[Sleeve, Any, int]:
    """The same as `run` with targets that somebody else decided, one for each bar, as columns."""
    bars, targets, rules, notes = trusted(bars), trusted(targets), lent(rules), trusted(notes)
    account = lent(purse)
    exposure, stop, take_profit, trail, max_bars, limit, trigger = targets
    for i in range(len(bars.close)):
        if account.sleeve.plan.want != 0:
            if account.sleeve.refused != 0:
                break
            account = opened_bar(account, i, bars, rules, notes)
        target = Target(exposure[i], stop[i], take_profit[i], trail[i], max_bars[i], limit[i], trigger[i])
        account = closed_bar(account, i, bars, target, i >= trade_from, rules, notes)
    return account.sleeve, account.stats, account.written


def bound(function: types.FunctionType, **names: Callable[..., Any]) -> types.FunctionType:
    """The same code with these functions in the place of the names above."""
    return types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
