"""One run over many bars, written once. `bound` puts a strategy's functions in; Python runs it, or numba compiles it."""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Sequence
from typing import Any

from shared.trading.fills import Sleeve, at_close, fill_at_open, fill_ticks, opened
from shared.trading.indicators import true_range
from shared.trading.kernel import kernel
from shared.trading.performance import Stats, begun
from shared.trading.scales import Rules
from shared.trading.values import Bar, Regime, Target

Column = Sequence[float]
TYPICAL_BARS = 14  # the ATR's usual length; the risk of a trade without a stop is one of these


@kernel
def typical_range(high: Column, low: Column, close: Column, last: int) -> float:
    """The plain mean of the true ranges of the up to 14 bars that end at index `last`. NaN before the first bar."""
    first = max(last - TYPICAL_BARS + 1, 0)
    total = 0.0
    for i in range(first, last + 1):
        total += true_range(high[i], low[i], close[i - 1] if i > 0 else math.nan)
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
def opened_bar(
    sleeve: Sleeve,
    stats: Stats,
    i: int,
    open: Column,
    high: Column,
    low: Column,
    close: Column,
    rules: Rules,
    fills: list[int],
    written: int,
) -> tuple[Sleeve, Stats, int]:
    """Fill what is wanted at the open of bar `i`, and note it where there is room."""
    typical = typical_range(high, low, close, i - 1) if needs_typical(sleeve) else math.nan
    before = sleeve
    sleeve, stats = fill_at_open(sleeve, stats, open[i], typical, rules)
    if written + 5 <= len(fills) and sleeve.book.lots != before.book.lots:
        fills[written] = i
        fills[written + 1] = sleeve.book.lots - before.book.lots
        fills[written + 2] = fill_ticks(open[i], before.plan.want, rules)
        fills[written + 3] = sleeve.book.fees - before.book.fees
        fills[written + 4] = before.plan.reason
        written += 5
    return sleeve, stats, written


# `bound` puts a strategy's own in the place of these.
def step(state: Any, bar: Bar, regime: Regime, params: Any) -> tuple[Any, Target]: ...
def lent(state: Any) -> Any: ...


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
    rules: Rules,
    cash: int,
    trade_from: int,
    fills: list[int],
) -> tuple[Sleeve, Stats, int]:
    """Step a strategy over columns of bars and trade what it wants.

    Regimes are columns of the same length, or of length 1. `owner` is the state to begin with; it is consumed, and
    must live as long as the loop runs. Orders are made from bar `trade_from` on. `fills` takes five numbers each (bar,
    lots, ticks, fee, reason), as many as there is room for.

    Nothing else is told bar by bar: a curve follows from the fills, and a test or a store a bar is 5 % of the loop.
    Returns the sleeve, its sums, and how many numbers were written to `fills`.
    """
    state = lent(owner)
    sleeve = opened(cash)
    stats = begun(cash)
    with_regime = 1 if len(bull) > 1 else 0
    written = 0
    for i in range(len(close)):
        if sleeve.plan.want != 0:
            if sleeve.refused != 0:
                break
            sleeve, stats, written = opened_bar(sleeve, stats, i, open, high, low, close, rules, fills, written)
        k = i * with_regime
        bar = Bar(opened_at[i], open[i], high[i], low[i], close[i], volume[i])
        state, target = step(state, bar, Regime(bull[k], bear[k], chop[k]), params)
        sleeve, stats = at_close(sleeve, stats, close[i], target, i >= trade_from, rules)
    return sleeve, stats, written


def follow(
    open: Column,
    high: Column,
    low: Column,
    close: Column,
    exposure: Column,
    stop: Column,
    take_profit: Column,
    trail: Column,
    max_bars: Sequence[int],
    limit: Column,
    trigger: Column,
    rules: Rules,
    cash: int,
    trade_from: int,
    fills: list[int],
) -> tuple[Sleeve, Stats, int]:
    """The same with targets that somebody else decided, one for each bar."""
    sleeve = opened(cash)
    stats = begun(cash)
    written = 0
    for i in range(len(close)):
        if sleeve.plan.want != 0:
            if sleeve.refused != 0:
                break
            sleeve, stats, written = opened_bar(sleeve, stats, i, open, high, low, close, rules, fills, written)
        target = Target(exposure[i], stop[i], take_profit[i], trail[i], max_bars[i], limit[i], trigger[i])
        sleeve, stats = at_close(sleeve, stats, close[i], target, i >= trade_from, rules)
    return sleeve, stats, written


def bound(function: types.FunctionType, **names: Callable[..., Any]) -> types.FunctionType:
    """The same code with these functions in the place of the names above."""
    return types.FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
