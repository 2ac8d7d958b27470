"""How far a figure can be believed: errors, intervals, and what luck alone would have shown. Pure, seeded.

Returns are simple returns a bar (n,). A Sharpe ratio is annual where `periods_per_year` is given, else of one bar.
What cannot be known is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from statistics import NormalDist

import msgspec
import numpy as np

from services.backtest_suite.formulas import kurtosis, sharpe, skew
from shared.trading.columns import Floats, Integers

DRAWS = 1000  # resamples: the 5th percentile then moves by about 2 % of the interval from seed to seed
PERMUTATIONS = 999  # with the run itself a thousand
LEAST_RETURNS = 10  # with fewer there is nothing to resample
ELEMENTS = 100_000  # of resamples held in memory at once: what a cache holds
EULER = 0.5772156649015329
NORMAL = NormalDist()


class Significance(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a headline's Sharpe ratio. NaN: cannot be known."""

    trades: int
    trials: int  # parameter sets that were tried on these data
    sharpe: float  # annual
    sharpe_error: float  # its standard error
    sharpe_low: float  # bootstrap, 5th percentile
    sharpe_high: float  # 95th percentile
    probabilistic: float  # chance that the true Sharpe ratio is above 0
    deflated: float  # chance that it is above what the best of `trials` worthless sets would show


def significance_of(
    returns: Floats,
    *,
    periods_per_year: float,
    trades: int,
    trials: int,
    rng: np.random.Generator,
    draws: int = DRAWS,
) -> Significance:
    """All of it at once: standard error, 90 % interval, probabilistic and deflated Sharpe ratio."""
    low, high = interval(bootstrap_sharpes(returns, periods_per_year, rng, draws))
    return Significance(
        trades=trades,
        trials=trials,
        sharpe=sharpe(returns, periods_per_year),
        sharpe_error=sharpe_error(returns, periods_per_year),
        sharpe_low=low,
        sharpe_high=high,
        probabilistic=probabilistic_sharpe(returns),
        deflated=deflated_sharpe(returns, trials),
    )


def sharpe_error(returns: Floats, periods_per_year: float = 1.0) -> float:
    """Standard error of the Sharpe ratio: sqrt((1 - skew s + (kurtosis - 1) / 4 s^2) / (n - 1)) x sqrt(P), s a bar's.

    For normal returns it is Lo's sqrt((1 + s^2 / 2) / n). For returns that depend on each other take the bootstrap.

    Source: A. W. Lo, "The Statistics of Sharpe Ratios", Financial Analysts Journal 58(4), 2002; E. Mertens, "Comments
    on Variance of the IID Estimator in Lo (2002)", 2002.
    """
    ratio = sharpe(returns, 1.0)
    if math.isnan(ratio):
        return math.nan
    variance = 1.0 - skew(returns) * ratio + (kurtosis(returns) - 1.0) / 4.0 * ratio * ratio
    return math.sqrt(max(variance, 0.0) / (len(returns) - 1) * periods_per_year)


def probabilistic_sharpe(returns: Floats, threshold: float = 0.0) -> float:
    """Chance that the true Sharpe ratio (a bar) is above `threshold` (a bar): Phi((s - threshold) / error).

    Source: D. H. Bailey, M. Lopez de Prado, "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2), 2012.
    """
    error = sharpe_error(returns)
    return NORMAL.cdf((sharpe(returns, 1.0) - threshold) / error) if error > 0.0 else math.nan


def luck(trials: int, spread: float) -> float:
    """The Sharpe ratio that the best of `trials` worthless sets is expected to show, whose ratios have this `spread`.

    spread x ((1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e))), g = 0.5772..., 0 for one trial.

    Source: D. H. Bailey, M. Lopez de Prado, "The Deflated Sharpe Ratio", Journal of Portfolio Management 40(5), 2014.
    """
    if trials < 2:
        return 0.0
    best = (1.0 - EULER) * NORMAL.inv_cdf(1.0 - 1.0 / trials) + EULER * NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    return spread * best


def deflated_sharpe(returns: Floats, trials: int, spread: float = math.nan) -> float:
    """Probabilistic Sharpe ratio above what luck shows in so many trials. `trials` are those really made on the data.

    `spread` is the standard deviation of the trials' Sharpe ratios (a bar); when it was not kept, 1 / sqrt(n - 1) is
    what worthless and independent sets would have.

    Source: as of `luck`.
    """
    if len(returns) < 2:
        return math.nan
    if math.isnan(spread):
        spread = 1.0 / math.sqrt(len(returns) - 1)
    return probabilistic_sharpe(returns, luck(trials, spread))


def bootstrap_sharpes(
    returns: Floats, periods_per_year: float, rng: np.random.Generator, draws: int = DRAWS, block: float | None = None
) -> Floats:
    """Sharpe ratios of resamples by the stationary bootstrap (draws,). A resample in which nothing happens has 0."""
    if len(returns) < LEAST_RETURNS or not np.isfinite(returns).all():
        return np.full(draws, math.nan)
    found: list[Floats] = []
    for places in stationary_places(len(returns), rng, draws, block):
        drawn = returns[places]
        spread = drawn.std(axis=1, ddof=1)
        found.append(np.divide(drawn.mean(axis=1), spread, out=np.zeros(len(drawn)), where=spread > 0.0))
    return np.concatenate(found) * math.sqrt(periods_per_year)


