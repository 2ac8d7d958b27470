"""Mean reversion: buy a close below the Bollinger band while the strength index says oversold, leave at the middle.

For markets that idle: what fell far without a reason comes back, often and by little. It loses in trends, where a
close below the band is the beginning: the stop ends that trade, and after it none is begun before the middle was seen.

Source: J. Bollinger, "Bollinger on Bollinger Bands", 2001 (the band, and an indicator beside it that must agree).
"""

from __future__ import annotations

from typing import NamedTuple

from shared.trading.indicators import (
    Atr,
    Bollinger,
    Rsi,
    atr,
    atr_step,
    bollinger,
    bollinger_step,
    is_ready,
    rsi,
    rsi_step,
    value,
)
from shared.trading.kernel import kernel
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long, short


class Params(NamedTuple):
    bars: int = 20  # of the band
    width: float = 2.0  # deviations from its middle
    rsi_bars: int = 14  # bars
    oversold: float = 30.0  # strength index below which to buy; overbought is as far from 100
    atr_bars: int = 14  # bars
    stop_atr: float = 3.0  # x ATR from entry
    shorts: bool = False  # sell what is overbought as well


class State(NamedTuple):
    band: Bollinger
    strength: Rsi
    range: Atr
    side: float  # 1 long, -1 short, 0 flat


@kernel
def start(p: Params) -> State:
    return State(bollinger(p.bars, p.width), rsi(p.rsi_bars), atr(p.atr_bars), 0.0)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Return to the middle of a Bollinger band, with a strength index that must agree."""
    band = bollinger_step(s.band, bar.close)
    strength = rsi_step(s.strength, bar.close)
    side = s.side
    if (side > 0.0 and bar.close >= value(band)) or (side < 0.0 and bar.close <= value(band)):
        side = 0.0
    if side == 0.0:
        if bar.close < band.lower and value(strength) < p.oversold:
            side = 1.0
        elif p.shorts and bar.close > band.upper and value(strength) > 100.0 - p.oversold:
            side = -1.0
    s = State(band, strength, atr_step(s.range, bar), side)
    if side == 0.0 or not is_ready(s.range):
        return s, flat()
    stop = p.stop_atr * value(s.range)
    return s, long(stop=stop) if side > 0.0 else short(stop=stop)


STRATEGY = strategy(
    "mean_reversion",
    Params,
    start,
    step,
    bounds={
        "bars": (4, 400),
        "width": (0.5, 5.0),
        "rsi_bars": (2, 100),
        "oversold": (5.0, 50.0),
        "atr_bars": (2, 100),
        "stop_atr": (0.5, 10.0),
    },
    warmup=lambda p: max(p.bars, p.rsi_bars + 1, p.atr_bars),
)
