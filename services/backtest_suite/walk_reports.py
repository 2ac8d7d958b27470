"""A walk-forward as files and as a page, next to the reports of runs and grids."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path

import msgspec

from services.backtest_suite.charts import Line, line_chart
from services.backtest_suite.pages import render
from services.backtest_suite.reports import equity_parquet, publish, trades_csv
from services.backtest_suite.summaries import (
    WALK_COLUMNS,
    plain,
    provenance_of,
    scheme_told,
    significance_table,
    subject_of,
    walk_headline,
    walk_row,
)
from services.backtest_suite.walk_forward import WalkForward


def write_walk(walk: WalkForward, folder: Path) -> None:
    """`report.html`, `windows.csv`, `walk_forward.json`, and `trades.csv` and `equity.parquet` of the one run."""
    publish(
        folder,
        {
            "report.html": walk_page_of(walk).encode(),
            "windows.csv": _windows_csv(walk),
            "walk_forward.json": msgspec.json.format(msgspec.json.encode(walk.summary()), indent=2),
            "trades.csv": trades_csv(walk.result),
            "equity.parquet": equity_parquet(walk.result),
        },
    )


def walk_page_of(walk: WalkForward) -> str:
    """The report: the out-of-sample equity first, then window by window what was promised and what came."""
    result, bars = walk.result, walk.experiment.bars
    first = walk.steps[0].window.test_from
    held = result.experiment.bars.held(first)
    tested = result.experiment.bars.columns.opened_at_ms[first:]
    equity = [
        Line("out of sample", result.equity[first:], "accent"),
        Line(f"{bars.symbol} held", float(result.equity[first]) * held / held[0], "faint"),
    ]
    return render(
        "walk_forward.html",
        title=subject_of(walk.experiment),
        scheme=scheme_told(walk),
        provenance=provenance_of(walk.experiment),
        headline=walk_headline(walk),
        equity=line_chart(tested, equity, plain),
        columns=WALK_COLUMNS,
        windows=[walk_row(walk, step) for step in walk.steps],
        significance=significance_table(result),
        again=[
            ("command", shlex.join(["trimtab", "backtest", "walk-forward", walk.experiment.strategy.name])),
            ("windows", scheme_told(walk)),
            ("seed", str(walk.experiment.assumptions.seed)),
            ("data", f"SHA-256 {bars.sha256}"),
            ("code", f"SHA-256 {walk.experiment.strategy.source}"),
            ("result", f"SHA-256 {result.result_sha256}"),
        ],
    )


def _windows_csv(walk: WalkForward) -> bytes:
    out = io.StringIO()
    lines = csv.writer(out)
    lines.writerow(WALK_COLUMNS)
    lines.writerows(walk_row(walk, step) for step in walk.steps)
    return out.getvalue().encode()
