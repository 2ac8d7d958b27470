"""Evidence on a preset, on the span that the governor chose: what it earned, and what it would have earned in worse worlds."""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np

from services.backtest_suite.bars import terms_for
from services.backtest_suite.driver import WARMUPS
from services.backtest_suite.formulas import calmar, correlation, kurtosis, path_of, returns_of, skew, total_return
from services.backtest_suite.manifests import span_of
from services.backtest_suite.significance import (
    bootstrap_drawdowns,
    bootstrap_sharpes,
    interval,
    permutation_percentile,
    sharpe_error,
)
from services.backtest_suite.stress import crashed, with_slippage
from services.backtest_suite.trades import Trade, trades_of
from shared.artifacts.presets import preset_from_bytes
from shared.contracts.errors import BadMessage
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.times import timeframe_length, to_ms
from shared.trading.columns import Columns, Floats, Integers
from shared.trading.compiled import Failure, Run, Terms, scan
from shared.trading.performance import periods_per_year
from shared.trading.scales import Scale
from shared.trading.strategy import BadParams, Strategy

DAY_MS = 86_400_000
CRASHES = 5  # worlds with one crash each, at bars drawn from those on which something is held


def strategy_of(order: EvidenceOrdered, strategies: Mapping[str, Strategy]) -> tuple[Strategy, Any]:
    """The strategy and the checked parameters that are to be judged. Raises BadMessage when they are not ours."""
    preset = preset_from_bytes(order.preset, order.subject_id)
    strategy = strategies.get(preset.strategy)
    if strategy is None:
        raise BadMessage(f"Expected a strategy among {', '.join(sorted(strategies))}, was {preset.strategy!r}.")
    if strategy.source != preset.source_hash:
        raise BadMessage(
            f"Strategy {strategy.name} is {strategy.source[:12]} here, the preset was made for {preset.source_hash[:12]}."
        )
    try:
        return strategy, strategy.params(preset.params)
    except BadParams as error:
        raise BadMessage(str(error)) from error


def first_needed(order: EvidenceOrdered, strategy: Strategy, params: Any) -> datetime:
    """From where on bars are needed, so that the strategy is warm when the span begins."""
    return order.first - WARMUPS * strategy.warmup(params) * timeframe_length(order.timeframe)


def evidence(order: EvidenceOrdered, strategy: Strategy, params: Any, bars: Columns, trials: int) -> EvidenceGiven:
    """What the preset earns on the bars within the span. `bars` begin earlier, for the warm-up."""
    judged = bars.between(to_ms(order.first), to_ms(order.last))
    if not len(judged):
        raise BadMessage(f"There are no bars of {order.symbol} from {order.first} to {order.last}.")
    known = bars.between(0, to_ms(order.last))
    trial = Trial(strategy, params, known, len(known) - len(judged), order)
    span = span_of(judged)
    seed = hashlib.sha256(f"{order.subject_id}.{span.data_sha256}".encode()).digest()
    try:
        run = trial.run()
        stressed = trial.run(slippage=2.0)
        metrics = evidence_metrics(trial, run, np.random.default_rng(int.from_bytes(seed[:8])))
    except Failure as error:
        raise BadMessage(str(error)) from error
    return EvidenceGiven(
        job_id=order.job_id,
        worker="backtest_suite",
        subject_id=order.subject_id,
        span=span,
        figures=run.figures,
        stressed=stressed.figures,
        metrics=metrics,
        trials=trials,
        failure="",
        given_at=order.ordered_at,
    )


@dataclass(frozen=True)
class Trial:
    """One preset on one span, to be run in several worlds. Orders are made from bar `trade_from` on."""

    strategy: Strategy
    params: Any
    bars: Columns
    trade_from: int
    order: EvidenceOrdered

    @cached_property
    def terms(self) -> Terms:
        return terms_for(self.order.symbol, self.order.timeframe, self.bars, self.order.costs)

    @cached_property
    def scale(self) -> Scale:
        return Scale.of(self.terms.instrument)

    @property
    def periods_per_year(self) -> float:
        return periods_per_year(self.terms.timeframe, self.terms.instrument.calendar)

    def run(self, *, slippage: float = 1.0, on: Columns | None = None) -> Run:
        """The run with so many times the slippage, or on other bars. Raises Failure as `scan` does."""
        return scan(
            self.strategy,
            self.bars if on is None else on,
            self.params,
            replace(self.terms, costs=with_slippage(self.terms.costs, slippage)),
            trade_from=self.trade_from,
            with_curve=True,
            with_fills=True,
        )

    def path(self, run: Run) -> Floats:
        """The worth before the span and at each of its n closes, in ledger units (n + 1,)."""
        assert run.curve is not None
        return path_of(run.curve[self.trade_from :], self.scale.units(self.terms.cash))

    def trades(self, run: Run) -> list[Trade]:
        """The closed trades of a run, oldest first."""
        assert run.fills is not None
        assert run.charges is not None
        return trades_of(run.fills, run.charges, self.bars.opened_at_ms, self.scale)


