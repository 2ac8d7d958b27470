"""Indicators as small state machines: `sma(20)` makes the state, `sma_step(state, x)` consumes it and gives the next.

Every state has `value`, NaN until enough bars were seen, so `value(fast) > value(slow)` is false while either warms up.
Running sums are kept by hand and in one order: `sum` and numpy add in another, and other bits would decide otherwise.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from shared.trading.kernel import kernel, ring
from shared.trading.values import Bar


class Indicator(Protocol):
    """What all of them have."""

    @property
    def value(self) -> float: ...


@kernel
def value(indicator: Indicator) -> float:
    """What the indicator says, NaN while it is not ready."""
    return indicator.value


@kernel
def is_ready(indicator: Indicator) -> bool:
    """Whether it has seen enough bars to say something."""
    return indicator.value == indicator.value  # NaN is not equal to itself


class Sma(NamedTuple):
    """Simple moving average."""

    past: list[float]
    at: int  # where the oldest value stands
    total: float
    divisor: float  # NaN until the ring is full, which makes the value NaN without asking
    value: float


@kernel
def sma(bars: int) -> Sma:
    """The mean of the last `bars` values."""
    return Sma(ring(bars), 0, 0.0, math.nan, math.nan)


@kernel
def sma_step(s: Sma, x: float) -> Sma:
    total = s.total + (x - s.past[s.at])
    s.past[s.at] = x
    at = s.at + 1
    divisor = s.divisor
    if at == len(s.past):  # a branch, because `%` costs more than the rest together
        at = 0
        divisor = float(len(s.past))
    return Sma(s.past, at, total, divisor, total / divisor)


class Ema(NamedTuple):
    """Exponential moving average, begun with the simple mean of its first `bars` values."""

    bars: int
    seen: int
    total: float
    weight: float  # of the newest value: 2 / (bars + 1)
    value: float


@kernel
def ema(bars: int) -> Ema:
    """The average in which a value `bars` old still counts about e^-2 of the newest."""
    return Ema(bars, 0, 0.0, 2.0 / (bars + 1.0), math.nan)


@kernel
def ema_step(s: Ema, x: float) -> Ema:
    if s.seen >= s.bars:
        return Ema(s.bars, s.seen, s.total, s.weight, s.value + s.weight * (x - s.value))
    seen = s.seen + 1
    total = s.total + x
    return Ema(s.bars, seen, total, s.weight, total / s.bars if seen == s.bars else math.nan)


class Atr(NamedTuple):
    """Average true range, in price units."""

    bars: int
    seen: int
    close: float  # of the bar before; NaN before the first
    total: float
    value: float


@kernel
def atr(bars: int) -> Atr:
    """The smoothed range of a bar, gaps included.

    Source: J. W. Wilder, "New Concepts in Technical Trading Systems", 1978: mean of the first `bars` true ranges, then
    (previous x (bars - 1) + newest) / bars.
    """
    return Atr(bars, 0, math.nan, 0.0, math.nan)


@kernel
def atr_step(s: Atr, bar: Bar) -> Atr:
    span = true_range(bar.high, bar.low, s.close)
    if s.seen >= s.bars:
        return Atr(s.bars, s.seen, bar.close, s.total, s.value + (span - s.value) / s.bars)
    seen = s.seen + 1
    total = s.total + span
    return Atr(s.bars, seen, bar.close, total, total / s.bars if seen == s.bars else math.nan)


@kernel
def true_range(high: float, low: float, close_before: float) -> float:
    """How far a price went, from the close before on (NaN: there was none). In price units."""
    top = max(high, close_before)  # max and min keep their first argument beside a NaN
    bottom = min(low, close_before)
    return top - bottom


class Rsi(NamedTuple):
    """Relative strength index, 0..100."""

    bars: int
    seen: int
    before: float
    gain: float  # smoothed rise a bar
    loss: float  # smoothed fall a bar
    value: float


@kernel
def rsi(bars: int) -> Rsi:
    """How much of the recent movement was upward, in percent; 50 where nothing moved. Source: Wilder, 1978."""
    return Rsi(bars, 0, math.nan, 0.0, 0.0, math.nan)


@kernel
def rsi_step(s: Rsi, x: float) -> Rsi:
    if s.before != s.before:  # the first value has nothing to be compared with
        return Rsi(s.bars, 0, x, 0.0, 0.0, math.nan)
    change = x - s.before
    rise = max(0.0, change)
    fall = max(0.0, -change)
    seen = s.seen + 1
    divisor = min(s.bars, seen)  # a plain mean until `bars` changes were seen, then Wilder's smoothing
    gain = s.gain + (rise - s.gain) / divisor
    loss = s.loss + (fall - s.loss) / divisor
    strength = math.nan
    if seen >= s.bars:
        strength = 50.0 if gain + loss == 0.0 else 100.0 * gain / (gain + loss)
    return Rsi(s.bars, divisor, x, gain, loss, strength)


class Deviation(NamedTuple):
    """Rolling standard deviation (sample, n - 1) and mean."""

    past: list[float]
    at: int
    seen: int
    mean: float
    squares: float  # sum of squared distances from the mean
    value: float


@kernel
def deviation(bars: int) -> Deviation:
    """The standard deviation of the last `bars` values (at least 2).

    Source: B. P. Welford, Technometrics 4(3), 1962, and its update for a window that slides: sums of squares of prices
    would cancel.
    """
    return Deviation(ring(bars), 0, 0, 0.0, 0.0, math.nan)


@kernel
def deviation_step(s: Deviation, x: float) -> Deviation:
    bars = len(s.past)
    oldest = s.past[s.at]
    s.past[s.at] = x
    at = s.at + 1
    if at == bars:
        at = 0
    if s.seen < bars:
        seen = s.seen + 1
        mean = s.mean + (x - s.mean) / seen
        squares = s.squares + (x - s.mean) * (x - mean)
    else:
        seen = bars
        mean = s.mean + (x - oldest) / bars
        squares = s.squares + (x - oldest) * (x - mean + oldest - s.mean)
    squares = max(squares, 0.0)  # the last bits of a window in which nothing moves
    spread = math.sqrt(squares / (bars - 1.0)) if seen == bars and bars > 1 else math.nan
    return Deviation(s.past, at, seen, mean, squares, spread)


class Bollinger(NamedTuple):
    """A band around a rolling mean. Its `value` is the middle."""

    window: Deviation
    width: float  # deviations on either side
    upper: float
    lower: float
    value: float


@kernel
def bollinger(bars: int, width: float) -> Bollinger:
    """The mean of the last `bars` values and `width` population deviations (n, not n - 1) above and below it.

    Source: J. Bollinger, "Bollinger on Bollinger Bands", 2001: 20 bars, 2 deviations.
    """
    return Bollinger(deviation(bars), width, math.nan, math.nan, math.nan)


@kernel
def bollinger_step(s: Bollinger, x: float) -> Bollinger:
    window = deviation_step(s.window, x)
    bars = len(window.past)
    middle = window.mean if window.seen == bars else math.nan
    reach = s.width * math.sqrt(window.squares / bars)
    return Bollinger(window, s.width, middle + reach, middle - reach, middle)


class Highest(NamedTuple):
    """The largest of the last `bars` values. `lowest` uses it upside down."""

    values: list[float]  # those that may still become the largest, falling
    seen_at: list[float]  # when each of them came
    first: int  # where the largest stands
    waiting: int  # how many there are
    now: float  # values seen
    value: float


@kernel
def highest(bars: int) -> Highest:
    """Kept as a queue in which every value is larger than those behind it: one step costs the same for any `bars`."""
    return Highest(ring(bars), ring(bars), 0, 0, 0.0, math.nan)


@kernel
def highest_step(s: Highest, x: float) -> Highest:
    bars = len(s.values)
    now = s.now + 1.0
    first = s.first
    waiting = s.waiting
    if waiting > 0 and s.seen_at[first] <= now - bars:  # the largest is too old
        first = first + 1 if first + 1 < bars else 0
        waiting -= 1
    end = first + waiting
    if end >= bars:
        end -= bars
    while waiting > 0:
        last = end - 1 if end > 0 else bars - 1
        if s.values[last] > x:
            break
        end = last
        waiting -= 1
    s.values[end] = x
    s.seen_at[end] = now
    return Highest(s.values, s.seen_at, first, waiting + 1, now, s.values[first] if now >= bars else math.nan)


class Donchian(NamedTuple):
    """The channel of the last `bars` bars. Its `value` is the middle."""

    above: Highest  # of the highs
    below: Highest  # of the lows, with the sign turned
    upper: float
    lower: float
    value: float


@kernel
def donchian(bars: int) -> Donchian:
    """Highest high and lowest low of the last `bars` bars. A breakout compares a close with the channel *before* it."""
    return Donchian(highest(bars), highest(bars), math.nan, math.nan, math.nan)


@kernel
def donchian_step(s: Donchian, bar: Bar) -> Donchian:
    above = highest_step(s.above, bar.high)
    below = highest_step(s.below, -bar.low)
    return Donchian(above, below, above.value, -below.value, (above.value - below.value) / 2.0)
