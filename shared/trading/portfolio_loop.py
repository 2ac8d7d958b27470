"""One run over many slices of a market, written once. `loop.bound` puts a strategy's functions in; Python runs it, or numba
compiles it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared.trading.loop import lent, trusted
from shared.trading.performance import Stats, begun, with_equity
from shared.trading.portfolio import (
    Account,
    Legs,
    Market,
    PortfolioRules,
    Row,
    carried,
    filled_at_open,
    funded,
    marked,
    opened_account,
    planned,
)
from shared.trading.values import Regime

Table = Sequence[Row]  # (n_bars, n)


def row(table: Table, at: int) -> Row:
    """One row of a table of prices; compiled, it is lent and nothing is copied."""
    return table[at]


# `bound` puts a strategy's own in the place of these.
def start(params: Any, instruments: int) -> Any: ...
def step(state: Any, market: Market, regime: Regime, params: Any, weights: Row) -> tuple[Any, bool]: ...


def run(
    columns: tuple[Sequence[int], Table, Table, Table, Table, Table],
    regimes: tuple[Sequence[float], Sequence[float], Sequence[float]],
    params: Any,
    owner: Any,
    legs: Legs,
    weights: Row,
    rules: PortfolioRules,
    cash: int,
    trade_from: int,
    curve: list[int],
    notes: list[int],
) -> tuple[Account, Stats, int]:
    """Step a strategy over slices of a market and trade the weights that it decides on.

    Regimes are as long as the columns, or of length 1. `owner` is the state to begin with; it is consumed, and must live
    as long as the loop runs, as must legs and weights. Orders are made from bar `trade_from` on; there, also for what was
    decided before. `curve` takes the equity at each close, `notes` six numbers for each fill and charge (bar, instrument,
    lots, ticks, fee, reason), as many as there is room for.

    Returns the account, its sums, and how many numbers `notes` would need.
    """
    state = lent(owner)
    opened_at, open, high, low, close, volume = columns
    bull, bear, chop = regimes
    weights = lent(weights)
    legs = trusted(legs)
    rules = trusted(rules)
    account = opened_account(cash)
    stats = begun(cash)
    with_regime = 1 if len(bull) > 1 else 0
    carry = rules.carry
    over = 0
    written = 0
    for i in range(len(opened_at)):
        opens = row(open, i)
        closes = row(close, i)
        if carry.is_on:
            now = opened_at[i]
            if i > 0:
                since = now - opened_at[i - 1]
                account, stats, written = carried(account, legs, stats, i, since, rules, notes, written)
            account, stats, written, over = funded(account, legs, stats, opens, i, over, now, rules, notes, written)
        if account.waiting != 0:
            account, stats, written = filled_at_open(account, legs, stats, opens, i, rules, notes, written)
        if carry.is_on:
            end = opened_at[i] + carry.bar_ms - 1
            account, stats, written, over = funded(account, legs, stats, opens, i, over, end, rules, notes, written)
            if account.refused != 0:
                break
        equity = marked(account, legs, closes, rules.rows)
        if equity != stats.equity:
            stats = with_equity(stats, equity)
        if i < len(curve):
            curve[i] = equity
        r = i * with_regime
        market = Market(opened_at[i], opens, row(high, i), row(low, i), closes, row(volume, i))
        state, is_decided = step(state, market, Regime(bull[r], bear[r], chop[r]), params, weights)
        if i == trade_from or (is_decided and i > trade_from):
            account, stats = planned(account, legs, stats, weights, equity, closes, rules)
            if account.refused != 0:
                break
    return account, stats, written


def attempt(
    columns: tuple[Sequence[int], Table, Table, Table, Table, Table],
    regimes: tuple[Sequence[float], Sequence[float], Sequence[float]],
    params: Any,
    legs: Legs,
    weights: Row,
    rules: PortfolioRules,
    cash: int,
    trade_from: int,
    curve: list[int],
    notes: list[int],
) -> tuple[Account, Stats, int]:
    """The same from the strategy's own beginning on. What it raises is caught here and told by a `written` of -1, because an
    exception that leaves compiled code leaks the rings of the frames that it passes.
    """
    try:
        owner = start(params, len(weights))
        return run(columns, regimes, params, owner, legs, weights, rules, cash, trade_from, curve, notes)
    except Exception:  # noqa: BLE001 - found again, interpreted, by who asked
        return opened_account(cash), begun(cash), -1
