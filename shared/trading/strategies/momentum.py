"""Momentum: buy a close above the channel of the bars before, leave below the shorter channel or by the trailing stop.

For markets that trend: a few long winners pay for many small losses. It loses where prices stay in a range, because
every false breakout costs a stop and two fees.

Source: R. Donchian's channel rule, as told by C. Faith, "Way of the Turtle", 2007: 20 bars in, 10 bars out.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.trading.indicators import (
    Atr,
    Donchian,
    Highest,
    atr,
    atr_step,
    donchian,
    donchian_step,
    highest,
    highest_step,
    is_ready,
    value,
)
from shared.trading.kernel import kernel
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long


class Params(NamedTuple):
    entry: int = 20  # bars of the channel whose top is broken
    exit: int = 10  # bars of the channel whose bottom ends it
    atr_bars: int = 14  # bars
    stop_atr: float = 2.0  # x ATR below entry
    trail_atr: float = 3.0  # x ATR below the best close


class State(NamedTuple):
    channel: Donchian  # of the entry
    floor: Highest  # of the lows with the sign turned: the exit
    range: Atr
    is_long: bool


@kernel
def start(p: Params) -> State:
    return State(donchian(p.entry), highest(p.exit), atr(p.atr_bars), False)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Breakout of a price channel, long only."""
    top = s.channel.upper  # both channels end at the bar before: this bar cannot break what it is part of
    bottom = -value(s.floor)
    is_long = s.is_long
    if bar.close > top:
        is_long = True
    elif bar.close < bottom:
        is_long = False
    s = State(
        donchian_step(s.channel, bar),
        highest_step(s.floor, -bar.low),
        atr_step(s.range, bar),
        is_long,
    )
    if not is_long or not is_ready(s.range):
        return s, flat()
    width = value(s.range)
    return s, long(stop=p.stop_atr * width, trail=p.trail_atr * width)


STRATEGY = strategy(
    "momentum",
    Params,
    start,
    step,
    bounds={
        "entry": (5, 400),
        "exit": (2, 200),
        "atr_bars": (2, 100),
        "stop_atr": (0.5, 10.0),
        "trail_atr": (0.5, 20.0),
    },
    rule=lambda p: p.exit <= p.entry,
    warmup=lambda p: max(p.entry, p.atr_bars) + 1,
)
