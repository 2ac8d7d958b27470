"""The formulas of the figures that a run is told by, each with its source. Pure functions of arrays.

Returns are simple returns a bar, (n,). An annual figure is scaled by `periods_per_year`, which comes from the
instrument's calendar (`shared.trading.performance.periods_per_year`). What cannot be known is NaN, in every function:
too few values, no dispersion, or a value that is itself unknown (a NaN is never dropped). Losses and drawdowns are
told as positive fractions. `docs/metrics.md` is printed from here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from shared.trading.columns import Floats
from shared.trading.performance import ROUNDING

TAIL = 0.05  # of returns: what the tail ratio, VaR and CVaR look at
MOST_TRADES = 100  # that the SQN counts


def path_of(equity: ArrayLike, start: float | None = None) -> Floats:
    """The worth at each close as float64 (n,), or (n + 1,) with the worth before the first bar in front."""
    values = np.asarray(equity, np.float64)
    return values if start is None else np.concatenate([[float(start)], values])


def returns_of(path: Floats) -> Floats:
    """r_t = E_t / E_(t-1) - 1, simple returns (n - 1,). NaN after a worth of 0 or less."""
    before = path[:-1]
    return np.divide(path[1:], before, out=np.full(len(before), math.nan), where=before > 0) - 1.0


def total_return(path: Floats) -> float:
    """E_n / E_0 - 1. NaN without a value, 0 for one."""
    if not len(path) or not _known(path) or path[0] <= 0:
        return math.nan
    return float(path[-1] / path[0] - 1.0)


def cagr(path: Floats, periods_per_year: float) -> float:
    """Compound annual growth: (E_n / E_0)^(P / n) - 1, n returns, P periods a year. -1 when all is lost."""
    total, periods = total_return(path), len(path) - 1
    if math.isnan(total) or periods < 1:
        return math.nan
    if total <= -1.0:
        return -1.0
    growth = math.log1p(total) * periods_per_year / periods
    return math.expm1(growth) if growth < 700.0 else math.inf  # e^710 is no double


def volatility(returns: Floats, periods_per_year: float) -> float:
    """Standard deviation (n - 1) of returns x sqrt(P). 0 for constant returns, NaN below two."""
    if len(returns) < 2 or not _known(returns):
        return math.nan
    return float(np.std(returns, ddof=1)) * math.sqrt(periods_per_year)


def sharpe(returns: Floats, periods_per_year: float) -> float:
    """mean(r) / std(r) x sqrt(P), std with n - 1, riskless rate 0. NaN below two returns or when they are all equal.

    Source: W. F. Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994.
    """
    if len(returns) < 2 or not _known(returns) or _is_constant(returns):
        return math.nan
    return float(np.mean(returns) / np.std(returns, ddof=1)) * math.sqrt(periods_per_year)


def sortino(returns: Floats, periods_per_year: float) -> float:
    """mean(r) / sqrt(mean(min(r, 0)^2)) x sqrt(P), the mean of squares over all n. Infinite without a loss.

    Source: F. A. Sortino, L. N. Price, "Performance Measurement in a Downside Risk Framework", Journal of Investing
    3(3), 1994.
    """
    if len(returns) < 2 or not _known(returns):
        return math.nan
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return _ratio(float(np.mean(returns)) * math.sqrt(periods_per_year), downside)


def calmar(path: Floats, periods_per_year: float) -> float:
    """CAGR / maximum drawdown, over all bars. Infinite for a gain without a drawdown.

    Source: T. W. Young, "Calmar Ratio: A Smoother Tool", Futures 20(1), 1991 (there the last 36 months).
    """
    return _ratio(cagr(path, periods_per_year), drawdown(path).depth)


def omega(returns: Floats) -> float:
    """sum(max(r, 0)) / sum(max(-r, 0)): gains over losses at a threshold of 0. Infinite without a loss.

    Source: C. Keating, W. F. Shadwick, "A Universal Performance Measure", Journal of Performance Measurement 6(3), 2002.
    """
    if not len(returns) or not _known(returns):
        return math.nan
    return _ratio(float(np.maximum(returns, 0.0).sum()), float(np.maximum(-returns, 0.0).sum()))


class Drawdown(NamedTuple):
    """The deepest fall of a path below its last peak. Places in the path; None where there is no such place."""

    depth: float  # fraction of the peak, >= 0
    peak: int | None
    trough: int | None
    recovered: int | None  # where the path first was at the peak's height again
    length: int  # values from the peak to the recovery, or to the end


def drawdown(path: Floats) -> Drawdown:
    """max_t (peak_t - E_t) / peak_t with peak_t = max(E_0 .. E_t): depth, and from where to where it lasted.

    Of falls equally deep the first one is told.
    """
    if not len(path) or not _known(path) or path[0] <= 0:
        return Drawdown(math.nan, None, None, None, 0)
    peaks = np.maximum.accumulate(path)
    falls = (peaks - path) / peaks
    trough = int(np.argmax(falls))
    if falls[trough] == 0.0:
        return Drawdown(0.0, None, None, None, 0)
    peak = int(np.flatnonzero(path[:trough] == peaks[trough])[-1])
    after = np.flatnonzero(path[trough:] >= peaks[trough])
    recovered = trough + int(after[0]) if len(after) else None
    end = len(path) - 1 if recovered is None else recovered
    return Drawdown(float(falls[trough]), peak, trough, recovered, end - peak)


def tail_ratio(returns: Floats) -> float:
    """|95th percentile| / |5th percentile| of returns, interpolated linearly."""
    if not len(returns) or not _known(returns):
        return math.nan
    low, high = np.quantile(returns, [TAIL, 1.0 - TAIL])
    return _ratio(abs(float(high)), abs(float(low)))


def value_at_risk(returns: Floats) -> float:
    """Historical VaR at 5 %: minus the 5th percentile of returns, interpolated linearly. Positive is a loss.

    Source: P. Jorion, "Value at Risk", 3rd edition, 2006, historical simulation.
    """
    if not len(returns) or not _known(returns):
        return math.nan
    return 0.0 - float(np.quantile(returns, TAIL))


def conditional_value_at_risk(returns: Floats) -> float:
    """Expected shortfall at 5 %: minus the mean of the worst floor((n - 1) x 0.05) + 1 returns. Positive is a loss.

    Source: C. Acerbi, D. Tasche, "On the Coherence of Expected Shortfall", Journal of Banking & Finance 26(7), 2002.
    """
    if not len(returns) or not _known(returns):
        return math.nan
    worst = int((len(returns) - 1) * TAIL) + 1
    return 0.0 - float(np.mean(np.partition(returns, worst - 1)[:worst]))


def skew(returns: Floats) -> float:
    """m3 / m2^1.5 with central moments over n. NaN for constant returns."""
    return _moment(returns, 3)


def kurtosis(returns: Floats) -> float:
    """m4 / m2^2 with central moments over n: 3 for a normal distribution, not its excess. NaN for constant returns."""
    return _moment(returns, 4)


def exposure(held: Floats) -> float:
    """Fraction of the bars at whose close something is held."""
    return float(np.mean(held != 0.0)) if len(held) and _known(held) else math.nan


def turnover(traded: float, path: Floats, periods_per_year: float) -> float:
    """Notional of all fills / mean worth, a year: buying all and selling all once a year is 2."""
    if len(path) < 2 or not _known(path) or np.mean(path) <= 0:
        return math.nan
    return float(traded / np.mean(path)) * periods_per_year / (len(path) - 1)


def win_rate(results: Floats) -> float:
    """Fraction of the trades that earned more than nothing, net of fees. NaN without a trade."""
    return float(np.mean(results > 0.0)) if len(results) and _known(results) else math.nan


def profit_factor(results: Floats) -> float:
    """Sum of what winners earned / sum of what the others lost. Infinite without a loser."""
    if not len(results) or not _known(results):
        return math.nan
    lost = float(-results[results <= 0.0].sum())
    return float(results[results > 0.0].sum()) / lost if lost else math.inf


def expectancy(results: Floats) -> float:
    """Mean net result of a trade: in money, or in R when results are divided by the risk at entry. NaN without one."""
    return float(np.mean(results)) if len(results) and _known(results) else math.nan


def sqn(results: Floats) -> float:
    """System quality number: mean / std x sqrt(min(k, 100)) of the k trades' results, std with k - 1; in R if known.

    Source: V. K. Tharp, "Definitive Guide to Position Sizing", 2008: with more than 100 trades sqrt(100) is taken.
    """
    if len(results) < 2 or not _known(results) or _is_constant(results):
        return math.nan
    return float(np.mean(results) / np.std(results, ddof=1)) * math.sqrt(min(len(results), MOST_TRADES))


def beta(returns: Floats, benchmark: Floats) -> float:
    """cov(r, b) / var(b). NaN when the benchmark never moves, and for fewer than two returns."""
    if len(returns) != len(benchmark):
        raise ValueError(f"There must be one benchmark return for each of {len(returns)}, were {len(benchmark)}.")
    if len(returns) < 2 or not (_known(returns) and _known(benchmark)) or _is_constant(benchmark):
        return math.nan
    return float(np.cov(returns, benchmark, ddof=1)[0, 1] / np.var(benchmark, ddof=1))


def alpha(returns: Floats, benchmark: Floats, periods_per_year: float) -> float:
    """Jensen's alpha, a year: (1 + mean(r) - beta x mean(b))^P - 1, riskless rate 0.

    Source: M. C. Jensen, "The Performance of Mutual Funds in the Period 1945-1964", Journal of Finance 23(2), 1968.
    """
    slope = beta(returns, benchmark)
    a_bar = float(np.mean(returns)) - slope * float(np.mean(benchmark)) if len(returns) else math.nan
    if math.isnan(a_bar) or a_bar <= -1.0:
        return math.nan
    growth = math.log1p(a_bar) * periods_per_year
    return math.expm1(growth) if growth < 700.0 else math.inf


def correlation(returns: Floats, benchmark: Floats) -> float:
    """Pearson's: cov(r, b) / (std(r) std(b)). NaN when either never moves."""
    if len(returns) != len(benchmark):
        raise ValueError(f"There must be one benchmark return for each of {len(returns)}, were {len(benchmark)}.")
    known = len(returns) > 1 and _known(returns) and _known(benchmark)
    if not known or _is_constant(returns) or _is_constant(benchmark):
        return math.nan
    return float(np.corrcoef(returns, benchmark)[0, 1])


def _known(values: Floats) -> bool:
    return bool(np.isfinite(values).all())


def _is_constant(values: Floats) -> bool:
    """Whether what varies is no more than rounding: equal returns do not come out of a division equal to the last bit."""
    return float(np.var(values)) <= ROUNDING * float(np.mean(values**2))


def _moment(returns: Floats, order: int) -> float:
    if len(returns) < 2 or not _known(returns) or _is_constant(returns):
        return math.nan
    centred = returns - np.mean(returns)
    return float(np.mean(centred**order) / np.mean(centred**2) ** (order / 2))


def _ratio(gain: float, risk: float) -> float:
    """gain / risk; without risk infinite for a gain, and NaN for nothing."""
    if risk > 0.0 or math.isnan(risk) or math.isnan(gain):
        return gain / risk if risk else math.nan
    return math.inf if gain > 0.0 else math.nan
