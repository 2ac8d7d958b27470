"""What a strategy sees and says: a closed bar, a regime, a target. Plain tuples, so that they compile."""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.trading.kernel import kernel


class Bar(NamedTuple):
    """One closed candle. Prices in quote currency, volume in base currency."""

    opened_at_ms: int  # since 1970 UTC
    open: float
    high: float
    low: float
    close: float
    volume: float


class Regime(NamedTuple):
    """How likely each regime is after this bar, by the causal filter. All NaN when it is unknown."""

    bull: float
    bear: float
    chop: float


class Target(NamedTuple):
    """What a strategy wants to hold from now on, and when to leave without asking it.

    The exits are distances in quote currency, fixed by the target that opens the position and measured from its mean
    entry price (`trail`: from the best close since then). NaN and 0 mean none. They are judged on closed bars and left
    at the next open; afterwards the sleeve stays flat until the exposure has been 0 or has changed sign.

    `limit` and `trigger` are prices at which the change of exposure shall be made, instead of at the market. Such an
    order rests for one bar; a target that says the same again renews it. At most one of the two. Kernels say targets
    with `long`, `short` and `flat`, or write all seven fields.
    """

    exposure: float  # fraction of the sleeve's equity, -1..1
    stop: float = math.nan  # loss per unit at which to leave
    take_profit: float = math.nan  # gain per unit at which to leave
    trail: float = math.nan  # retreat from the best close at which to leave
    max_bars: int = 0  # closed bars held after which to leave
    limit: float = math.nan  # trade at this price or better
    trigger: float = math.nan  # trade at the market once this price is reached: a stop entry


UNKNOWN = Regime(math.nan, math.nan, math.nan)
NAN = math.nan


@kernel
def long(
    exposure: float = 1.0,
    stop: float = NAN,
    take_profit: float = NAN,
    trail: float = NAN,
    max_bars: int = 0,
    limit: float = NAN,
    trigger: float = NAN,
) -> Target:
    """Hold this fraction of the equity."""
    return Target(exposure, stop, take_profit, trail, max_bars, limit, trigger)


@kernel
def short(
    exposure: float = 1.0,
    stop: float = NAN,
    take_profit: float = NAN,
    trail: float = NAN,
    max_bars: int = 0,
    limit: float = NAN,
    trigger: float = NAN,
) -> Target:
    """Owe this fraction of the equity. On spot it counts as flat."""
    return Target(-exposure, stop, take_profit, trail, max_bars, limit, trigger)


@kernel
def flat(limit: float = NAN, trigger: float = NAN) -> Target:
    """Hold nothing."""
    return Target(0.0, NAN, NAN, NAN, 0, limit, trigger)


@kernel
def is_known(regime: Regime) -> bool:
    """Whether a model has read the market."""
    return regime.bull == regime.bull  # NaN is not equal to itself
