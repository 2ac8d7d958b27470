"""Worse worlds to run the same strategy in: dearer costs, and a crash while it holds. Pure transforms."""

from __future__ import annotations

import msgspec
import numpy as np

from shared.contracts.governance import Costs
from shared.trading.columns import Columns, Floats

CRASH = 0.20  # of the price within one bar: in an hour of 2020-03-12 BTC closed 18 % lower and was down 25 % in it
RECOVERY_BARS = 24  # in which it comes back, evenly


def with_slippage(costs: Costs, times: float) -> Costs:
    """The same costs with so many times the slippage and the spread."""
    return msgspec.structs.replace(costs, slippage_bps=times * costs.slippage_bps, spread_bps=times * costs.spread_bps)


def crashed(bars: Columns, place: int, *, against_long: bool = True, depth: float = CRASH) -> Columns:
    """The same bars with a crash in bar `place`: it closes `depth` lower and is made up for over the next 24 bars.

    Against a short it is a rise of `depth`. Every price is moved by a factor, so each bar stays one; nothing before
    `place` is changed.
    """
    after = np.clip(1.0 - (np.arange(len(bars)) - place) / RECOVERY_BARS, 0.0, 1.0)
    after[:place] = 0.0
    factor: Floats = 1.0 + (-depth if against_long else depth) * after
    before = np.concatenate([[1.0], factor[:-1]])
    open = bars.open * np.where(np.arange(len(bars)) == place, 1.0, before)
    close = bars.close * factor
    high = np.maximum(bars.high * np.minimum(factor, before), np.maximum(open, close))
    low = np.minimum(bars.low * np.maximum(factor, before), np.minimum(open, close))
    return Columns.of(bars.opened_at_ms, open, high, low, close, bars.volume)
