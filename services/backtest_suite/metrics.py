"""All figures of one run at once. The formulas are next door, in formulas.py."""

from __future__ import annotations

import math

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from services.backtest_suite import formulas
from services.backtest_suite.formulas import path_of, returns_of


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """All figures of one run. NaN: cannot be known. Bars are counted from 0; -1 is the start, before the first bar."""

    bars: int
    total_return: float
    cagr: float
    volatility: float
    sharpe: float
    sortino: float
    calmar: float
    omega: float
    max_drawdown: float
    drawdown_from: int | None  # bar of the peak; None: there is no drawdown
    drawdown_trough: int | None
    drawdown_to: int | None  # bar of the recovery; None: not recovered
    drawdown_bars: int  # from the peak to the recovery, or to the last bar
    recovery_bars: int | None  # from the trough to the recovery; None: not recovered
    tail_ratio: float
    value_at_risk: float
    conditional_value_at_risk: float
    skew: float
    kurtosis: float
    exposure: float
    turnover: float
    trades: int
    win_rate: float
    profit_factor: float
    expectancy: float
    expectancy_r: float
    sqn: float
    alpha: float
    beta: float


def metrics_of(
    equity: ArrayLike,
    *,
    periods_per_year: float,
    start: float | None = None,
    results: ArrayLike = (),
    risks: ArrayLike | None = None,
    held: ArrayLike | None = None,
    traded: float = math.nan,
    benchmark: ArrayLike | None = None,
) -> Metrics:
    """All figures of a run.

    `equity` (n,) is the worth at each close and `start` the worth before the first bar; without it the first value is
    the start, and there is one return less. `results` (k,) are the net results of the closed trades in the equity's
    units, and `risks` (k,) what was at stake at each entry. `held` (n,) is the position's share of the equity at each
    close, `traded` the sum of all fills' notionals, `benchmark` (n,) the closes that one compares with.
    """
    path = path_of(equity, start)
    returns = returns_of(path)
    fall = formulas.drawdown(path)
    first = 0 if start is None else 1  # places in the path, as bars
    won = np.asarray(results, np.float64)
    slope, excess = math.nan, math.nan
    if benchmark is not None:
        other = returns_of(np.asarray(benchmark, np.float64))
        slope = formulas.beta(returns[len(returns) - len(other) :], other)
        excess = formulas.alpha(returns[len(returns) - len(other) :], other, periods_per_year)
    in_r = np.full(len(won), math.nan)
    if risks is not None:  # a trade that risked nothing counts as 0, as in the loop
        staked = np.asarray(risks, np.float64)
        in_r = np.divide(won, staked, out=np.zeros(len(won)), where=staked > 0.0)
    return Metrics(
        bars=len(np.asarray(equity)),
        total_return=formulas.total_return(path),
        cagr=formulas.cagr(path, periods_per_year),
        volatility=formulas.volatility(returns, periods_per_year),
        sharpe=formulas.sharpe(returns, periods_per_year),
        sortino=formulas.sortino(returns, periods_per_year),
        calmar=formulas.calmar(path, periods_per_year),
        omega=formulas.omega(returns),
        max_drawdown=fall.depth,
        drawdown_from=None if fall.peak is None else fall.peak - first,
        drawdown_trough=None if fall.trough is None else fall.trough - first,
        drawdown_to=None if fall.recovered is None else fall.recovered - first,
        drawdown_bars=fall.length,
        recovery_bars=None if fall.recovered is None or fall.trough is None else fall.recovered - fall.trough,
        tail_ratio=formulas.tail_ratio(returns),
        value_at_risk=formulas.value_at_risk(returns),
        conditional_value_at_risk=formulas.conditional_value_at_risk(returns),
        skew=formulas.skew(returns),
        kurtosis=formulas.kurtosis(returns),
        exposure=math.nan if held is None else formulas.exposure(np.asarray(held, np.float64)),
        turnover=formulas.turnover(traded, path, periods_per_year),
        trades=len(won),
        win_rate=formulas.win_rate(won),
        profit_factor=formulas.profit_factor(won),
        expectancy=formulas.expectancy(won),
        expectancy_r=formulas.expectancy(in_r),
        sqn=formulas.sqn(won if risks is None else in_r),
        alpha=excess,
        beta=slope,
    )
