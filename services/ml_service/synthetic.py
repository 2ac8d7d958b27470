"""Made-up closes for a market of which there are too few bars. A model of them is marked and never trades live."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import pairwise

BARS_IN_REGIME = 150  # on average
DRIFTS = (0.25, -0.25, 0.0)  # of bull, bear, chop, in standard deviations a bar
TURMOIL = (0.9, 1.2, 0.8)  # volatility of each, relative to the whole
DEFAULT_VOLATILITY = 0.001  # a bar, where no bar tells one


def made_up_closes(bars: int, seed: int, like: Sequence[float] = ()) -> list[float]:
    """Closes of a market that rises, falls and idles, with the volatility of `like` (prices). Same seed, same closes."""
    returns = [math.log(after / before) for before, after in pairwise(like)]
    mean_square = math.fsum(r * r for r in returns) / len(returns) if returns else 0.0
    volatility = math.sqrt(mean_square) or DEFAULT_VOLATILITY
    rng = random.Random(seed)
    price, regime = 100.0, 2
    closes: list[float] = []
    for _ in range(bars):
        if rng.random() < 1.0 / BARS_IN_REGIME:
            regime = (regime + rng.choice((1, 2))) % 3
        price *= math.exp(volatility * (DRIFTS[regime] + TURMOIL[regime] * rng.gauss(0.0, 1.0)))
        closes.append(price)
    return closes
