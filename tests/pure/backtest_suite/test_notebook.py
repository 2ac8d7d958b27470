"""What a person in a notebook has at hand is enough: a frame, a file, boolean columns."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import Costs, SlippageModel
from tests.pure.backtest_suite.markets import BTC, FREE, bars_at, experiment, trends
from trimtab import Targets, backtest, find_presets, grid, targets_from_signals, walk_forward


def test_a_frame_a_name_and_plain_numbers_are_enough(tmp_path: Path) -> None:
    columns = trends().columns
    frame = pl.DataFrame(dict(zip(("timestamp", "open", "high", "low", "close", "volume"), columns.all(), strict=True)))
    shown = backtest("trend_follow", frame, params={"fast": 5, "slow": 20}, cash=5_000, lot=0.01, data_dir=tmp_path)
    assert shown.trades
    assert shown.experiment.assumptions.cash == Decimal(5_000)
    assert all(trade.quantity % Decimal("0.01") == 0 for trade in shown.trades)
    assert backtest("trend_follow", frame, data_dir=tmp_path).trials == 2
    assert shown._repr_html_().count("<svg") == 1


def test_a_grid_counts_what_it_tried(tmp_path: Path) -> None:
    found = grid("trend_follow", trends(), {"fast": range(5, 20, 5), "slow": (30, 60)}, data_dir=tmp_path)
    assert found.trials == len(found.outcomes) == 6
    assert grid("trend_follow", trends(), ["fast=5:15:5", "slow=30,60"], data_dir=tmp_path).computed == 0
    assert "median" in found._repr_html_()


def test_a_walk_forward_and_presets_are_called_as_a_grid_is(tmp_path: Path) -> None:
    axes = {"entry": (10, 20, 40), "exit": (5, 10)}
    walked = walk_forward("momentum", trends(2400), train="40d", test="20d", axes=axes, data_dir=tmp_path)
    assert (len(walked.steps), walked.result.trials) == (3, 6)
    assert walked._repr_html_().count("<svg") == 1
    spread = walk_forward(
        "momentum", trends(2400), train=timedelta(days=40), test="20d", axes=["entry=10,20,40", "exit=5,10"],
        data_dir=None, costs=Costs(fee_bps=10, slippage_bps=5, slippage_model=SlippageModel(noise=0.5)),
    )  # fmt: skip
    assert spread.result.equity_final != walked.result.equity_final
    found = find_presets("momentum", trends(2400), axes=axes, least_trades=2, data_dir=tmp_path)
    assert found.passed
    assert [one.trials for one in found.candidates("sim")] == [6] * len(found.passed)
    with pytest.raises(BadMessage, match=r"a length such as 365d, 12w, 48h or 90m, was 'a year'"):
        walk_forward("momentum", trends(), train="a year", test="20d")


def test_entries_and_exits_are_traded_after_the_bar_on_which_they_are_true() -> None:
    bars = bars_at([100.0, 110.0, 120.0, 130.0, 140.0, 150.0])
    entries = np.array([False, True, False, False, False, False])
    exits = np.array([False, False, False, True, False, False])
    run = backtest(targets_from_signals(entries, exits), bars, size=1, costs=FREE, data_dir=None)
    # Known at the close of bar 1, bought at the open of bar 2, which is the close of bar 1: 110. Sold on bar 4 at 130.
    (trade,) = run.trades
    assert (trade.entry_price, trade.exit_price, trade.pnl) == (110.0, 130.0, Decimal(20))
    assert (trade.bars_held, run.equity_final) == (2, Decimal(10_020))


def test_signals_hold_turn_and_end() -> None:
    no = np.zeros(6, bool)

    def at(*places: int) -> np.ndarray:
        column = no.copy()
        column[list(places)] = True
        return column

    assert targets_from_signals(at(1), at(4)).exposure.tolist() == [0, 1, 1, 1, 0, 0]
    assert targets_from_signals(at(1), at(1)).exposure.tolist() == [0] * 6  # an exit on the same bar wins
    assert targets_from_signals(at(1), at(5), at(3), no).exposure.tolist() == [0, 1, 1, -1, -1, -1]
    assert targets_from_signals(no, no, at(0), at(2)).exposure.tolist() == [-1, -1, 0, 0, 0, 0]
    assert targets_from_signals(at(0), at(2), stop=3.0).stop.tolist() == [3.0] * 6


def test_columns_that_are_no_signals_are_refused() -> None:
    with pytest.raises(NeedsOperator, match="entries must be a column of booleans, was float64"):
        targets_from_signals(np.zeros(3), np.zeros(3, bool))
    with pytest.raises(NeedsOperator, match="must have one length"):
        targets_from_signals(np.zeros(3, bool), np.zeros(4, bool))
    yes = np.ones(3, bool)
    with pytest.raises(NeedsOperator, match="Bar 0 must enter one side"):
        targets_from_signals(yes, ~yes, yes, ~yes)


def test_other_targets_are_other_runs() -> None:
    prints = {
        backtest(Targets.of(np.full(6, exposure)), bars_at([100.0 + i for i in range(6)]), data_dir=None).fingerprint
        for exposure in (0.5, 1.0)
    }
    assert len(prints) == 2


def test_a_file_of_several_series_asks_which(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        dict(zip(("timestamp", "open", "high", "low", "close", "volume"), trends(50).columns.all(), strict=True))
    )
    for name in ("BTCUSDT_1h", "ETHUSDT_1h"):
        frame.write_csv(tmp_path / f"{name}.csv")
    with pytest.raises(NeedsOperator, match=r"several series \(BTC-USDT 1h, ETH-USDT 1h\)"):
        backtest("momentum", tmp_path, data_dir=None)
    assert backtest("momentum", tmp_path / "BTCUSDT_1h.csv", data_dir=None).experiment.bars.symbol == BTC.symbol


def test_metrics_and_loop_agree() -> None:
    run = experiment().run({"fast": 5, "slow": 20})
    assert run.metrics.sharpe == pytest.approx(run.figures.sharpe, rel=1e-9)
    assert run.metrics.total_return == pytest.approx(run.figures.net_return, rel=1e-12)
    assert run.metrics.max_drawdown == pytest.approx(run.figures.max_drawdown, rel=1e-12)
    assert (run.metrics.trades, run.metrics.bars) == (run.figures.trades, run.figures.bars)
