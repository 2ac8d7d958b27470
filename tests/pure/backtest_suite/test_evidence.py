"""Evidence that a gate can judge: each figure that the live profile asks for is there, and is what its name says."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from services.backtest_suite.evidence import (
    Trial,
    daily_loss,
    evidence,
    evidence_metrics,
    shares_held,
    strategy_of,
)
from services.backtest_suite.formulas import returns_of
from services.backtest_suite.significance import deflated_sharpe
from services.backtest_suite.stress import RECOVERY_BARS, crashed, with_slippage
from services.governor.gate import judge, preset_figures, profile
from shared.artifacts.presets import Preset, preset_bytes, preset_id
from shared.contracts.governance import Costs
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.times import from_ms
from shared.trading.columns import Columns
from shared.trading.strategies import BUILT_IN

HOUR = 3_600_000
COSTS = Costs(fee_bps=10, slippage_bps=5)


def market(bars: int = 4000, seed: int = 3, trend: float = 0.004) -> Columns:
    """Up for sixty hours, down for sixty hours, with noise; without a trend there is nothing to earn."""
    rng = np.random.default_rng(seed)
    drift = trend * np.where((np.arange(bars) // 60) % 2 == 0, 1.0, -0.97)
    close = 100.0 * np.exp(np.cumsum(drift + rng.normal(0.0, 0.004, bars)))
    open = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open, close) * 1.0002, np.minimum(open, close) * 0.9998
    return Columns.of(np.arange(bars) * HOUR, open, high, low, close, np.ones(bars))


def ordered(bars: Columns, first: int) -> EvidenceOrdered:
    strategy = BUILT_IN["momentum"]
    preset = Preset(
        strategy=strategy.name,
        source_hash=strategy.source,
        schema_version=1,
        params={"entry": 20, "exit": 10},
        symbol="BTC-USDT",
        timeframe="1h",
        origin="backtest",
    )
    return EvidenceOrdered(
        job_id="job-1",
        worker="backtest_suite",
        subject_id=preset_id(preset),
        venue="sim",
        strategy=strategy.name,
        symbol="BTC-USDT",
        timeframe="1h",
        preset=preset_bytes(preset),
        first=from_ms(int(bars.opened_at_ms[first])),
        last=from_ms(int(bars.opened_at_ms[-1])),
        costs=COSTS,
        ordered_at=from_ms(int(bars.opened_at_ms[-1]) + HOUR),
    )


def given_on(bars: Columns, first: int = 200) -> EvidenceGiven:
    order = ordered(bars, first)
    return evidence(order, *strategy_of(order, BUILT_IN), bars, trials=40)


def trial_on(bars: Columns, first: int = 200) -> Trial:
    order = ordered(bars, first)
    strategy, params = strategy_of(order, BUILT_IN)
    return Trial(strategy, params, bars, first, order)


def test_the_live_gate_refuses_or_passes_on_figures_and_never_on_their_absence() -> None:
    live = profile("live", "live").preset
    edge, none = (preset_figures(given_on(market(8000, trend=trend)), "1h", trials=40) for trend in (0.004, 0.0))
    for figures in (edge, none):
        assert {rule.figure for rule in (*live.all, *live.some)} <= set(figures)
        assert not [reason for reason in judge(figures, live).failed if "unknown" in reason]
    assert judge(edge, live).failed == ()
    refused = " ".join(judge(none, live).failed)
    assert "permutation_percentile at least 95" in refused and "bootstrap_sharpe_p5 at least 0.4" in refused


def test_the_governor_deflates_as_the_backtest_does() -> None:
    given, trial = given_on(market()), trial_on(market())
    returns = returns_of(trial.path(trial.run()))
    for trials in (1, 40):
        judged = preset_figures(given, "1h", trials)["deflated_confidence"]
        assert judged == pytest.approx(deflated_sharpe(returns, trials), rel=1e-6)


def test_the_same_order_has_the_same_evidence() -> None:
    assert given_on(market()) == given_on(market())


def test_what_was_before_the_span_is_not_judged() -> None:
    bars = market()
    given = given_on(bars, 2000)
    assert given.figures is not None and given.figures.bars == 2000
    trial = trial_on(bars, 2000)
    run = trial.run()
    path = trial.path(run)
    assert len(path) == 2001
    assert path[-1] / path[0] - 1 == pytest.approx(given.figures.net_return, rel=1e-12)


def test_each_figure_is_what_its_name_says() -> None:
    trial = trial_on(market())
    run = trial.run()
    told = evidence_metrics(trial, run, np.random.default_rng(1))
    dearer = trial.run(slippage=3.0).figures
    assert dearer.net_return < trial.run(slippage=2.0).figures.net_return < run.figures.net_return
    years = run.figures.bars / (365.2425 * 24)
    assert told["triple_slippage_calmar"] == pytest.approx(
        ((1 + dearer.net_return) ** (1 / years) - 1) / dearer.max_drawdown, rel=1e-9
    )
    assert told["crash_drawdown"] > max(0.15, run.figures.max_drawdown)  # 20 % against most of what is held
    assert -1.0 <= told["correlation"] <= 1.0
    assert told["bootstrap_sharpe_p5"] < run.figures.sharpe
    assert told["bootstrap_drawdown_p95"] > 0.0


def test_without_the_best_three_trades_is_the_return_less_what_they_earned() -> None:
    trial = trial_on(market())
    run = trial.run()
    results = sorted(float(trade.pnl) for trade in trial.trades(run))
    assert len(results) == run.stats.trades > 10
    told = evidence_metrics(trial, run, np.random.default_rng(1))["without_top_3_net_return"]
    assert told == pytest.approx(run.figures.net_return - sum(results[-3:]) / 10_000)  # of the cash it began with


def test_what_was_held_earned_what_the_curve_earned() -> None:
    trial = trial_on(market())
    run = trial.run()
    shares = shares_held(trial, run)
    before = np.concatenate([trial.bars.open[:1], trial.bars.close[:-1]])[trial.trade_from :]
    gross = shares * (trial.bars.close[trial.trade_from :] / before - 1.0)
    returns = np.diff(trial.path(run)) / trial.path(run)[:-1]
    is_held = shares > 0.0
    held_before = np.concatenate([[False], is_held[:-1]])
    assert is_held.sum() > 1000
    assert returns[is_held & held_before] == pytest.approx(gross[is_held & held_before], abs=2e-5)  # a tick and a lot
    assert not returns[~is_held & ~held_before].any()  # on the others fees are paid too


def test_a_preset_that_never_traded_has_no_figures_about_trading() -> None:
    bars = market(1000)
    still = np.full(1000, 100.0)
    told = given_on(Columns.of(bars.opened_at_ms, still, still, still, still, still)).metrics
    assert set(told) == {"without_top_3_net_return", "bootstrap_sharpe_p5", "bootstrap_drawdown_p95", "daily_loss_p99"}
    assert all(value == 0.0 for value in told.values())


def test_the_loss_of_a_day_is_counted_by_the_days_of_utc() -> None:
    # closes at 22:00, 23:00 | 00:00, 23:00 | 00:00: days end at 110, 99 and 103.95: +10 %, -10 %, +5 %
    hours = np.array([22, 23, 24, 47, 48]) * HOUR
    path = np.array([100.0, 80.0, 110.0, 70.0, 99.0, 103.95])
    # the 1st percentile of three lies 2 % of the way from -10 % to +5 %
    assert daily_loss(path, hours) == pytest.approx(0.10 - 0.02 * 0.15)


@pytest.mark.parametrize(("against_long", "sign"), [(True, -1), (False, 1)])
def test_a_crash_is_one_bar_deep_and_is_made_up_for(against_long: bool, sign: int) -> None:
    bars = market(300)
    world = crashed(bars, 100, against_long=against_long, depth=0.2)  # Columns.of holds each bar to be one
    ratio = world.close / bars.close
    assert ratio[:100] == pytest.approx(1.0) and ratio[100] == pytest.approx(1.0 + sign * 0.2)
    assert ratio[100 + RECOVERY_BARS // 2] == pytest.approx(1.0 + sign * 0.1)
    assert ratio[100 + RECOVERY_BARS :] == pytest.approx(1.0)
    assert world.open[100] == bars.open[100]  # nobody could see it coming
    assert world.part(0, 100).sha256() == bars.part(0, 100).sha256()


def test_more_slippage_is_more_of_what_slips_and_nothing_else() -> None:
    costs = Costs(fee_bps=10, slippage_bps=5, spread_bps=2)
    assert with_slippage(costs, 3.0) == msgspec.structs.replace(costs, slippage_bps=15.0, spread_bps=6.0)
    assert with_slippage(Costs(fee_bps=0, slippage_bps=0), 3.0).slippage_bps == 0.0
    assert math.isclose(with_slippage(costs, 1.0).slippage_bps, 5.0)
