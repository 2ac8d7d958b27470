"""Results as pages that need nothing else: charts are SVG, styles are inside, nothing is fetched."""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from services.backtest_suite.charts import Line, Mark, heatmap, histogram, line_chart, marks_chart
from services.backtest_suite.grids import GridResult
from services.backtest_suite.legs import Leg
from services.backtest_suite.manifests import Data, Reading
from services.backtest_suite.results import Result
from services.backtest_suite.stability import PLATEAU
from services.backtest_suite.summaries import (
    LEG_COLUMNS,
    grid_headline,
    headline_of,
    legs_table,
    metrics_table,
    percent,
    plain,
    provenance_of,
    significance_table,
    spelled,
    subject_of,
    title_of,
)
from services.backtest_suite.trades import Trade
from shared.contracts.times import to_ms

TEMPLATES = Path(__file__).parent / "templates"
TRADES_SHOWN = 100
MARKS_SHOWN = 6  # instruments whose prices are drawn
BEST_SHOWN = 25
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Floats = NDArray[np.float64]


def page_of(result: Result) -> str:
    """The report of one run."""
    times, equity = result.experiment.bars.columns.opened_at_ms, result.equity
    trades, quote = result.trades, result.experiment.assumptions.quote
    manifest = result.manifest
    metrics = metrics_table(result)
    half = (len(metrics) + 1) // 2
    shown = trades[-TRADES_SHOWN:]
    of_which = f", the {MARKS_SHOWN} most traded of {len(result.legs):,}" if len(result.legs) > MARKS_SHOWN else ""
    return render(
        "run.html",
        title=title_of(result),
        run_id=result.run_id,
        provenance=provenance_of(result.experiment),
        headline=headline_of(result),
        equity=equity_chart(result, _held(result)),
        drawdown=line_chart(times, [Line("drawdown", _drawdown(equity), "bad")], percent_axis, 160, under="under"),
        marks=[
            (leg.symbol, marks_chart(times, leg.close, _marks(leg.trades), plain)) for leg in _most_traded(result.legs)
        ],
        marks_note=f"{len(trades):,} round trips{of_which}; green earned, red lost, net of costs",
        legs=legs_table(result) if len(result.legs) > 1 else [],
        leg_columns=LEG_COLUMNS,
        months=MONTHS,
        monthly=_monthly(times, equity),
        returns=histogram(_changes(equity), percent_axis),
        results=histogram(_results(result), percent_axis),
        metrics=(metrics[:half], metrics[half:]),
        significance=significance_table(result),
        trades=[_trade_row(trade) for trade in reversed(shown)],
        trades_note=f"the last {len(shown):,} of {len(trades):,}, in {quote}; all are in trades.csv",
        again=[
            ("repeat", "trimtab backtest run --from-manifest manifest.json"),
            ("data", f"{_read_from(manifest.data)}, SHA-256 {manifest.data.sha256}"),
            ("code", f"{manifest.strategy_file or manifest.strategy}, SHA-256 {manifest.source_sha256}"),
            ("fingerprint", manifest.fingerprint),
            ("result", f"SHA-256 {manifest.result_sha256}"),
            ("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ],
    )


def equity_chart(result: Result, held: Floats | None = None) -> str:
    """Equity over time, and beside it the same cash simply held."""
    lines = [Line(result.experiment.strategy.name, result.equity, "accent")]
    if held is not None:
        lines.append(Line(f"{result.experiment.bars.symbol} held", held, "faint"))
    return line_chart(result.experiment.bars.columns.opened_at_ms, lines, plain)


def grid_page_of(grid: GridResult) -> str:
    """The report of a grid."""
    best = grid.best(BEST_SHOWN)
    chart, axes = grid_map(grid)
    varied = list(grid.axes)
    return render(
        "grid.html",
        title=subject_of(grid.experiment),
        provenance=provenance_of(grid.experiment),
        headline=grid_headline(grid),
        metric=grid.metric,
        map=chart,
        axes=axes,
        map_note="the best is outlined; other parameters are as in it",
        columns=(*varied, grid.metric, "plateau", "", "at the edge of", "net return", "drawdown", "trades"),
        best=[
            (
                *(plain(one.outcome.params[name]) for name in varied),
                plain(one.value),
                plain(one.plateau),
                "peak" if one.is_peak else "plateau",
                ", ".join(one.edges) or "–",
                percent(one.figures.net_return),
                percent(-one.figures.max_drawdown),
                f"{one.figures.trades:,}",
            )
            for one in best
        ],
        plateau=PLATEAU,
        failures=[(spelled(failed.params), failed.failure) for failed in grid.failures[:BEST_SHOWN]],
        again=[
            (
                "command",
                shlex.join(["trimtab", "backtest", "grid", grid.experiment.strategy.name])
                + "".join(f" --grid {name}={','.join(map(str, values))}" for name, values in grid.axes.items()),
            ),
            ("data", f"SHA-256 {grid.experiment.bars.sha256}"),
            ("code", f"SHA-256 {grid.experiment.strategy.source}"),
        ],
    )


def grid_map(grid: GridResult) -> tuple[str, tuple[str, str] | None]:
    """The heatmap over the two longest axes, and which they are. Nothing for a grid of one axis."""
    axes, best = grid.surface.widest(), grid.best(1)
    if axes is None or not best:
        return "", None
    params = best[0].outcome.params
    values = grid.sign * grid.surface.section(*axes, through=params)
    rows, columns = (grid.surface.axes[name] for name in axes)
    place = rows.index(params[axes[0]]), columns.index(params[axes[1]])
    return heatmap(values, [f"{v:g}" for v in rows], [f"{v:g}" for v in columns], place, grid.sign < 0), axes


def percent_axis(value: float) -> str:
    return f"{value * 100:.4g} %"


def _read_from(data: Data) -> str:
    if data.members:
        return ", ".join(dict.fromkeys(map(_read_from, data.members)))
    match data.reading:
        case None:
            return "given by a program"
        case Reading(path="", stack=stack):
            return f"the ingester of the stack on {stack}"
        case Reading(path=path):
            return path


def _changes(equity: Floats) -> Floats:
    """Returns of the bars in which equity changed (k,)."""
    changes = np.diff(equity) / equity[:-1]
    return changes[changes != 0.0]


def _drawdown(equity: Floats) -> Floats:
    return equity / np.maximum.accumulate(equity) - 1.0


def _results(result: Result) -> Floats:
    """What each trade earned, of what it was entered for."""
    return np.array([float(t.pnl) / (float(t.quantity) * t.entry_price) for t in result.trades])


def _held(result: Result) -> Floats:
    """The same cash simply held from the first bar on that counts (n,), NaN before."""
    worth = result.experiment.bars.held(result.first_bar)
    return np.concatenate([np.full(result.first_bar, math.nan), float(result.equity[0]) * worth / worth[0]])


def _most_traded(legs: Sequence[Leg]) -> list[Leg]:
    return sorted(legs, key=lambda leg: len(leg.trades), reverse=True)[:MARKS_SHOWN]


def _marks(trades: Sequence[Trade]) -> list[Mark]:
    return [
        Mark(
            to_ms(trade.entry_at),
            to_ms(trade.exit_at),
            trade.entry_price,
            trade.exit_price,
            trade.pnl > 0,
            f"{trade.side} {trade.quantity} from {trade.entry_at:%Y-%m-%d %H:%M} to {trade.exit_at:%Y-%m-%d %H:%M}: "
            f"{trade.pnl:+,.2f} ({trade.reason})",
        )
        for trade in trades
    ]


def _trade_row(trade: Trade) -> tuple[list[str], str]:
    row = [
        trade.symbol,
        f"{trade.entry_at:%Y-%m-%d %H:%M}",
        f"{trade.exit_at:%Y-%m-%d %H:%M}",
        trade.side,
        f"{float(trade.quantity):,.8g}",
        f"{trade.entry_price:,.8g}",
        f"{trade.exit_price:,.8g}",
        f"{trade.fees:,.2f}",
        f"{trade.pnl:+,.2f}",
        f"{trade.result_r:+.2f}",
        f"{trade.bars_held:,}",
        trade.reason,
    ]
    return row, "good" if trade.pnl > 0 else "bad"


def _monthly(times: NDArray[np.int64], equity: Floats) -> list[tuple[str, list[tuple[str, str]]]]:
    """Years with their months and their own: from the last close of a month to that of the next."""
    months = times.astype("datetime64[ms]").astype("datetime64[M]").astype(np.int64)
    ends = np.append(np.flatnonzero(np.diff(months)), len(months) - 1)
    at_end = equity[ends]
    before = np.append(equity[0], at_end[:-1])
    returns = dict(zip(months[ends].tolist(), (at_end / before - 1.0).tolist(), strict=True))
    table: list[tuple[str, list[tuple[str, str]]]] = []
    for year in range(min(returns) // 12, max(returns) // 12 + 1):
        own = [returns.get(12 * year + month) for month in range(12)]
        whole = float(np.prod([1.0 + value for value in own if value is not None]) - 1.0)
        table.append((str(1970 + year), [_cell(value) for value in (*own, whole)]))
    return table


def _cell(value: float | None) -> tuple[str, str]:
    if value is None or value == 0.0:
        return ("" if value is None else "0.0"), "quiet"
    return f"{100 * value:+.1f}", "good" if value > 0 else "bad"


def render(template: str, **values: Any) -> str:
    """A page or card of `templates/`, with the styles that all share."""
    return _templates().get_template(template).render(css=_css(), **values)


@functools.cache
def _css() -> str:
    return (TEMPLATES / "report.css").read_text(encoding="utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
