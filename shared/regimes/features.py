"""What the regime model sees of a market: four numbers from the last 96 closed bars.

One function for training and serving, live and history. The sums are correctly rounded (`math.fsum`), so a bar's
features depend on its last 97 bars and on nothing else, to the last bit: whoever joins late reads the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, Protocol

SHORT = 6  # bars of the quick trend
LONG = 48  # bars of the slow one
RANGES = 4  # bars of the volatility: few, for a change of it is what tells first that a regime has ended
VOLUMES = 96  # bars that say how much is traded usually
WARMUP_BARS = VOLUMES + 1  # until the first features

# Another meaning, order or window is another schema, and no model reads one that it was not fitted on.
FEATURE_NAMES = (f"trend_{SHORT}", f"trend_{LONG}", f"log_volatility_{RANGES}", f"volume_surprise_{RANGES}_{VOLUMES}")
FEATURE_SCHEMA = ",".join(FEATURE_NAMES) + "/2"
TRENDS = (0, 1)  # where the trends stand among them: all that log returns alone can tell
VOLATILITY = 2

# A market that does not move at all still has a volatility to take the logarithm of: 1e-6 a bar, far below a tick.
SMALLEST_VARIANCE = 1e-12
OPEN_TO_CLOSE = 2.0 * math.log(2.0) - 1.0  # Garman & Klass, "On the Estimation of Security Price Volatilities", 1980
LARGEST_SURPRISE = 5.0  # e^5: beyond 148 times as much as usual, or as little, more is not more surprising

Features = tuple[float, ...]


class Candle(NamedTuple):
    """One closed bar. Prices in quote currency, above 0; volume in base currency, 0 where nobody tells it."""

    open: float
    high: float
    low: float
    close: float
    volume: float


class Prices(Protocol):
    """Whatever has the prices and the volume of a closed bar."""

    @property
    def open(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def close(self) -> float: ...
    @property
    def volume(self) -> float: ...


class FeatureState(NamedTuple):
    """The last log returns and their squares, variances of the bars, and volumes, oldest first; the last close (NaN
    before the first bar)."""

    last_close: float
    returns: tuple[float, ...]
    squares: tuple[float, ...]
    variances: tuple[float, ...]
    volumes: tuple[float, ...]


def start_features() -> FeatureState:
    """Before the first bar."""
    return FeatureState(math.nan, (), (), (), ())


def step_features(state: FeatureState, bar: Prices) -> tuple[FeatureState, Features | None]:
    """Fold one closed bar in. Features are None until `WARMUP_BARS` bars were seen.

        trend_n             log return of n bars / root of the sum of its squares: drift in units of its own risk
        log_volatility_4    half the logarithm of the mean variance of 4 bars, from their ranges and gaps
        volume_surprise     logarithm of what a bar traded in the last 4, over what it did in the last 96

    A bar after a gap follows the last bar that exists: nothing is filled in.
    """
    if state.last_close != state.last_close:  # NaN: the first bar has no return
        return FeatureState(bar.close, (), (), (), ()), None
    log_return = math.log(bar.close / state.last_close)
    returns = (*state.returns[1 - LONG :], log_return)
    squares = (*state.squares[1 - LONG :], log_return * log_return)
    variances = (*state.variances[1 - RANGES :], _variance(bar, state.last_close))
    volumes = (*state.volumes[1 - VOLUMES :], bar.volume)
    state = FeatureState(bar.close, returns, squares, variances, volumes)
    if len(volumes) < VOLUMES:
        return state, None
    mean_variance = max(math.fsum(variances) / RANGES, SMALLEST_VARIANCE)
    return state, (*_trends(returns, squares), 0.5 * math.log(mean_variance), _surprise(volumes))


def features_of(bars: Iterable[Prices]) -> list[Features | None]:
    """A row for each bar, None while warming up. The same function as live, one bar after the other."""
    state, rows = start_features(), list[Features | None]()
    for bar in bars:
        state, row = step_features(state, bar)
        rows.append(row)
    return rows


def trends_of_returns(log_returns: Iterable[float]) -> list[Features | None]:
    """The trends alone, for who has log returns and no bars: a row (2,) for each, None until there are `LONG`."""
    returns, squares, rows = tuple[float, ...](), tuple[float, ...](), list[Features | None]()
    for log_return in log_returns:
        returns = (*returns[1 - LONG :], log_return)
        squares = (*squares[1 - LONG :], log_return * log_return)
        rows.append(_trends(returns, squares) if len(returns) == LONG else None)
    return rows


def _trends(returns: tuple[float, ...], squares: tuple[float, ...]) -> tuple[float, float]:
    return (
        _trend(math.fsum(returns[-SHORT:]), math.fsum(squares[-SHORT:])),
        _trend(math.fsum(returns), math.fsum(squares)),
    )


def _trend(total: float, squares: float) -> float:
    """The t-value of the mean return around zero, within +-sqrt(bars)."""
    return total / math.sqrt(squares) if squares > 0.0 else 0.0


def _variance(bar: Prices, last_close: float) -> float:
    """Variance of the log return from close to close, told by the bar's range and by the gap before it. Never below 0.

    Source: Garman & Klass 1980, equation 19a's practical form, with the squared gap for the time without trading.
    """
    span, move = math.log(bar.high / bar.low), math.log(bar.close / bar.open)
    gap = math.log(bar.open / last_close)
    return 0.5 * span * span - OPEN_TO_CLOSE * move * move + gap * gap


def _surprise(volumes: tuple[float, ...]) -> float:
    """0 where nothing was traded for so long: then nothing is known."""
    usual = math.fsum(volumes) / VOLUMES
    if not usual > 0.0:
        return 0.0
    lately = math.fsum(volumes[-RANGES:]) / RANGES
    return (
        max(-LARGEST_SURPRISE, min(LARGEST_SURPRISE, math.log(lately / usual))) if lately > 0.0 else -LARGEST_SURPRISE
    )
