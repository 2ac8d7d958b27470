"""What the regime model sees of a market: three numbers from the last 48 log returns of closed bars.

One function for training and serving, live and history. The sums are correctly rounded (`math.fsum`), so a bar's
features depend on its last 48 returns and on nothing else, to the last bit: whoever joins late reads the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

SHORT = 24  # bars
LONG = 48  # bars
WARMUP_BARS = LONG + 1  # closes until the first features

# Another meaning, order or window is another schema, and no model reads one that it was not fitted on.
FEATURE_NAMES = (f"trend_{SHORT}", f"trend_{LONG}", f"log_volatility_{SHORT}")
FEATURE_SCHEMA = ",".join(FEATURE_NAMES) + "/1"
VOLATILITY = 2  # where the volatility stands among them
TRENDS = (0, 1)

# A market that does not move at all still has a volatility to take the logarithm of: 1e-6 a bar, far below a tick.
SMALLEST_MEAN_SQUARE = 1e-12

Features = tuple[float, ...]


class FeatureState(NamedTuple):
    """The last `LONG` log returns and their squares, oldest first, and the last close (NaN before the first)."""

    last_close: float
    returns: tuple[float, ...]
    squares: tuple[float, ...]


def start_features() -> FeatureState:
    """Before the first bar."""
    return FeatureState(math.nan, (), ())


def step_features(state: FeatureState, close: float) -> tuple[FeatureState, Features | None]:
    """Fold one closed bar in. Features are None until `WARMUP_BARS` closes were seen.

    A bar after a gap follows the last bar that exists: nothing is filled in.
    """
    if state.last_close != state.last_close:  # NaN: the first bar has no return
        return FeatureState(close, (), ()), None
    return _fold(state, close, math.log(close / state.last_close))


def step_return(state: FeatureState, log_return: float) -> tuple[FeatureState, Features | None]:
    """The same for who has log returns and no prices."""
    return _fold(state, state.last_close, log_return)


def features_of_closes(closes: Iterable[float]) -> list[Features | None]:
    """A row for each close (price), None while warming up. The same function as live, one bar after the other."""
    state, rows = start_features(), list[Features | None]()
    for close in closes:
        state, row = step_features(state, close)
        rows.append(row)
    return rows


def features_of_returns(log_returns: Iterable[float]) -> list[Features | None]:
    """A row for each log return, None while warming up."""
    state, rows = start_features(), list[Features | None]()
    for log_return in log_returns:
        state, row = step_return(state, log_return)
        rows.append(row)
    return rows


def _fold(state: FeatureState, close: float, log_return: float) -> tuple[FeatureState, Features | None]:
    returns = (*state.returns[1 - LONG :], log_return)
    squares = (*state.squares[1 - LONG :], log_return * log_return)
    state = FeatureState(close, returns, squares)
    if len(returns) < LONG:
        return state, None
    short = math.fsum(squares[-SHORT:])
    return state, (
        _trend(math.fsum(returns[-SHORT:]), short),
        _trend(math.fsum(returns), math.fsum(squares)),
        0.5 * math.log(max(short / SHORT, SMALLEST_MEAN_SQUARE)),
    )


def _trend(total: float, squares: float) -> float:
    """Drift per unit of risk: the t-value of the mean return around zero, within +-sqrt(bars)."""
    return total / math.sqrt(squares) if squares > 0.0 else 0.0
