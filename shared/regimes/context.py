"""What the bandit sees of the market when it chooses: five finite numbers, whole in every reading."""

from __future__ import annotations

from shared.regimes.features import VOLATILITY, Features
from shared.regimes.hmm import RegimeModel

# Another meaning or order is another schema, and a new schema starts new posteriors.
CONTEXT_NAMES = ("bias", "bull", "bear", "chop", "volatility")
CONTEXT_SCHEMA = ",".join(CONTEXT_NAMES) + "/1"
UNKNOWN_CONTEXT = (1.0, 0.0, 0.0, 0.0, 0.0)

FARTHEST = 3.0  # standard deviations: one wild hour must not outweigh a year of lessons


def context_of(model: RegimeModel, odds: tuple[float, float, float], x: Features) -> tuple[float, ...]:
    """(1, odds of BULL, BEAR, CHOP, volatility) with volatility in deviations from the training span's, within +-3."""
    volatility = (x[VOLATILITY] - model.center[VOLATILITY]) / model.spread[VOLATILITY]
    return (1.0, *odds, max(-FARTHEST, min(FARTHEST, volatility)))
