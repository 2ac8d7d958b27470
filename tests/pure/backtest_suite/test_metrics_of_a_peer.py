"""vectorbt's figures of returns as the second oracle of ours, and where it and empyrical differ; in a module of its own because its import is slow.

Its functions are taken before they are compiled: the sums are the same, and a minute of compiling is saved.
"""

from __future__ import annotations

import math
from typing import Any

import empyrical
import numpy as np
import pandas as pd
import pytest
from vectorbt.returns import nb

from services.backtest_suite import formulas
from services.backtest_suite.metrics import metrics_of

PER_YEAR = 365.0
START = 10_000.0
RETURNS = np.random.default_rng(6).normal(0.001, 0.015, 800)
BENCHMARK = np.random.default_rng(5).normal(0.0005, 0.02, 800)


def theirs(name: str, *arguments: Any) -> float:
    return float(getattr(nb, f"{name}_1d_nb").py_func(RETURNS, *arguments))


def test_vectorbt_says_the_same_of_the_same_returns() -> None:
    market = 100.0 * np.cumprod(np.concatenate([[1.0], 1.0 + BENCHMARK]))
    worth = START * np.cumprod(np.concatenate([[1.0], 1.0 + RETURNS]))
    ours = metrics_of(worth, periods_per_year=PER_YEAR, benchmark=market)
    pairs = {
        "total_return": (ours.total_return, theirs("cum_returns_final", 0.0)),
        "cagr": (ours.cagr, theirs("annualized_return", PER_YEAR)),
        "volatility": (ours.volatility, theirs("annualized_volatility", PER_YEAR)),
        "sharpe": (ours.sharpe, theirs("sharpe_ratio", PER_YEAR)),
        "sortino": (ours.sortino, theirs("sortino_ratio", PER_YEAR)),
        "calmar": (ours.calmar, theirs("calmar_ratio", PER_YEAR)),
        "omega": (ours.omega, theirs("omega_ratio", PER_YEAR)),
        "max_drawdown": (ours.max_drawdown, -theirs("max_drawdown")),
        "tail_ratio": (ours.tail_ratio, theirs("tail_ratio")),
        "value_at_risk": (ours.value_at_risk, -theirs("value_at_risk")),
        "conditional_value_at_risk": (ours.conditional_value_at_risk, -theirs("cond_value_at_risk")),
        "alpha": (ours.alpha, theirs("alpha", BENCHMARK, PER_YEAR)),
        "beta": (ours.beta, theirs("beta", BENCHMARK)),
    }
    for name, (mine, other) in pairs.items():
        assert mine == pytest.approx(other, rel=1e-9), name


def test_the_differences_that_the_page_tells_are_there() -> None:
    gains, equal, nothing = np.array([0.01, 0.02, 0.01, 0.03]), np.full(6, 0.01), np.zeros(6)
    peer = {name: getattr(nb, f"{name}_1d_nb").py_func for name in ("sharpe_ratio", "omega_ratio", "calmar_ratio")}
    assert empyrical.sharpe_ratio(equal) == peer["sharpe_ratio"](equal, 252.0) == math.inf
    assert peer["sharpe_ratio"](nothing, 252.0) == peer["omega_ratio"](nothing, 252.0) == math.inf
    assert math.isnan(formulas.sharpe(equal, 252.0)) and math.isnan(formulas.omega(nothing))
    assert math.isnan(empyrical.omega_ratio(gains)) and peer["omega_ratio"](gains, 252.0) == math.inf
    assert formulas.omega(gains) == math.inf
    rising = np.cumprod(np.concatenate([[1.0], 1.0 + gains]))
    assert math.isnan(empyrical.calmar_ratio(gains)) and math.isnan(peer["calmar_ratio"](gains, 252.0))
    assert formulas.calmar(rising, 252.0) == math.inf
    assert nb.tail_ratio_1d_nb.py_func(nothing) == math.inf and math.isnan(formulas.tail_ratio(nothing))
    unknown = np.array([0.01, math.nan, -0.01, 0.02])
    assert empyrical.sharpe_ratio(unknown) == pytest.approx(peer["sharpe_ratio"](unknown, 252.0))
    assert math.isnan(formulas.sharpe(unknown, 252.0))
    assert pd.Series(RETURNS).skew() == pytest.approx(formulas.skew(RETURNS) * math.sqrt(800 * 799) / 798)
