"""A portfolio is backtested like anything else: one account, the same table, files and grid, and the same bits again."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from services.backtest_suite.axes import axes_of
from services.backtest_suite.driver import Experiment
from services.backtest_suite.grids import run_grid
from services.backtest_suite.manifests import Manifest
from services.backtest_suite.pages import page_of
from services.backtest_suite.panels import Panel
from services.backtest_suite.results import Result
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.walk_forward import WalkForward, walk_forward
from services.backtest_suite.windows import Scheme
from shared.contracts.errors import NeedsOperator
from shared.trading.compiled.portfolios import scan_portfolio
from shared.trading.compiled.weights import Weights
from shared.trading.strategies import BUILT_IN, BUILT_IN_PORTFOLIOS
from tests.pure.backtest_suite.markets import FREE, bars_at, perpetual, trends, two_that_go_together
from tests.pure.backtest_suite.test_commands import json_of, said
from trimtab import backtest

PAIRS = BUILT_IN_PORTFOLIOS["pairs"]
PARAMS = {"bars": 60, "enter": 1.5}
SHORT = ["--from", "2021-01-01", "--to", "2021-04-30", "--params", "bars=120,enter=1.5"]


@pytest.fixture(scope="module")
def result() -> Result:
    return Experiment.of(PAIRS, two_that_go_together()).run(PARAMS)


@pytest.fixture
def pair(test_data: Path) -> list[str]:
    """ETH and BTC by the hour, as if both could be owed."""
    files = [test_data / "crypto" / "spot_1h" / f"{name}_1h.parquet" for name in ("ETHUSDT", "BTCUSDT")]
    return ["--kind", "perpetual", *(word for file in files for word in ("--data", str(file)))]


def test_a_run_over_many_tells_what_the_loop_counted(result: Result) -> None:
    experiment = result.experiment
    scanned = scan_portfolio(
        PAIRS,
        experiment.scanner.columns,
        PARAMS,
        experiment.terms,
        with_curve=True,  # type: ignore[arg-type]
    )
    assert np.array_equal(result.run.curve, scanned.curve)
    assert (result.orders, len(result.trades)) == (scanned.stats.fills, scanned.figures.trades)
    assert result.metrics.trades == len(result.trades) > 20
    assert result.metrics.sharpe == pytest.approx(scanned.figures.sharpe, rel=1e-9)
    assert result.metrics.win_rate == pytest.approx(scanned.figures.win_rate)
    assert sum(leg.fees for leg in result.legs) == result.fees


def test_what_the_legs_earned_is_what_the_account_gained(result: Result) -> None:
    """Law 1: between two closes at which nothing is held, cash changes by the results of the trades of all legs."""
    flat = np.flatnonzero(~np.any([leg.is_held for leg in result.legs], axis=0))
    until = result.experiment.bars.columns.opened_at_ms[flat[-1]]
    ended = [trade for trade in result.trades if trade.exit_at.timestamp() * 1000 <= until]
    assert {trade.symbol for trade in ended} == {"ETH-USDT-PERP", "BTC-USDT-PERP"}
    gained = Decimal(10_000) + sum(trade.pnl for trade in ended)
    assert float(gained) == result.equity[flat[-1]]
    assert [trade.exit_at for trade in result.trades] == sorted(trade.exit_at for trade in result.trades)


def test_a_trade_without_a_stop_risks_a_typical_bar(result: Result) -> None:
    first = next(trade for trade in result.trades if trade.symbol == "ETH-USDT-PERP")
    bars = result.experiment.bars.members[0].columns
    i = int(np.searchsorted(bars.opened_at_ms, first.entry_at.timestamp() * 1000))
    before = np.concatenate([[np.nan], bars.close[:-1]])
    ranges = np.fmax(bars.high - bars.low, np.fmax(np.abs(bars.high - before), np.abs(bars.low - before)))
    assert float(first.risk) == pytest.approx(float(np.mean(ranges[i - 14 : i])) * float(first.quantity), rel=1e-9)
    assert first.result_r == pytest.approx(float(first.pnl / first.risk))
    assert result.metrics.expectancy_r == pytest.approx(np.mean([trade.result_r for trade in result.trades]))


def test_every_figure_of_a_portfolio_is_known(result: Result) -> None:
    known = {name for name, value in result.metrics_by_name.items() if value is not None}
    assert {"sharpe", "turnover", "exposure", "alpha", "beta", "sqn", "profit_factor", "expectancy_r"} <= known


def test_beside_a_portfolio_stands_the_same_cash_in_equal_parts() -> None:
    # Both from the first close on: 10 -> 12 is x 1.2, 20 -> 10 is x 0.5; then 15 and 10: the mean of 1.5 and 0.5.
    one, two = (
        bars_at(closes, perpetual(name)) for closes, name in (([10, 12, 15], "A-USDT"), ([20, 10, 10], "B-USDT"))
    )
    assert Panel((one, two)).held(0).tolist() == pytest.approx([1.0, 0.85, 1.0])
    ended = replace(two, columns=two.columns.part(0, 2))  # what has no bar any more counts with its last close
    assert Panel((one, ended)).held(0).tolist() == pytest.approx([1.0, 0.85, 1.0])
    late = replace(two, columns=two.columns.part(1, 3))  # and what comes later was not to be had
    assert Panel((one, late)).held(0).tolist() == pytest.approx([1.0, 1.2, 1.5])


def test_a_report_shows_each_instrument_and_fetches_nothing(result: Result) -> None:
    page = page_of(result)
    assert page.count("<svg") == 6  # equity, drawdown, the trades on each of two prices, two distributions
    for told in (
        "By instrument",
        "ETH-USDT-PERP, BTC-USDT-PERP held",
        "the strategy&#39;s weights",
        "universe <b>unknown",
    ):
        assert told in page, told
    assert "http" not in page


def test_the_order_of_the_files_is_the_order_of_the_strategy(pair: list[str], tmp_path: Path) -> None:
    told = json_of(["run", "pairs", *pair, *SHORT], tmp_path)
    assert [leg["symbol"] for leg in told["instruments"]] == ["ETH-USDT", "BTC-USDT"]
    assert sum(leg["trades"] for leg in told["instruments"]) == told["trades"] > 10
    assert sum(leg["fees"] for leg in told["instruments"]) == pytest.approx(told["fees"])
    other = json_of(["run", "pairs", *pair[:2], *pair[4:], *pair[2:4], *SHORT], tmp_path)
    assert [leg["symbol"] for leg in other["instruments"]] == ["BTC-USDT", "ETH-USDT"]
    assert other["equity_final"] != told["equity_final"]


def test_a_portfolio_is_repeated_from_its_manifest_to_the_same_bits(pair: list[str], tmp_path: Path) -> None:
    shown = said(
        ["run", "pairs", *pair, *SHORT, "--universe", "survivors", "--output-dir", str(tmp_path / "a")], tmp_path
    )
    assert "survivors only: too good to be true" in shown
    assert "By instrument, closed trades" in shown
    said(
        ["run", "--from-manifest", str(tmp_path / "a" / "manifest.json"), "--output-dir", str(tmp_path / "b")], tmp_path
    )
    one, two = (msgspec.json.decode((tmp_path / d / "manifest.json").read_bytes(), type=Manifest) for d in "ab")
    assert msgspec.structs.replace(two, run_id=one.run_id) == one
    for file in ("trades.csv", "equity.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    symbols = {row["symbol"] for row in csv.DictReader((tmp_path / "a" / "trades.csv").read_text().splitlines())}
    assert symbols == {"ETH-USDT", "BTC-USDT"}


def test_perpetuals_of_a_portfolio_pay_their_funding(pair: list[str], test_data: Path, tmp_path: Path) -> None:
    files = [test_data / "crypto" / "funding_8h" / f"{name}_funding.parquet" for name in ("ETHUSDT", "BTCUSDT")]
    funded = [word for file in files for word in ("--funding", str(file))]
    plain = json_of(["run", "pairs", *pair, *SHORT], tmp_path)
    told = json_of(["run", "pairs", *pair, *funded, *SHORT, "--output-dir", str(tmp_path / "a")], tmp_path)
    assert [leg["charges"] for leg in plain["instruments"]] == [0.0, 0.0]
    charges = [leg["charges"] for leg in told["instruments"]]
    assert 0.0 not in charges
    assert told["equity_final"] != plain["equity_final"]
    again = ["run", "--from-manifest", str(tmp_path / "a" / "manifest.json")]
    assert json_of(again, tmp_path)["equity_final"] == told["equity_final"]
    with pytest.raises(NeedsOperator, match="There are 2 of bars and 1 of funding"):
        said(["run", "pairs", *pair, *funded[:2], *SHORT], tmp_path)


def test_the_member_whose_bars_have_changed_is_named(test_data: Path, tmp_path: Path) -> None:
    for name in ("ETHUSDT", "BTCUSDT"):
        bars = pl.read_parquet(test_data / "crypto" / "spot_1h" / f"{name}_1h.parquet").tail(800)
        bars.write_parquet(tmp_path / f"{name}_1h.parquet")
    run = ["run", "pairs", "--data", str(tmp_path), "--kind", "perpetual", "--output-dir", str(tmp_path / "out")]
    said(run, tmp_path)
    changed = pl.read_parquet(tmp_path / "BTCUSDT_1h.parquet").with_columns(pl.col("volume") * 2)
    changed.write_parquet(tmp_path / "BTCUSDT_1h.parquet")
    with pytest.raises(NeedsOperator, match=r"was made on BTC-USDT 1h [0-9a-f]{12}, .* The bars have changed"):
        said(["run", "--from-manifest", str(tmp_path / "out" / "manifest.json")], tmp_path)


def test_on_spot_a_pair_says_why_it_did_nothing(pair: list[str], tmp_path: Path) -> None:
    shown = said(["run", "pairs", *pair[2:], *SHORT], tmp_path)
    assert "times it wanted to be short where nothing can be owed" in shown


def test_a_grid_over_a_portfolio_is_computed_once_and_has_its_map(pair: list[str], tmp_path: Path) -> None:
    asked = [
        "grid",
        "pairs",
        *pair,
        *SHORT[:4],
        "--grid",
        "bars=60,120",
        "--grid",
        "enter=1:3:1",
        "--grid",
        "exit=0.5,2",
    ]
    told = json_of(asked, tmp_path)
    assert (told["combinations"], told["rule_broken"], told["computed"]) == (8, 4, 8)
    assert (
        told["best"][0]["metrics"]["expectancy_r"] is None
    )  # the loop does not look at what was risked: absent, not 0
    assert json_of(asked, tmp_path)["computed"] == 0
    run = json_of(["run", "pairs", *pair, *SHORT[:4], "--params", "bars=120,enter=3,exit=0.5"], tmp_path)
    assert run["significance"]["trials"] == 8  # it was one of them
    shown = said([*asked, "--output-dir", str(tmp_path / "grid")], tmp_path)
    assert "sharpe over" in shown
    assert len((tmp_path / "grid" / "grid.csv").read_text().splitlines()) == 9


def test_threads_and_processes_find_the_same(tmp_path: Path) -> None:
    experiment = Experiment.of(PAIRS, two_that_go_together(600))
    axes = axes_of(["bars=20,60", "enter=1.5,2"])
    with RunStore(tmp_path) as store:
        one = run_grid(experiment, axes, store)
    two = run_grid(experiment, axes, backend="processes", workers=1)
    figures = [[msgspec.to_builtins(each.figures) for each in grid.outcomes] for grid in (one, two)]
    assert json.dumps(figures[0]) == json.dumps(figures[1])
    assert one.outcomes[0].figures != one.outcomes[3].figures


SCHEME = Scheme(timedelta(days=20), timedelta(days=10))


def walked(panel: Panel) -> WalkForward:
    return walk_forward(Experiment.of(PAIRS, panel), SCHEME, axes_of(["bars=24,72", "enter=1.5,2.5"]))


def test_a_walk_forward_trades_a_portfolio_only_where_it_was_not_tuned() -> None:
    walk = walked(two_that_go_together(24 * 60))
    first = walk.steps[0].window.test_from
    assert [step.window.test_from for step in walk.steps] == [480, 720, 960, 1200]
    assert (walk.result.equity[:first] == 10_000).all()
    assert len({str(step.chosen and step.chosen.params) for step in walk.steps}) > 1  # more than one set was chosen
    assert sum(step.out_of_sample.trades for step in walk.steps) == len(walk.result.trades) > 10
    grown = math.prod(1.0 + step.out_of_sample.net_return for step in walk.steps)
    assert grown == pytest.approx(walk.result.equity[-1] / 10_000)  # one account from window to window


def test_what_comes_after_a_window_changes_nothing_in_it() -> None:
    whole, part = walked(two_that_go_together(24 * 60)), walked(two_that_go_together(24 * 60).part(0, 24 * 40))
    end = part.steps[-1].window.test_end
    assert len(part.steps) == 2
    assert np.array_equal(whole.result.equity[:end], part.result.equity[:end])


def test_where_another_set_is_chosen_the_portfolio_is_put_right() -> None:
    walk = walked(two_that_go_together(24 * 60))
    decided = walk.result.experiment.targets
    assert isinstance(decided, Weights)
    chosen = [step.chosen.params if step.chosen else None for step in walk.steps]
    changes = [i for i in range(1, 4) if chosen[i] != chosen[i - 1]]
    assert changes
    assert all(decided.is_decided[walk.steps[i].window.test_from] for i in changes)


def test_a_walk_forward_of_a_portfolio_is_told_like_any_other(pair: list[str], tmp_path: Path) -> None:
    spans = ["--from", "2021-01-01", "--to", "2021-06-30", "--train", "90d", "--test", "30d"]
    sets = ["--grid", "bars=120,240", "--grid", "enter=1.5,2.5"]
    told = json_of(["walk-forward", "pairs", *pair, *spans, *sets, "--output-dir", str(tmp_path / "walk")], tmp_path)
    assert len(told["windows"]) == 3
    assert [leg["symbol"] for leg in told["out_of_sample"]["instruments"]] == ["ETH-USDT", "BTC-USDT"]
    assert "ETH-USDT, BTC-USDT held" in (tmp_path / "walk" / "report.html").read_text()
    assert told["trials"] == 4


def test_a_notebook_gives_a_list_of_bars() -> None:
    panel = two_that_go_together(600)
    told = backtest("pairs", list(panel.members), params=PARAMS, costs=FREE, data_dir=None)
    assert told.fees == 0
    assert len(told.legs) == 2
    assert "pairs" in told._repr_html_()
    with pytest.raises(NeedsOperator, match="These are several series"):
        backtest("trend_follow", list(panel.members), data_dir=None)


@pytest.mark.parametrize(
    ("given", "said_of_it"),
    [
        ({"size": Decimal(1)}, "was told size 1. Leave these options out"),
        ({"exposure": 0.5, "fill": "same_close"}, "exposure 0.5, fill same_close"),
        ({"rebalance_band": 1.0}, "rebalance band must be"),
    ],
)
def test_what_a_portfolio_cannot_do_is_refused_in_words(given: dict[str, Any], said_of_it: str) -> None:
    with pytest.raises(NeedsOperator, match=said_of_it):
        Experiment.of(PAIRS, two_that_go_together(200), **given).run()


def test_what_does_not_go_together_is_refused_in_words(pair: list[str], test_data: Path, tmp_path: Path) -> None:
    panel = two_that_go_together(200)
    with pytest.raises(NeedsOperator, match="takes 2 to 2 instruments, there were 1"):
        Experiment.of(PAIRS, panel.members[0]).run()
    with pytest.raises(NeedsOperator, match="trades one instrument, it was given the bars of ETH-USDT-PERP, BTC"):
        Experiment.of(BUILT_IN["momentum"], panel).run()
    with pytest.raises(NeedsOperator, match="each instrument once, there was ETH-USDT-PERP again"):
        Panel((panel.members[0], panel.members[0]))
    with pytest.raises(NeedsOperator, match="one timeframe, there were 1h, 4h"):
        Panel((panel.members[0], trends().resampled("4h")))
    with pytest.raises(NeedsOperator, match="pairs trades a portfolio, and a preset is of one instrument"):
        said(["presets", "pairs", *pair], tmp_path)
