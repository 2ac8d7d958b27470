"""Cross-sectional momentum: every so often hold, in equal parts, those instruments that rose most.

For a broad market of things alike (shares, the larger coins): it asks which of them, and never whether. It falls with its
market, so size it for that. On instruments chosen today for having survived it looks far too good.

Source: N. Jegadeesh & S. Titman, "Returns to Buying Winners and Selling Losers", Journal of Finance 48(1), 1993; there
long and short deciles of shares, here the winners alone.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.trading.kernel import kernel, ring
from shared.trading.portfolio import Market
from shared.trading.ranking import weigh_largest
from shared.trading.strategy import portfolio_strategy
from shared.trading.values import Regime


class Params(NamedTuple):
    bars: int = 126  # over which the rise is measured
    top: int = 10  # instruments held
    every: int = 21  # bars between decisions


class State(NamedTuple):
    past: list[float]  # closes of n instruments, a row for every decision that will look back at it
    kept: int  # row that is written next
    compared: int  # row that is looked back at next
    until_kept: int  # bars
    until_decided: int  # bars
    rise: list[float]  # close / past close
    room: list[float]


@kernel
def start(p: Params, instruments: int) -> State:
    rows = p.bars // p.every + 1
    return State(ring(rows * instruments), 0, 0, 0, p.bars, ring(instruments), ring(instruments))


@kernel
def step(s: State, market: Market, regime: Regime, p: Params, weights: list[float]) -> tuple[State, bool]:
    """Rotation into the strongest, long only."""
    n = len(weights)
    kept = s.kept
    until_kept = s.until_kept
    if until_kept == 0:
        for k in range(n):
            s.past[kept * n + k] = market.close[k]
        kept = kept + 1 if kept < p.bars // p.every else 0
        until_kept = p.every
    compared = s.compared
    until_decided = s.until_decided
    is_decided = until_decided == 0
    if is_decided:
        for k in range(n):
            s.rise[k] = market.close[k] / s.past[compared * n + k]  # NaN, which is no rank, where either is absent
        weigh_largest(s.rise, p.top, 1.0 / p.top, weights, s.room)
        compared = compared + 1 if compared < p.bars // p.every else 0
        until_decided = p.every
    return State(s.past, kept, compared, until_kept - 1, until_decided - 1, s.rise, s.room), is_decided


STRATEGY = portfolio_strategy(
    "cross_sectional_momentum",
    Params,
    start,
    step,
    bounds={"bars": (1, 1000), "top": (1, 1000), "every": (1, 1000)},
    warmup=lambda p: p.bars + 1,
)
