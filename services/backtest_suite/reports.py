"""Results as files. Either all files of a result are there or none: they are written under other names and renamed."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from services.backtest_suite.grids import METRICS, GridResult
from services.backtest_suite.pages import grid_page_of, page_of
from services.backtest_suite.results import Result
from shared.contracts.errors import NeedsOperator

TRADE_COLUMNS = (
    "symbol",
    "entry_at",
    "exit_at",
    "side",
    "quantity",
    "entry_price",
    "exit_price",
    "fees",
    "charges",
    "pnl",
    "risk",
    "result_r",
    "bars_held",
    "reason",
)


def write_run(result: Result, folder: Path) -> None:
    """`report.html`, `trades.csv`, `equity.parquet` and `manifest.json`. Raises NeedsOperator when the disk refuses."""
    publish(
        folder,
        {
            "report.html": page_of(result).encode(),
            "trades.csv": trades_csv(result),
            "equity.parquet": equity_parquet(result),
            "manifest.json": msgspec.json.format(msgspec.json.encode(result.manifest), indent=2),
        },
    )


def write_grid(grid: GridResult, folder: Path) -> None:
    """`report.html` and `grid.csv`, a line for every parameter set."""
    publish(folder, {"report.html": grid_page_of(grid).encode(), "grid.csv": _grid_csv(grid)})


def publish(folder: Path, contents: Mapping[str, bytes]) -> None:
    """All of these files, or none: nobody ever sees half of a result."""
    written: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            unnamed = folder / f".{name}.{os.getpid()}"
            written[unnamed] = folder / name
            unnamed.write_bytes(content)
        for unnamed, named in written.items():
            unnamed.replace(named)
    except OSError as error:
        for unnamed in written:
            unnamed.unlink(missing_ok=True)
        raise NeedsOperator(
            f"The results could not be written to {folder}: {error}. Nothing half-written is left. Make room, or name "
            "another --output-dir."
        ) from error


def trades_csv(result: Result) -> bytes:
    """A line for each round trip; amounts exact, times UTC."""
    out = io.StringIO()
    lines = csv.writer(out)
    lines.writerow(TRADE_COLUMNS)
    for trade in result.trades:
        row = [getattr(trade, name) for name in TRADE_COLUMNS]
        lines.writerow([value.isoformat() if hasattr(value, "isoformat") else value for value in row])
    return out.getvalue().encode()


def equity_parquet(result: Result) -> bytes:
    """Columns timestamp (ms since 1970 UTC, the bar's open) and equity at its close (quote currency)."""
    import pyarrow as pa
    import pyarrow.parquet

    out = io.BytesIO()
    times = result.experiment.bars.columns.opened_at_ms
    pyarrow.parquet.write_table(pa.table({"timestamp": times, "equity": result.equity}), out, compression="zstd")
    return out.getvalue()


def _grid_csv(grid: GridResult) -> bytes:
    out = io.StringIO()
    lines = csv.writer(out)
    names = list(grid.outcomes[0].params)
    lines.writerow([*names, *METRICS, "failure"])
    for one in grid.outcomes:
        told = [getattr(one.figures, name) if one.figures else "" for name in METRICS]
        lines.writerow([*one.params.values(), *told, one.failure])
    return out.getvalue().encode()
