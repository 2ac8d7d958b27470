"""Trend following: long while the fast average is above the slow one, with a stop and a target in ATRs.

For slow, long moves: averages are late by half their length, and in return are seldom fooled by one bar. It loses in
markets that turn faster than that, and gives the end of every move back.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.trading.indicators import Atr, Sma, atr, atr_step, is_ready, sma, sma_step, value
from shared.trading.kernel import kernel
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long


class Params(NamedTuple):
    fast: int = 20  # bars
    slow: int = 100  # bars
    atr_bars: int = 14  # bars
    stop_atr: float = 3.0  # x ATR below entry
    target_atr: float = 8.0  # x ATR above entry


class State(NamedTuple):
    fast: Sma
    slow: Sma
    range: Atr


@kernel
def start(p: Params) -> State:
    return State(sma(p.fast), sma(p.slow), atr(p.atr_bars))


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Crossing of two moving averages, long only."""
    s = State(sma_step(s.fast, bar.close), sma_step(s.slow, bar.close), atr_step(s.range, bar))
    if not is_ready(s.range) or not value(s.fast) > value(s.slow):
        return s, flat()
    width = value(s.range)
    return s, long(stop=p.stop_atr * width, take_profit=p.target_atr * width)


STRATEGY = strategy(
    "trend_follow",
    Params,
    start,
    step,
    bounds={
        "fast": (2, 200),
        "slow": (5, 800),
        "atr_bars": (2, 100),
        "stop_atr": (0.5, 10.0),
        "target_atr": (0.5, 40.0),
    },
    rule=lambda p: p.fast < p.slow,
    warmup=lambda p: max(p.slow, p.atr_bars),
)
