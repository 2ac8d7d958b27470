"""The figures of a run: worked by hand, defined where there is little to know, and the same as other libraries say."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import empyrical
import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from services.backtest_suite import formulas
from services.backtest_suite.formulas import path_of, returns_of
from services.backtest_suite.handbook import handbook
from services.backtest_suite.metrics import Metrics, metrics_of
from shared.trading.performance import begun, figures, with_equity, with_fill

YEAR = 252.0  # for these tests; a run takes its instrument's calendar
# 100 -> 110 -> 99 -> 103.95 -> 114.345: returns +10 %, -10 %, +5 %, +10 %
PATH = [110.0, 99.0, 103.95, 114.345]


def by_hand(**changes: Any) -> Metrics:
    return metrics_of(PATH, start=100.0, periods_per_year=4.0, **changes)


def test_returns_growth_and_risk_worked_by_hand() -> None:
    told = by_hand()
    assert told.bars == 4
    assert told.total_return == pytest.approx(0.14345)
    assert told.cagr == pytest.approx(0.14345)  # four bars are a year here
    # mean 0.0375; deviations 0.0625 -0.1375 0.0125 0.0625: squares sum to 0.026875, / 3 = 0.00895833
    assert told.volatility == pytest.approx(math.sqrt(0.026875 / 3) * 2)
    assert told.sharpe == pytest.approx(0.0375 / math.sqrt(0.026875 / 3) * 2)
    assert told.sortino == pytest.approx(0.0375 / math.sqrt(0.01 / 4) * 2)  # one loss of 0.1 among four
    assert told.omega == pytest.approx(0.25 / 0.10)
    assert told.calmar == pytest.approx(0.14345 / 0.10)
    # m2 = 0.026875 / 4; m3 = (2 x 0.0625^3 - 0.1375^3 + 0.0125^3) / 4
    assert told.skew == pytest.approx(((2 * 0.0625**3 - 0.1375**3 + 0.0125**3) / 4) / (0.026875 / 4) ** 1.5)
    assert told.value_at_risk == pytest.approx(0.0775)  # 15 % of the way from -0.10 to +0.05 in the sorted returns
    assert told.conditional_value_at_risk == pytest.approx(0.10)
    assert told.tail_ratio == pytest.approx(0.10 / 0.0775)


def test_a_drawdown_has_a_depth_a_length_and_a_recovery() -> None:
    told = by_hand()
    assert told.max_drawdown == pytest.approx(0.10)
    assert (told.drawdown_from, told.drawdown_trough, told.drawdown_to) == (0, 1, 3)  # 110, 99, and 114 is above again
    assert (told.drawdown_bars, told.recovery_bars) == (3, 2)
    open_ended = metrics_of([90.0, 80.0, 95.0], start=100.0, periods_per_year=4.0)
    assert open_ended.max_drawdown == pytest.approx(0.2)
    assert (open_ended.drawdown_from, open_ended.drawdown_trough, open_ended.drawdown_to) == (-1, 1, None)
    assert (open_ended.drawdown_bars, open_ended.recovery_bars) == (3, None)
    rising = metrics_of([1.0, 2.0, 3.0], periods_per_year=4.0)
    assert (rising.max_drawdown, rising.drawdown_from, rising.drawdown_to, rising.calmar) == (0.0, None, None, math.inf)


def test_trades_worked_by_hand() -> None:
    told = by_hand(
        results=[30.0, -10.0, 20.0, 0.0], risks=[10.0, 10.0, 20.0, 0.0], held=[1.0, 0.0, 0.5, 0.0], traded=420.0
    )
    assert (told.trades, told.win_rate, told.profit_factor, told.expectancy) == (4, 0.5, 5.0, 10.0)
    assert told.expectancy_r == pytest.approx((3.0 - 1.0 + 1.0 + 0.0) / 4)
    assert told.sqn == pytest.approx(0.75 / np.std([3.0, -1.0, 1.0, 0.0], ddof=1) * 2)
    assert told.exposure == 0.5
    assert told.turnover == pytest.approx(420.0 / np.mean([100.0, *PATH]))  # a year
    assert by_hand(results=[1.0]).profit_factor == math.inf
    assert by_hand(results=[1.0, 2.0] * 100).sqn == pytest.approx(
        1.5 / np.std([1.0, 2.0] * 100, ddof=1) * 10
    )  # 100 count


def test_a_benchmark_that_is_the_run_itself_has_beta_one_and_no_alpha() -> None:
    told = by_hand(benchmark=PATH)
    assert (told.beta, told.alpha) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))
    assert math.isnan(by_hand().beta) and math.isnan(by_hand(benchmark=[5.0] * 4).beta)
    with pytest.raises(ValueError, match="one benchmark return for each of 3, were 2"):
        formulas.beta(np.ones(3), np.ones(2))


def numbers(told: Metrics) -> dict[str, float]:
    return {name: value for name, value in msgspec.structs.asdict(told).items() if isinstance(value, float)}


@pytest.mark.parametrize("equity", [[], [100.0], [math.nan] * 5, [100.0, math.nan, 101.0]], ids=str)
def test_what_cannot_be_known_is_nan_and_no_warning(equity: list[float]) -> None:
    told = metrics_of(equity, periods_per_year=YEAR, benchmark=equity)
    known = {name: value for name, value in numbers(told).items() if not math.isnan(value)}
    assert known == ({"total_return": 0.0, "max_drawdown": 0.0} if equity == [100.0] else {})
    assert (told.trades, told.drawdown_from) == (0, None)


def test_constant_equity_earned_nothing_and_has_no_ratio() -> None:
    told = metrics_of([100.0] * 10, periods_per_year=YEAR, held=[0.0] * 10, traded=0.0)
    zero = {"total_return", "cagr", "volatility", "max_drawdown", "value_at_risk", "conditional_value_at_risk"}
    found = numbers(told)
    assert {name for name, value in found.items() if value == 0.0} == zero | {"exposure", "turnover"}
    assert all(math.isnan(value) for name, value in found.items() if name not in zero | {"exposure", "turnover"})


def test_constant_growth_has_no_sharpe_ratio_in_or_beside_the_loop() -> None:
    path = 10_000 * 1.01 ** np.arange(200)  # equal returns, but not to the last bit
    told = metrics_of(path, periods_per_year=YEAR)
    assert math.isnan(told.sharpe) and math.isnan(told.skew) and told.sortino == math.inf
    rich = 10**14
    ledger = [round(rich * 1.01**i) for i in range(200)]
    stats = begun(ledger[0])
    for equity in ledger[1:]:
        stats = with_equity(stats, equity)
    assert math.isnan(figures(stats, bars=199, start=ledger[0], fees=0.0, periods_per_year=YEAR).sharpe)


def test_all_lost_is_a_return_of_minus_one() -> None:
    told = metrics_of([50.0, 0.0], start=100.0, periods_per_year=YEAR)
    assert (told.total_return, told.cagr, told.max_drawdown) == (-1.0, -1.0, 1.0)
    assert math.isnan(metrics_of([50.0, 0.0, 10.0], start=100.0, periods_per_year=YEAR).sharpe)  # nothing grows from 0


@given(
    moves=st.lists(st.integers(-900, 1000), min_size=2, max_size=60), per_year=st.sampled_from([12.0, 252.0, 8765.82])
)
def test_the_figures_inside_the_loop_are_the_figures_of_its_curve(moves: list[int], per_year: float) -> None:
    start = 1_000_000
    curve = (start + np.cumsum(moves)).tolist()
    stats = begun(start)
    for equity in curve:
        stats = with_equity(stats, equity)
    for pnl in moves:
        stats = with_fill(stats, pnl, 250.0, True)
    loop = figures(stats, bars=len(curve), start=start, fees=0.0, periods_per_year=per_year)
    told = metrics_of(curve, start=start, periods_per_year=per_year, results=moves, risks=[250.0] * len(moves))
    # A loop that keeps sums subtracts two numbers that are nearly equal when returns nearly are: a Sharpe ratio of a bar
    # of 1,000 leaves it 10 digits of 16. Nothing earns that.
    for sharpe in (told.sharpe, loop.sharpe):
        assume(not abs(sharpe) / math.sqrt(per_year) > 1000.0)
    for ours, theirs in (
        (told.total_return, loop.net_return),
        (told.max_drawdown, loop.max_drawdown),
        (told.win_rate, loop.win_rate),
        (told.profit_factor, loop.profit_factor),
        (told.expectancy_r, loop.expectancy_r),
        (told.sharpe, loop.sharpe),
    ):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-9, nan_ok=True)


RNG = np.random.default_rng(11)
RETURNS = {
    "a gainer": RNG.normal(0.001, 0.01, 750),
    "a loser": RNG.normal(-0.002, 0.02, 751),
    "fat tails": RNG.standard_t(3, 900) * 0.01,
    "few": RNG.normal(0.0, 0.01, 5),
}
BENCHMARK = RNG.normal(0.0005, 0.012, 900)
Oracle = Callable[[Any, Any], float]
ORACLES: dict[str, tuple[Oracle, Oracle]] = {
    "total_return": (lambda r, b: formulas.total_return(_path(r)), lambda r, b: empyrical.cum_returns_final(r)),
    "cagr": (lambda r, b: formulas.cagr(_path(r), YEAR), lambda r, b: empyrical.cagr(r)),
    "volatility": (lambda r, b: formulas.volatility(r, YEAR), lambda r, b: empyrical.annual_volatility(r)),
    "sharpe": (lambda r, b: formulas.sharpe(r, YEAR), lambda r, b: empyrical.sharpe_ratio(r)),
    "sortino": (lambda r, b: formulas.sortino(r, YEAR), lambda r, b: empyrical.sortino_ratio(r)),
    "calmar": (lambda r, b: formulas.calmar(_path(r), YEAR), lambda r, b: empyrical.calmar_ratio(r)),
    "omega": (lambda r, b: formulas.omega(r), lambda r, b: empyrical.omega_ratio(r)),
    "drawdown": (lambda r, b: formulas.drawdown(_path(r)).depth, lambda r, b: -empyrical.max_drawdown(r)),
    "tail_ratio": (lambda r, b: formulas.tail_ratio(r), lambda r, b: empyrical.tail_ratio(r)),
    "value_at_risk": (lambda r, b: formulas.value_at_risk(r), lambda r, b: -empyrical.value_at_risk(r)),
    "conditional": (
        lambda r, b: formulas.conditional_value_at_risk(r),
        lambda r, b: -empyrical.conditional_value_at_risk(r),
    ),
    "alpha": (lambda r, b: formulas.alpha(r, b, YEAR), lambda r, b: empyrical.alpha(r, b)),
    "beta": (lambda r, b: formulas.beta(r, b), lambda r, b: empyrical.beta(r, b)),
    "skew": (lambda r, b: formulas.skew(r), lambda r, b: float(scipy_stats.skew(r))),
    "kurtosis": (lambda r, b: formulas.kurtosis(r), lambda r, b: float(scipy_stats.kurtosis(r, fisher=False))),
    "correlation": (lambda r, b: formulas.correlation(r, b), lambda r, b: float(scipy_stats.pearsonr(r, b).statistic)),
}


def _path(returns: Any) -> Any:
    return 100.0 * np.cumprod(np.concatenate([[1.0], 1.0 + returns]))


@pytest.mark.parametrize("figure", ORACLES)
@pytest.mark.parametrize("kind", RETURNS)
def test_empyrical_and_scipy_say_the_same(figure: str, kind: str) -> None:
    ours, theirs = ORACLES[figure]
    returns = RETURNS[kind]
    benchmark = BENCHMARK[: len(returns)]
    assert ours(returns, benchmark) == pytest.approx(theirs(returns, benchmark), rel=1e-9)


def test_a_path_and_its_returns_are_one() -> None:
    returns = RETURNS["a gainer"]
    assert returns_of(_path(returns)) == pytest.approx(returns, abs=1e-12)
    assert path_of([1, 2], 3.0).tolist() == [3.0, 1.0, 2.0]


def test_the_page_of_figures_says_what_the_code_does() -> None:
    page = Path(__file__).parents[3] / "docs" / "metrics.md"
    assert page.read_text(encoding="utf-8") == handbook(), "docs/metrics.md is stale: just metrics"
    for name in (*ORACLES.keys() - {"conditional"}, "permutation_percentile", "deflated_sharpe"):
        assert f"### {name}\n" in handbook()
