"""What came of a loop: counted from what was said on the bus, and compared with other ways of choosing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from services.backtest_suite.data import Bars
from services.backtest_suite.metrics import Metrics, metrics_of
from services.closed_loop.contribution import Contribution, Epoch, Floats, contribution
from services.closed_loop.house import House, Plan
from services.closed_loop.replay import Market
from services.param_controller.settings import ParamSettings
from shared.artifacts.presets import default_preset, preset_from_bytes, preset_id
from shared.contracts import subjects as said
from shared.contracts.governance import Costs, PresetPromoted
from shared.contracts.parameters import ParamDecision
from shared.contracts.times import to_ms
from shared.contracts.wire import Message
from shared.trading.columns import Columns
from shared.trading.compiled import Terms, scan
from shared.trading.loop import typical_range
from shared.trading.performance import periods_per_year
from shared.trading.strategy import Strategy

M = TypeVar("M", bound=Message)


class Outcome(msgspec.Struct, frozen=True):
    """One loop over history."""

    bars: int
    first: str
    last: str
    data_sha256: dict[str, str]
    universe: dict[str, str]
    seed: int
    costs: Costs
    profile: str
    models_promoted: int
    models_refused: int
    presets_promoted: int
    presets_refused: int
    trials: int  # parameter sets that were tried to find the presets
    decisions: int
    fills: int
    trades: int
    fees: float
    halts: tuple[str, ...]  # what a breaker stopped, when and why: from then on nothing was traded
    equity_start: float
    equity_end: float
    metrics: Metrics
    contributions: tuple[Contribution, ...]
    elapsed_s: float


def outcome(house: House, plan: Plan, strategies: Mapping[str, Strategy], elapsed_s: float) -> Outcome:
    """Count and compare. Everything here follows from the messages and the bars: the same loop, the same outcome."""
    server, market = house.server, house.replay.market
    snapshots = server.said(said.PORTFOLIO_SNAPSHOT)
    trades = server.said(said.TRADE_CLOSED)
    stages = server.said(said.STAGE_CHANGED)
    promotions, decisions = server.said(said.PRESET_PROMOTED), server.said(said.PARAM_DECISION)
    equity = np.array([float(one.equity) for one in snapshots])
    some = next(iter(market.bars.values()))
    return Outcome(
        bars=house.replay.bars,
        first=f"{snapshots[0].at:%Y-%m-%d %H:%M}",
        last=f"{snapshots[-1].at:%Y-%m-%d %H:%M}",
        data_sha256={symbol: bars.sha256 for symbol, bars in market.bars.items()},
        universe={symbol: bars.universe for symbol, bars in market.bars.items()},
        seed=plan.seed,
        costs=Costs(fee_bps=plan.fee_bps, slippage_bps=plan.slippage_bps),
        profile=plan.profile,
        models_promoted=len(server.said(said.MODEL_PROMOTED)),
        models_refused=sum(one.kind == "model" and one.after == "refused" for one in stages),
        presets_promoted=sum(bool(one.evidence_id) for one in promotions),
        presets_refused=len(server.said(said.PRESET_REFUSED)),
        trials=sum(
            {(o.strategy, o.symbol, o.proposed_at): o.trials for o in server.said(said.PRESET_CANDIDATE)}.values()
        ),
        decisions=len(decisions),
        fills=len(server.said(said.TRADE_FILL)),
        trades=len(trades),
        fees=float(snapshots[-1].fees),
        halts=tuple(
            f"{one.at:%Y-%m-%d %H:%M} {one.breaker}: {one.reason}"
            for one in server.said(said.BREAKER_TRIPPED)
            if one.after == "halted" != one.before
        ),
        equity_start=float(plan.cash),
        equity_end=float(snapshots[-1].equity),
        metrics=metrics_of(equity, periods_per_year=periods_per_year(market.timeframe, some.instrument.calendar)),
        contributions=tuple(_contributions(market, plan, strategies, promotions, decisions)),
        elapsed_s=elapsed_s,
    )


def _contributions(
    market: Market,
    plan: Plan,
    strategies: Mapping[str, Strategy],
    promotions: Sequence[PresetPromoted],
    choices: Sequence[ParamDecision],
) -> list[Contribution]:
    settings = ParamSettings.load()
    params = {one.preset_id: preset_from_bytes(one.preset).params for one in promotions}
    made: list[Contribution] = []
    sleeves: dict[tuple[str, str], list[ParamDecision]] = {}
    for decision in choices:
        sleeves.setdefault((decision.strategy, decision.symbol), []).append(decision)
    for (name, symbol), decisions in sorted(sleeves.items()):
        strategy, bars = strategies[name], market.bars[symbol]
        default = default_preset(strategy, symbol, market.timeframe)
        known = {**params, preset_id(default): default.params}
        begins = np.searchsorted(bars.columns.opened_at_ms, [to_ms(one.decided_on) for one in decisions])
        presets = {preset for one in decisions for preset in one.propensities}
        gains = {
            preset: _gains(strategy, bars, known[preset], plan, begins) for preset in presets | {preset_id(default)}
        }
        epochs = [Epoch(tuple(one.propensities), one.preset_id, one.context) for one in decisions]
        compared = contribution(
            f"{name}.{symbol}",
            epochs,
            gains,
            preset_id(default),
            _risks(bars.columns, begins),
            l2=settings.l2,
            exploration=settings.exploration,
            seed=plan.seed,
        )
        made.append(compared)
    return made


def _gains(strategy: Strategy, bars: Bars, params: Mapping[str, object], plan: Plan, begins: Any) -> Floats:
    """The log return of one preset alone in each epoch (n,)."""
    costs = Costs(fee_bps=plan.fee_bps, slippage_bps=plan.slippage_bps)
    terms = Terms(bars.instrument, bars.timeframe, costs, plan.cash)
    run = scan(strategy, bars.columns, params, terms, trade_from=int(begins[0]), with_curve=True)
    assert run.curve is not None
    ends = np.append(begins[1:], len(bars.columns) - 1)
    curve = np.maximum(run.curve.astype(np.float64), 1.0)  # a ruined preset has lost all, not the logarithm of it
    return np.log(curve[ends] / curve[begins])


def _risks(columns: Columns, begins: Any) -> Floats:
    """Mean true range over the close where each epoch begins (n,); 1e-4 where the market does not move."""
    high, low, close = (column.tolist() for column in (columns.high, columns.low, columns.close))
    found = [typical_range(high, low, close, int(i)) / close[i] for i in begins]
    return np.maximum(np.nan_to_num(np.array(found)), 1e-4)


def show(told: Outcome, console: Console) -> None:
    """On a terminal, on one page."""
    universe = ", ".join(f"{symbol} ({kind})" for symbol, kind in told.universe.items())
    console.print(
        f"[bold]Closed loop[/] over {universe}, {told.first} to {told.last}, {told.bars:,} bars; seed {told.seed},"
    )
    console.print(
        f"fee {told.costs.fee_bps:g} bps, slippage {told.costs.slippage_bps:g} bps, gate {told.profile}. Every figure is out of"
        " sample: each bar was decided on by what was known before it."
    )
    figures = told.metrics
    console.print(
        f"\nnet return {figures.total_return:+.2%}   Sharpe {figures.sharpe:.2f}   max drawdown {figures.max_drawdown:.2%}"
        f"   trades {told.trades}   fees {told.fees:,.2f}"
    )
    console.print(
        f"models {told.models_promoted} promoted, {told.models_refused} refused; presets {told.presets_promoted} promoted,"
        f" {told.presets_refused} refused, of {told.trials:,} parameter sets tried; {told.decisions} choices\n"
    )
    for halt in told.halts:
        console.print(f"[bold]halted[/] {halt}")
    for one in told.contributions:
        table = Table(
            *one.net_return, title=f"{one.sleeve}: {one.epochs} epochs, {one.presets} presets", title_justify="left"
        )
        table.add_row(*(f"{value:+.2%}" for value in one.net_return.values()))
        console.print(table)
        if one.presets < 2:
            console.print("One preset was all there was: nothing was chosen.")
            continue
        console.print(
            f"An epoch earned {_said(one.bandit)} more than equal choice, {_said(one.over_best)} more than the "
            f"best single preset in hindsight; seeing the regime added {_said(one.regime)}."
        )
    console.print(f"\n{told.elapsed_s:.1f} s")


def _said(one: Any) -> str:
    error = "?" if math.isnan(one.standard_error) else f"{one.standard_error:.3%}"
    return f"{one.mean:+.3%} (standard error {error})"
