"""Bars around closes, for tests that care about prices and not about their ranges."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

from shared.regimes.features import Candle


def candles(closes: Sequence[float], seed: int = 0) -> list[Candle]:
    """Bars that open where the last one closed and reach a little beyond both ends; volumes vary around 1."""
    chance = random.Random(seed)
    bars: list[Candle] = []
    before = closes[0]
    for close in closes:
        beyond = abs(math.log(close / before)) * chance.random() + 1e-4 * chance.random()
        high, low = max(before, close) * math.exp(beyond), min(before, close) * math.exp(-beyond)
        bars.append(Candle(before, high, low, close, math.exp(chance.gauss(0.0, 0.3))))
        before = close
    return bars