def bootstrap_drawdowns(
    returns: Floats, rng: np.random.Generator, draws: int = DRAWS, block: float | None = None
) -> Floats:
    """Maximum drawdowns of resamples (draws,): how deep the same returns might have fallen in another order."""
    if len(returns) < LEAST_RETURNS or not np.isfinite(returns).all():
        return np.full(draws, math.nan)
    found: list[Floats] = []
    for places in stationary_places(len(returns), rng, draws, block):
        worth = np.cumprod(1.0 + returns[places], axis=1)
        peaks = np.maximum(np.maximum.accumulate(worth, axis=1), 1.0)
        found.append((1.0 - worth / peaks).max(axis=1))
    return np.concatenate(found)


def stationary_places(
    count: int, rng: np.random.Generator, draws: int, block: float | None = None
) -> Iterator[Integers]:
    """Places of resamples by the stationary bootstrap, in parts of shape (some, count); `draws` rows in all.

    Blocks begin anywhere, go on around the end, and have geometric lengths with mean `block`, n^(1/3) when not given:
    what lies near in time stays together, so dependence from bar to bar is kept.

    Source: D. N. Politis, J. P. Romano, "The Stationary Bootstrap", Journal of the American Statistical Association
    89(428), 1994.
    """
    chance = 1.0 / max(count ** (1.0 / 3.0) if block is None else block, 1.0)
    column = np.arange(count)
    rows = max(1, ELEMENTS // count)
    for first in range(0, draws, rows):
        shape = (min(rows, draws - first), count)
        begins = rng.random(shape) < chance
        begins[:, 0] = True
        begun = np.maximum.accumulate(np.where(begins, column, 0), axis=1)  # where this place's block began
        start = rng.integers(0, count, shape)
        yield (np.take_along_axis(start, begun, axis=1) + column - begun) % count


def interval(samples: Floats, level: float = 0.90) -> tuple[float, float]:
    """The middle `level` of samples: their percentiles (1 - level) / 2 and (1 + level) / 2."""
    if not len(samples) or np.isnan(samples).any():
        return math.nan, math.nan
    low, high = np.quantile(samples, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def permutation_percentile(
    shares: Floats, returns: Floats, rng: np.random.Generator, draws: int = PERMUTATIONS
) -> float:
    """How much of what was earned lies in when one entered: 100 x (1 - p), p of a permutation test.

    `shares` (n,) are what was held during each bar as a share of the equity, `returns` (n,) the market's. The trades
    keep their lengths and sizes, the flat spells theirs; both are shuffled and turned round a circle of time; p = (1 +
    permutations that earned as much) / (1 + draws). Costs are the same in all of them. Positions that know nothing of
    the market reach 95 in one of twenty runs. NaN when the position never changes.

    Source: P. Good, "Permutation, Parametric, and Bootstrap Tests of Hypotheses", 3rd edition, 2005, chapter 3.
    """
    if not (np.isfinite(shares).all() and np.isfinite(returns).all()) or np.all(shares == shares[:1]):
        return math.nan
    turned = np.roll(shares, -_first_entry(shares))  # time as a circle: no spell is cut, and no bar is an edge
    starts, lengths = _spells(turned)
    earned = float(shares @ returns)
    slack = 1e-12 * float(np.abs(shares) @ np.abs(returns))  # the same sum in another order is not more
    held, flat = np.arange(0, len(starts), 2), np.arange(1, len(starts), 2)
    as_much = 0
    for _ in range(draws):
        order = np.empty(len(starts), np.int64)
        order[held], order[flat] = rng.permutation(held), rng.permutation(flat)
        size = lengths[order]
        places = np.arange(len(turned)) + np.repeat(starts[order] - (np.cumsum(size) - size), size)
        drawn = float(turned[places] @ np.roll(returns, rng.integers(len(returns))))
        as_much += drawn >= earned - slack
    return 100.0 * (1.0 - (1 + as_much) / (1 + draws))


def _first_entry(shares: Floats) -> int:
    """The first bar whose side is another than that of the bar before it on the circle, and not flat."""
    sides = np.sign(shares)
    return int(np.argmax((sides != 0.0) & (sides != np.roll(sides, 1))))


def _spells(shares: Floats) -> tuple[Integers, Integers]:
    """Where spells begin and how long they are: held, flat, held, ..., flat. A flat one has no length at a reversal."""
    sides = np.sign(shares)
    begins = np.flatnonzero(np.diff(sides, prepend=np.nan) != 0.0).tolist()
    told: list[tuple[int, int]] = []
    for begin, end in pairwise([*begins, len(shares)]):
        if sides[begin] != 0.0 and len(told) % 2:
            told.append((begin, 0))
        told.append((begin, end - begin))
    if len(told) % 2:
        told.append((len(shares), 0))
    starts, lengths = np.array(told, np.int64).T
    return starts, lengths
