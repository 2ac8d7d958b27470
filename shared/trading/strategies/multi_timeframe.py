"""Two timeframes: while the higher one rises, buy a dip on the lower one; leave when it has bounced or the rise is over.

For markets that rise in waves: the filter keeps it out of falling ones, the dip gives a better entry than a breakout.
It loses where a rise ends with a crash, which begins as a dip, and earns nothing in a rise without dips.

Source: the dip by a short strength index above a long average is L. Connors and C. Alvarez, "Short Term Trading
Strategies That Work", 2008; here the average is of a higher timeframe.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.trading.higher_bars import Higher, higher, higher_open, higher_step
from shared.trading.indicators import Atr, Rsi, Sma, atr, atr_step, is_ready, rsi, rsi_step, sma, sma_step, value
from shared.trading.kernel import kernel
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long


class Params(NamedTuple):
    times: int = 4  # length of a higher bar, in bars
    trend: int = 50  # higher bars of the average that its close must be above
    rsi_bars: int = 3  # bars
    dip: float = 20.0  # strength index below which to buy
    rebound: float = 60.0  # strength index above which to leave
    atr_bars: int = 14  # bars
    stop_atr: float = 3.0  # x ATR below entry


class State(NamedTuple):
    higher: Higher
    trend: Sma  # of the higher bars' closes
    strength: Rsi
    range: Atr
    is_long: bool


@kernel
def start(p: Params) -> State:
    return State(higher(p.times), sma(p.trend), rsi(p.rsi_bars), atr(p.atr_bars), False)


@kernel
def trend_step(trend: Sma, higher: Higher) -> Sma:
    """The average, moved when a higher bar has closed."""
    return sma_step(trend, higher.closed.close) if higher.has_closed else trend


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Dips of a market that rises on a higher timeframe, long only."""
    above = higher_open(s.higher, bar)
    trend = trend_step(s.trend, above)
    above = higher_step(above, bar)
    trend = trend_step(trend, above)
    strength = rsi_step(s.strength, bar.close)
    is_long = s.is_long
    if not above.closed.close > value(trend) or value(strength) > p.rebound:
        is_long = False
    elif value(strength) < p.dip:
        is_long = True
    s = State(above, trend, strength, atr_step(s.range, bar), is_long)
    if not is_long or not is_ready(s.range):
        return s, flat()
    return s, long(stop=p.stop_atr * value(s.range))


STRATEGY = strategy(
    "multi_timeframe",
    Params,
    start,
    step,
    bounds={
        "times": (2, 48),
        "trend": (2, 200),
        "rsi_bars": (2, 100),
        "dip": (1.0, 60.0),
        "rebound": (20.0, 99.0),
        "atr_bars": (2, 100),
        "stop_atr": (0.5, 10.0),
    },
    rule=lambda p: p.dip < p.rebound,
    warmup=lambda p: max(p.times * (p.trend + 1), p.rsi_bars + 1, p.atr_bars),
)
