"""States get their names by what they emit, never by their index: a fit may return them in any order."""

from __future__ import annotations

from collections.abc import Sequence

from shared.contracts.regime import RegimeName
from shared.regimes.features import TRENDS, VOLATILITY

NAMES: tuple[RegimeName, RegimeName, RegimeName] = ("BULL", "BEAR", "CHOP")

# A state whose trend is within a tenth of a standard error of none has no direction to be named after.
SMALLEST_DRIFT = 0.1


def drift_per_risk(mean: Sequence[float]) -> float:
    """How far a state's emissions trend, in units of their risk: the mean of its trend features."""
    return sum(mean[i] for i in TRENDS) / len(TRENDS)


def name_states(means: Sequence[Sequence[float]]) -> tuple[RegimeName, ...]:
    """A name for each state, from the emission means (n_states, n_features) in the units of `features`.

    The state with the most drift per unit of risk is BULL and the one with the least is BEAR, as long as they rise
    and fall at all; all others are CHOP. Of two with equal drift the calmer one counts as the better.
    """
    order = sorted(range(len(means)), key=lambda k: (drift_per_risk(means[k]), -means[k][VOLATILITY]))
    names: list[RegimeName] = ["CHOP"] * len(means)
    if drift_per_risk(means[order[0]]) < -SMALLEST_DRIFT:
        names[order[0]] = "BEAR"
    if drift_per_risk(means[order[-1]]) > SMALLEST_DRIFT:
        names[order[-1]] = "BULL"
    return tuple(names)
