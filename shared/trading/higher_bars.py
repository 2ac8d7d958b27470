"""Bars of a higher timeframe, built from the bars that come: one is seen only once it has closed.

    higher = higher_open(s.higher, bar)   # a gap may have swallowed the end of the one before: it is over now
    ...                                   # look at higher.has_closed, and take higher.closed in
    higher = higher_step(higher, bar)     # this bar may be the last of its own
    ...                                   # look again

They begin at UTC multiples of their length, whatever bar came first and whatever is missing.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.trading.kernel import kernel
from shared.trading.values import Bar


class Higher(NamedTuple):
    """The higher bar that is being built, and the one that closed last."""

    times: int  # its length, in bars that come
    length_ms: int  # of a bar that comes: the shortest distance between two so far, 0 before the second
    before_ms: int  # open of the bar before, -1 before the first
    building: Bar
    is_building: bool
    closed: Bar  # NaN before the first
    has_closed: bool  # with the call that returned this


@kernel
def higher(times: int) -> Higher:
    """Bars `times` as long as those that come. The first one may lack what was before the first bar."""
    nothing = Bar(-1, math.nan, math.nan, math.nan, math.nan, math.nan)
    return Higher(times, 0, -1, nothing, False, nothing, False)


@kernel
def higher_open(s: Higher, bar: Bar) -> Higher:
    """A bar has come: the higher bar that was being built is over when this one is not part of it."""
    distance = bar.opened_at_ms - s.before_ms
    if s.before_ms < 0:
        return Higher(s.times, 0, s.before_ms, s.building, False, s.closed, False)
    if s.length_ms == 0 or distance < s.length_ms:  # what was taken for a bar's length was a gap: begin anew
        return Higher(s.times, distance, s.before_ms, s.building, False, s.closed, False)
    is_over = s.is_building and bar.opened_at_ms >= s.building.opened_at_ms + s.times * s.length_ms
    closed = s.building if is_over else s.closed
    return Higher(s.times, s.length_ms, s.before_ms, s.building, s.is_building and not is_over, closed, is_over)


@kernel
def higher_step(s: Higher, bar: Bar) -> Higher:
    """Fold one closed bar in. The bar that ends where the higher one ends closes it."""
    length = s.times * s.length_ms
    if length == 0:  # how long a bar is, only the second one tells
        return Higher(s.times, 0, bar.opened_at_ms, s.building, False, s.closed, False)
    first = bar.opened_at_ms - bar.opened_at_ms % length
    built = Bar(first, bar.open, bar.high, bar.low, bar.close, bar.volume)
    if s.is_building:
        b = s.building
        built = Bar(first, b.open, max(b.high, bar.high), min(b.low, bar.low), bar.close, b.volume + bar.volume)
    is_over = bar.opened_at_ms + s.length_ms >= first + length
    closed = built if is_over else s.closed
    return Higher(s.times, s.length_ms, bar.opened_at_ms, built, not is_over, closed, is_over)
