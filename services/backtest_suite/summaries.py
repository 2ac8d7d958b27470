"""What a result says in a few words, with what qualifies it: the same on the terminal, in reports and in notebooks."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import NamedTuple

import msgspec
import numpy as np

from services.backtest_suite.driver import Experiment
from services.backtest_suite.grids import GridResult
from services.backtest_suite.manifests import Params, versions
from services.backtest_suite.panels import Panel
from services.backtest_suite.results import Result
from services.backtest_suite.significance import deflated_sharpe, probabilistic_sharpe, sharpe_error
from services.backtest_suite.walk_forward import Step, WalkForward
from shared.contracts.governance import Costs
from shared.contracts.times import from_ms

HASH_SHOWN = 12  # characters
UNIVERSES = {
    "point_in_time": "as it was then",
    "survivors": "survivors only: too good to be true",
    "unknown": "unknown: survivors perhaps",
}
# Of Metrics: what is a fraction, and what is the place of a bar.
FRACTIONS = {
    "total_return",
    "cagr",
    "volatility",
    "max_drawdown",
    "value_at_risk",
    "conditional_value_at_risk",
    "exposure",
    "win_rate",
    "alpha",
}
SIGNED = {"total_return", "cagr", "alpha"}
BAR_NAMES = {"drawdown_from", "drawdown_trough", "drawdown_to"}
FILLS = {"next_open": "at the next open", "same_close": "at the same close", "next_close": "at the next close"}


class Said(NamedTuple):
    """One thing that qualifies a headline."""

    name: str
    value: str
    is_warning: bool = False


class Tile(NamedTuple):
    """One figure of the headline, and what it must not be read without."""

    name: str
    value: str
    note: str


def percent(value: float, digits: int = 2) -> str:
    """A fraction as people read it: `+12.30 %`."""
    return "–" if math.isnan(value) else f"{value:+.{digits}%}".replace("%", " %")


def chance(value: float) -> str:
    """A probability as people read it."""
    return "–" if math.isnan(value) else f"{value:.1%}".replace("%", " %")


def trials(count: int) -> str:
    """`1 trial`, `342 trials`."""
    return "1 trial" if count == 1 else f"{count:,} trials"


def plain(value: float) -> str:
    """A number of about four digits; `–` when nothing is known."""
    if math.isnan(value):
        return "–"
    return "∞" if math.isinf(value) else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"


def spelled(params: Params) -> str:
    """`fast=20, slow=100`."""
    return ", ".join(f"{name}={value:g}" for name, value in params.items())


def provenance_of(experiment: Experiment) -> list[Said]:
    """Data, universe, costs, seed and versions: printed beside every headline."""
    bars, a = experiment.bars, experiment.assumptions
    fundings = sum(len(each.funding) for each in bars.members if each.funding is not None)
    sized = f"{a.exposure:g} x the strategy's exposure"
    if isinstance(bars, Panel):
        sized = "the strategy's weights"
        if a.rebalance_band:
            sized += f", left alone within {a.rebalance_band:.1%} of the equity"
    elif a.size is not None:
        sized = f"{a.size} {bars.instrument.base}"
    said = [
        Said("data", f"{bars.symbol} {bars.timeframe}"),
        Said("from", f"{bars.first:%Y-%m-%d}"),
        Said("to", f"{bars.last:%Y-%m-%d}"),
        Said("bars", f"{len(bars):,}"),
        Said("universe", UNIVERSES[bars.universe], bars.universe != "point_in_time"),
        Said("costs", costs_told(a.costs) + (f", {fundings:,} fundings" if fundings else "")),
        Said("cash", f"{a.cash:,} {a.quote}"),
        Said("size", sized),
        Said("filled", FILLS[a.fill]),
        Said("seed", str(a.seed)),
        Said("data hash", bars.sha256[:HASH_SHOWN]),
        Said("code", experiment.strategy.source[:HASH_SHOWN]),
        Said("trimtab", versions()["trimtab"]),
    ]
    if bars.missing:
        said.insert(4, Said("gaps", f"{bars.gaps} ({bars.missing} bars)"))
    return said


def costs_told(costs: Costs) -> str:
    """`fee 10 bps, slippage 5 bps`, and whatever else is charged."""
    told = [f"fee {costs.fee_bps:g} bps", f"slippage {costs.slippage_bps:g} bps"]
    if costs.maker_bps is not None:
        told.append(f"maker {costs.maker_bps:g} bps")
    if costs.spread_bps:
        told.append(f"spread {costs.spread_bps:g} bps")
    if costs.min_fee:
        told.append(f"at least {costs.min_fee} a fill")
    if costs.tiers:
        told.append("then " + ", ".join(f"{bps:g} bps from {notional:,}" for notional, bps in costs.tiers))
    if (model := costs.slippage_model) is not None:
        follows = [name for name in ("volatility", "size") if getattr(model, name)]
        follows += [f"{name} x {getattr(model, name):g}" for name in ("weekend", "stress") if getattr(model, name) != 1]
        follows += [f"noise {model.noise:g}"] if model.noise else []
        told.append(f"moving by {', '.join(follows) or 'nothing'}")
    if costs.borrow_bps_year is not None:
        told.append(f"borrow {costs.borrow_bps_year:g} bps a year")
    if costs.max_volume_share:
        told.append(f"at most {costs.max_volume_share:.0%} of a bar's volume")
    return ", ".join(told)


def title_of(result: Result) -> str:
    return f"{result.experiment.strategy.name} ({spelled(result.params)})"


def subject_of(experiment: Experiment) -> str:
    """`momentum on BTC-USDT 1h`"""
    return f"{experiment.strategy.name} on {experiment.bars.symbol} {experiment.bars.timeframe}"


def headline_of(result: Result) -> list[Tile]:
    """The figures that one looks at first, none without its qualification."""
    m, quote = result.metrics, result.experiment.assumptions.quote
    held = result.experiment.bars.held(result.first_bar)
    in_r = "" if math.isnan(m.expectancy_r) else f"{plain(m.expectancy_r)} R a trade"
    return [
        Tile("Net return", percent(m.total_return), f"held: {percent(float(held[-1] / held[0]) - 1.0)}"),
        Tile("A year", percent(m.cagr), f"at {percent(m.volatility, 1).lstrip('+')} volatility"),
        Tile("Sharpe, a year", plain(m.sharpe), f"± {plain(sharpe_error(result.returns, result.periods_per_year))}"),
        Tile("Probabilistic Sharpe", chance(probabilistic_sharpe(result.returns)), "chance that it is above 0"),
        Tile(
            "Deflated Sharpe", chance(deflated_sharpe(result.returns, result.trials)), f"after {trials(result.trials)}"
        ),
        Tile("Deepest drawdown", percent(-m.max_drawdown), f"{m.drawdown_bars:,} bars long"),
        Tile("Trades", f"{m.trades:,}", f"{percent(m.win_rate, 1).lstrip('+')} won"),
        Tile("Profit factor", plain(m.profit_factor), in_r),
        Tile("Fees", f"{result.fees:,.2f}", f"{quote}, {result.orders:,} orders"),
        Tile("Final equity", f"{result.equity_final:,.2f}", quote),
    ]


LEG_COLUMNS = ("instrument", "trades", "won", "earned", "fees", "funding, borrowing")


def legs_table(result: Result) -> list[list[str]]:
    """What each instrument brought, under `LEG_COLUMNS`, the largest sums first."""
    return [
        [
            leg.symbol,
            f"{len(leg.trades):,}",
            chance(float(np.mean([trade.pnl > 0 for trade in leg.trades]))) if leg.trades else "–",
            f"{leg.earned:+,.2f}",
            f"{leg.fees:,.2f}",
            f"{leg.paid:,.2f}",
        ]
        for leg in sorted(result.legs, key=lambda leg: abs(leg.earned), reverse=True)
    ]


def metrics_table(result: Result) -> list[tuple[str, str]]:
    """Every figure, as people read it."""
    times = result.experiment.bars.columns.opened_at_ms
    told: list[tuple[str, str]] = []
    for name, value in msgspec.structs.asdict(result.metrics).items():
        match value:
            case None:
                text = "–"
            case int() if name in BAR_NAMES:
                text = f"{from_ms(int(times[max(result.first_bar + value, 0)])):%Y-%m-%d %H:%M}"
            case int():
                text = f"{value:,}"
            case float() if name in FRACTIONS:
                text = percent(value) if name in SIGNED else percent(value).lstrip("+")
            case _:
                text = plain(value)
        told.append((name.replace("_", " "), text))
    return told


def significance_table(result: Result) -> list[tuple[str, str]]:
    """What stands beside the Sharpe ratio."""
    s = result.significance
    return [
        ("Sharpe, a year", plain(s.sharpe)),
        ("standard error", plain(s.sharpe_error)),
        ("90 % of resamples lie within", f"{plain(s.sharpe_low)} to {plain(s.sharpe_high)}"),
        ("chance that it is above 0 (probabilistic Sharpe)", chance(s.probabilistic)),
        ("parameter sets tried on these bars", f"{s.trials:,}"),
        ("chance that it is above the luckiest of them (deflated Sharpe)", chance(s.deflated)),
        ("trades", f"{s.trades:,}"),
    ]


def grid_headline(grid: GridResult) -> list[Tile]:
    """What a grid found, and how much of it is to be believed."""
    values = grid.surface.values
    known = values[np.isfinite(values)]
    tiles = [
        Tile("Combinations", f"{len(grid.outcomes):,}", f"{grid.rule_broken:,} broke the rule"),
        Tile("Computed now", f"{grid.computed:,}", f"{len(grid.outcomes) - grid.computed:,} were known"),
        Tile("Failed", f"{len(grid.failures):,}", ""),
        Tile("Trials on these bars", f"{grid.trials:,}", "ever, with these"),
    ]
    if best := grid.best(1):
        verdict = "a peak" if best[0].is_peak else "a plateau"
        tiles.append(Tile(f"Best {grid.metric}", plain(best[0].value), f"median {plain(float(np.median(known)))}"))
        tiles.append(Tile("Deflated Sharpe", chance(grid.deflated), f"of the best, after {trials(grid.trials)}"))
        tiles.append(Tile("Its neighbours", plain(best[0].plateau), f"{verdict}; 1 = as good"))
    return tiles


def walk_headline(walk: WalkForward) -> list[Tile]:
    """Out of sample, and beside it how far that fell from what training had promised."""
    told = f"{len(walk.steps):,} windows, {walk.sets:,} sets in each"
    return [
        *headline_of(walk.result),
        Tile("Sharpe in sample", plain(walk.in_sample_sharpe), f"mean of what was chosen; {told}"),
        Tile("Degradation", plain(walk.degradation), "Sharpe, in sample to out of sample"),
        Tile("Efficiency", plain(walk.efficiency), "growth a year, out of sample / in sample"),
        Tile("Windows that earned", chance(walk.kept_sign), "out of sample"),
    ]


WALK_COLUMNS = (
    "trained from",
    "to",
    "tested from",
    "to",
    "chosen",
    "Sharpe in sample",
    "out of sample",
    "degradation",
    "return in sample",
    "out of sample",
    "drawdown",
    "trades",
)


def walk_row(walk: WalkForward, step: Step) -> list[str]:
    """One window, under `WALK_COLUMNS`."""
    times, window = walk.experiment.bars.columns.opened_at_ms, step.window
    edges = (window.train_from, window.train_end - 1, window.test_from, window.test_end - 1)
    inside, outside = step.in_sample, step.out_of_sample
    return [
        *(f"{from_ms(int(times[place])):%Y-%m-%d}" for place in edges),
        "nothing: no set traded" if step.chosen is None else spelled(step.chosen.params),
        plain(inside.sharpe),
        plain(outside.sharpe),
        plain(step.degradation),
        percent(inside.net_return),
        percent(outside.net_return),
        percent(-outside.max_drawdown),
        f"{outside.trades:,}",
    ]


def scheme_told(walk: WalkForward) -> str:
    """`365 days to train, 90 days to test, rolling, no embargo; the best by sharpe`."""
    scheme = walk.scheme
    kind = "anchored" if scheme.anchored else "rolling"
    embargo = f"{scheme.embargo:,} bars of embargo" if scheme.embargo else "no embargo"
    return f"{_long(scheme.train)} to train, {_long(scheme.test)} to test, {kind}, {embargo}; the best by {walk.metric}"


def _long(length: timedelta) -> str:
    return f"{length / timedelta(days=1):g} days"
