"""Pairs: what two instruments that go together have drifted apart, they come back. Long the one, short the other.

For two perpetuals with one story (BTC and ETH, two shares of one trade where they can be borrowed): it earns on their spread
and owes the market little. It loses when the story ends, hence the stop. On spot it never trades: both legs or none.

The first instrument's log price y is regressed on the second's x over a rolling window; the spread is the residual
of the newest bar, and its z-score is what it is worth in standard errors of that regression.

Source: E. Gatev, W. Goetzmann & K. Rouwenhorst, "Pairs Trading", Review of Financial Studies 19(3), 2006, for the rule;
G. Vidyamurthy, "Pairs Trading", 2004, chapter 5, for the log prices and the beta.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.trading.kernel import kernel, ring
from shared.trading.portfolio import Market
from shared.trading.strategy import portfolio_strategy
from shared.trading.values import Regime


class Params(NamedTuple):
    bars: int = 120  # of the regression
    enter: float = 2.0  # |z| at which to begin
    exit: float = 0.5  # |z| at which to end
    stop: float = 4.0  # |z| at which to give up


class Regression(NamedTuple):
    """Least squares of y on x over the last `bars` pairs."""

    xs: list[float]
    ys: list[float]
    at: int  # where the oldest pair stands
    seen: int
    mean_x: float
    mean_y: float
    xx: float  # sum of squared distances from the mean
    xy: float
    yy: float


class State(NamedTuple):
    line: Regression
    side: float  # 1.0: long the first and short the second; -1.0: the other way; 0.0: flat
    stopped: float  # the side that was given up, until the spread has come home; else 0.0
    apart: int  # bars since both were there


@kernel
def start(p: Params, instruments: int) -> State:
    return State(Regression(ring(p.bars), ring(p.bars), 0, 0, 0.0, 0.0, 0.0, 0.0, 0.0), 0.0, 0.0, 0)


@kernel
def regression_step(s: Regression, x: float, y: float) -> Regression:
    """As the indicator `deviation`, for two: the sums of a window that slides are moved by what comes and what goes."""
    bars = len(s.xs)
    old_x = s.xs[s.at]
    old_y = s.ys[s.at]
    s.xs[s.at] = x
    s.ys[s.at] = y
    at = s.at + 1 if s.at + 1 < bars else 0
    if s.seen < bars:
        seen = s.seen + 1
        mean_x = s.mean_x + (x - s.mean_x) / seen
        mean_y = s.mean_y + (y - s.mean_y) / seen
        xx = s.xx + (x - s.mean_x) * (x - mean_x)
        xy = s.xy + (x - s.mean_x) * (y - mean_y)
        yy = s.yy + (y - s.mean_y) * (y - mean_y)
    else:
        seen = bars
        rise_x = x - old_x
        rise_y = y - old_y
        mean_x = s.mean_x + rise_x / bars
        mean_y = s.mean_y + rise_y / bars
        xx = s.xx + rise_x * (x - mean_x + old_x - s.mean_x)
        xy = s.xy + rise_y * (x - mean_x) + rise_x * (old_y - s.mean_y)
        yy = s.yy + rise_y * (y - mean_y + old_y - s.mean_y)
    return Regression(s.xs, s.ys, at, seen, mean_x, mean_y, max(xx, 0.0), xy, max(yy, 0.0))


@kernel
def beta(s: Regression) -> float:
    """By how much y moves with x, as fractions. NaN until the window is full, and where x does not move."""
    return s.xy / s.xx if s.seen == len(s.xs) and s.xx > 0.0 else math.nan


@kernel
def z_score(s: Regression, x: float, y: float) -> float:
    """The residual of (x, y) in standard errors of the regression (n - 2 degrees of freedom). NaN where it is exact."""
    slope = beta(s)
    rest = (s.yy - slope * s.xy) / (len(s.xs) - 2.0)
    if not rest > 1e-12 * s.yy:  # the last bits of a line without noise
        return math.nan
    return (y - s.mean_y - slope * (x - s.mean_x)) / math.sqrt(rest)


@kernel
def step(s: State, market: Market, regime: Regime, p: Params, weights: list[float]) -> tuple[State, bool]:
    """Mean reversion of the spread between two instruments, both legs as one intent."""
    if not (market.close[0] > 0.0 and market.close[1] > 0.0):  # one of them is absent, of which nothing can be learnt
        apart = s.apart + 1
        is_over = s.side != 0.0 and apart == p.bars  # the regression is of another time; leave with what is there
        if is_over:
            weights[0] = 0.0
            weights[1] = 0.0
        return State(s.line, 0.0 if is_over else s.side, s.stopped, apart), is_over
    y = math.log(market.close[0])
    x = math.log(market.close[1])
    line = regression_step(s.line, x, y)
    slope = beta(line)
    z = z_score(line, x, y)
    side = s.side
    stopped = s.stopped
    if stopped != 0.0:
        if stopped * z >= -p.exit:
            stopped = 0.0
    elif side == 0.0:
        if slope > 0.0 and p.enter <= abs(z) < p.stop:
            side = -1.0 if z > 0.0 else 1.0
    elif abs(z) >= p.stop:
        stopped = side
        side = 0.0
    elif side * z >= -p.exit:
        side = 0.0
    is_decided = side != s.side
    if is_decided:
        weights[0] = side / (1.0 + slope) if side != 0.0 else 0.0
        weights[1] = -side * slope / (1.0 + slope) if side != 0.0 else 0.0
    return State(line, side, stopped, 0), is_decided


STRATEGY = portfolio_strategy(
    "pairs",
    Params,
    start,
    step,
    bounds={"bars": (3, 5000), "enter": (0.1, 10.0), "exit": (0.0, 10.0), "stop": (0.1, 100.0)},
    rule=lambda p: p.exit < p.enter < p.stop,
    warmup=lambda p: p.bars,
    instruments=(2, 2),
    is_one_intent=True,
)
