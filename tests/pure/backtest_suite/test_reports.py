"""What is written: complete, self-contained, and either all of it or nothing."""

from __future__ import annotations

import csv
import json
import re
from decimal import Decimal
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet
import pytest

from services.backtest_suite import charts, pages
from services.backtest_suite.axes import axes_of
from services.backtest_suite.grids import run_grid
from services.backtest_suite.pages import page_of
from services.backtest_suite.reports import publish, write_grid, write_run
from services.backtest_suite.results import Result
from shared.contracts.errors import NeedsOperator
from tests.pure.backtest_suite.markets import FREE, bars_at, experiment
from tests.pure.backtest_suite.test_run_store import python


@pytest.fixture(scope="module")
def result() -> Result:
    return experiment(seed=42).run({"fast": 5, "slow": 20})


def test_a_run_leaves_four_files_that_agree(result: Result, tmp_path: Path) -> None:
    write_run(result, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "equity.parquet",
        "manifest.json",
        "report.html",
        "trades.csv",
    ]
    rows = list(csv.DictReader((tmp_path / "out" / "trades.csv").read_text().splitlines()))
    assert len(rows) == len(result.trades)
    assert sum(Decimal(row["pnl"]) for row in rows) == sum(trade.pnl for trade in result.trades)
    told = [float(row["result_r"]) for row in rows]
    assert sum(told) / len(told) == pytest.approx(result.metrics.expectancy_r)
    assert "<th>In R</th>" in (tmp_path / "out" / "report.html").read_text()
    table = pyarrow.parquet.read_table(tmp_path / "out" / "equity.parquet")
    assert table["timestamp"].to_numpy().tolist() == result.experiment.bars.columns.opened_at_ms.tolist()
    assert np.array_equal(table["equity"].to_numpy(), result.equity)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["fingerprint"] == result.fingerprint
    assert manifest["metrics"]["sharpe"] == result.metrics.sharpe


def test_a_report_fetches_nothing_and_names_what_qualifies_its_headline(result: Result) -> None:
    page = page_of(result)
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    for said in (
        "universe <b>unknown",
        "fee 10 bps, slippage 5 bps",
        "seed <b>42</b>",
        result.experiment.bars.sha256,
        result.experiment.strategy.source,
        result.result_sha256,
        "--from-manifest",
    ):
        assert said in page, said


def test_every_chart_of_a_report_is_well_formed_and_stays_on_its_canvas(result: Result) -> None:
    drawn = re.findall(r"<svg.*?</svg>", page_of(result), re.DOTALL)
    assert len(drawn) == 5  # equity, drawdown, trades, two distributions
    for svg in drawn:
        root = ElementTree.fromstring(svg)
        _, _, wide, high = map(float, root.attrib["viewBox"].split())
        for path in root.iter("path"):
            points = [tuple(map(float, point.split(","))) for point in re.findall(r"[\d.-]+,[\d.-]+", path.attrib["d"])]
            assert points
            assert all(0 <= x <= wide and 0 <= y <= high for x, y in points)


def test_monthly_returns_multiply_to_the_whole() -> None:
    made = experiment().run({"fast": 5, "slow": 20})
    years = pages._monthly(made.experiment.bars.columns.opened_at_ms, made.equity)
    (_, cells) = years[0]
    told = [float(text) for text, _ in cells if text]
    months, year = told[:-1], told[-1]
    whole = float(made.equity[-1] / made.equity[0] - 1)
    assert year == pytest.approx(100 * whole, abs=0.06)  # one decimal is told
    assert np.prod([1 + m / 100 for m in months]) - 1 == pytest.approx(whole, abs=0.002)


def test_a_line_of_a_million_points_keeps_its_spike() -> None:
    values = np.zeros(1_000_000)
    values[700_001] = 5.0
    times, kept = charts._thinned(np.arange(1_000_000), values)
    assert len(kept) < 4 * charts.WIDTH
    assert kept.max() == 5.0
    assert times[kept.argmax()] == 700_001


def test_a_run_without_trades_is_a_report_as_well() -> None:
    page = page_of(experiment(bars=bars_at([100.0] * 150), costs=FREE).run())
    assert "Too few different values" in page
    assert ">0</b>" in page


def test_a_grid_leaves_its_map_and_every_set(tmp_path: Path) -> None:
    grid = run_grid(experiment(), axes_of(["fast=5:20:5", "slow=15:60:15"]))
    write_grid(grid, tmp_path)
    rows = list(csv.DictReader((tmp_path / "grid.csv").read_text().splitlines()))
    assert len(rows) == len(grid.outcomes)
    assert float(rows[3]["sharpe"]) == grid.outcomes[3].figures.sharpe  # type: ignore[union-attr]
    page = (tmp_path / "report.html").read_text()
    assert "in sample" in page
    (svg,) = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    root = ElementTree.fromstring(svg)
    assert len(list(root.iter("rect"))) == 16
    assert sum(rect.attrib.get("stroke") == "var(--text)" for rect in root.iter("rect")) == 1  # the best


def test_a_full_disk_while_writing_leaves_nothing_half_written(tmp_path: Path) -> None:
    told = python(
        f"""
        import resource, signal
        from pathlib import Path
        from services.backtest_suite.reports import publish
        from shared.contracts.errors import NeedsOperator

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            publish(Path({str(tmp_path / "out")!r}), {{"one": b"fits", "two": b"x" * 10_000}})
        except NeedsOperator as error:
            print(error)
        """
    )
    assert "could not be written" in told
    assert list((tmp_path / "out").iterdir()) == []


def test_what_was_there_stays_until_all_of_the_new_is_written(tmp_path: Path) -> None:
    publish(tmp_path, {"one": b"old"})
    (tmp_path / "two").mkdir()  # a folder cannot be written over
    with pytest.raises(NeedsOperator, match="Nothing half-written is left"):
        publish(tmp_path / "two" / ".." / "two" / "one" / "..", {"": b""})
    assert (tmp_path / "one").read_bytes() == b"old"