def evidence_metrics(trial: Trial, run: Run, rng: np.random.Generator) -> dict[str, float]:
    """What a gate may ask beside the figures. What cannot be known is left out: there a gate's rule fails.

    triple_slippage_calmar    Calmar ratio with three times the slippage
    crash_drawdown            deepest drawdown of runs in which the price crashes against what is held (`stress`)
    without_top_3_net_return  net return if the three best trades had earned nothing
    bootstrap_sharpe_p5       5th percentile of the annual Sharpe ratio, stationary bootstrap
    bootstrap_drawdown_p95    95th percentile of the maximum drawdown, the same resamples of returns
    permutation_percentile    of what was earned, among shuffled entries
    correlation               of the bars' returns with the market's
    daily_loss_p99            loss of a day (UTC) that one in a hundred days exceeds; below 0: there was none
    sharpe_error              standard error of the annual Sharpe ratio
    skew, kurtosis            of the bars' returns
    """
    path, market, shares = trial.path(run), _market(trial), shares_held(trial, run)
    returns, per_year = returns_of(path), trial.periods_per_year
    best = heapq.nlargest(3, (max(trade.pnl, Decimal(0)) for trade in trial.trades(run)))
    found = {
        "triple_slippage_calmar": calmar(trial.path(trial.run(slippage=3.0)), per_year),
        "crash_drawdown": _crash_drawdown(trial, shares, rng),
        "without_top_3_net_return": total_return(path) - float(sum(best) / trial.terms.cash),
        "bootstrap_sharpe_p5": interval(bootstrap_sharpes(returns, per_year, rng))[0],
        "bootstrap_drawdown_p95": interval(bootstrap_drawdowns(returns, rng))[1],
        "permutation_percentile": permutation_percentile(shares, market, rng),
        "correlation": correlation(returns, market),
        "daily_loss_p99": daily_loss(path, trial.bars.opened_at_ms[trial.trade_from :]),
        "sharpe_error": sharpe_error(returns, per_year),
        "skew": skew(returns),
        "kurtosis": kurtosis(returns),
    }
    return {name: value for name, value in found.items() if not math.isnan(value)}


def _market(trial: Trial) -> Floats:
    """The market's return in each bar of the span (n,), from close to close."""
    bars, first = trial.bars, trial.trade_from
    before = np.concatenate([bars.open[:1], bars.close[:-1]])  # nothing closed before the first bar of all
    return bars.close[first:] / before[first:] - 1.0


def shares_held(trial: Trial, run: Run) -> Floats:
    """What was held during each bar of the span, after the fill at its open, as a share of the worth before (n,)."""
    assert run.fills is not None
    held = np.zeros(len(trial.bars))
    np.add.at(held, run.fills[:, 0], run.fills[:, 1])
    lots = np.cumsum(held)[trial.trade_from :]
    before = np.concatenate([trial.bars.open[:1], trial.bars.close[:-1]])[trial.trade_from :]
    return lots * float(trial.scale.unit / trial.scale.tick) * before / trial.path(run)[:-1]


def _crash_drawdown(trial: Trial, shares: Floats, rng: np.random.Generator) -> float:
    held = np.flatnonzero(shares)
    if not len(held):
        return math.nan
    places = rng.choice(held, min(CRASHES, len(held)), replace=False)
    worlds = (crashed(trial.bars, trial.trade_from + int(i), against_long=bool(shares[i] > 0.0)) for i in places)
    return max(trial.run(on=world).figures.max_drawdown for world in worlds)


def daily_loss(path: Floats, opened_at_ms: Integers) -> float:
    """The loss that one day in a hundred exceeds, by the worth at the last close of each UTC day."""
    ends = np.flatnonzero(np.diff(opened_at_ms // DAY_MS, append=-1))
    return 0.0 - float(np.quantile(returns_of(np.concatenate([path[:1], path[1:][ends]])), 0.01))
