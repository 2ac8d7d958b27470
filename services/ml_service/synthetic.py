"""Made-up bars for a market of which there are too few bars. A model of them is marked and never trades live."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import accumulate, pairwise

from shared.regimes.features import Candle

BARS_IN_REGIME = 150  # on average
DRIFTS = (0.25, -0.25, 0.0)  # of bull, bear, chop, in standard deviations a bar
TURMOIL = (0.9, 1.2, 0.8)  # volatility of each, relative to the whole
DEFAULT_VOLATILITY = 0.001  # a bar, where no bar tells one
STEPS = 8  # of the path inside a bar


def made_up_bars(bars: int, seed: int, like: Sequence[Candle] = ()) -> list[Candle]:
    """Bars of a market that rises, falls and idles, with the volatility of `like`. Same seed, same bars."""
    returns = [math.log(after.close / before.close) for before, after in pairwise(like)]
    mean_square = math.fsum(r * r for r in returns) / len(returns) if returns else 0.0
    volatility = math.sqrt(mean_square) or DEFAULT_VOLATILITY
    rng = random.Random(seed)
    price, regime = 100.0, 2
    made: list[Candle] = []
    for _ in range(bars):
        if rng.random() < 1.0 / BARS_IN_REGIME:
            regime = (regime + rng.choice((1, 2))) % 3
        drift, turmoil = volatility * DRIFTS[regime] / STEPS, volatility * TURMOIL[regime] / math.sqrt(STEPS)
        steps = [math.exp(drift + turmoil * rng.gauss(0.0, 1.0)) for _ in range(STEPS)]
        path = list(accumulate(steps, lambda at, step: at * step, initial=price))
        made.append(Candle(price, max(path), min(path), path[-1], math.exp(rng.gauss(0.0, 0.5)) * TURMOIL[regime]))
        price = path[-1]
    return made
