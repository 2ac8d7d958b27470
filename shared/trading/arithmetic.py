"""Arithmetic that raises compiled where Python raises.

`math.log(0.0)` is an exception in Python and minus infinity compiled, and `int(nan)` some number or other; so a strategy
would trade in a backtest where it stops live. What may be asked for nothing goes through these.
"""

from __future__ import annotations

import math

from shared.trading.kernel import kernel

MOST_WHOLE = 9_223_372_036_854_774_784.0  # the largest float below 2^63
MOST_EXPONENT = 709.782712893384  # of e: above it no float is large enough


@kernel
def safe_log(x: float) -> float:
    """The natural logarithm of `x` > 0; NaN of NaN. Raises ValueError."""
    if x <= 0.0:
        raise ValueError("safe_log needs a number above 0")
    return math.log(x)


@kernel
def safe_sqrt(x: float) -> float:
    """The square root of `x` >= 0; NaN of NaN. Raises ValueError."""
    if x < 0.0:
        raise ValueError("safe_sqrt needs a number >= 0")
    return math.sqrt(x)


@kernel
def safe_exp(x: float) -> float:
    """e to the power of `x`; NaN of NaN. Raises OverflowError when no float is large enough."""
    if x > MOST_EXPONENT:
        raise OverflowError("safe_exp needs a number below 709.78")
    return math.exp(x)


@kernel
def whole(x: float) -> int:
    """`x` without its fraction, as an int of 64 bits. Raises ValueError for NaN and for what does not fit."""
    if not -MOST_WHOLE <= x <= MOST_WHOLE:
        raise ValueError("whole needs a finite number that fits 64 bits")
    return int(x)
