"""A strategy does what it did: to the last unit, on real and on simulated bars, until somebody means to change it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.pure.trading.regressions import RUNS, Told, changes, kept, told

REAL = [run for run in RUNS if "simulated" not in run]


def expect_unchanged(run: str) -> None:
    changed = list(changes({run: kept().get(run, {})}, {run: told(run)}))
    assert not changed, "if the change is meant: just regressions\n" + "\n".join(changed)


@pytest.mark.parametrize("run", [run for run in RUNS if run not in REAL])
def test_a_strategy_does_what_it_did_on_the_simulated_market(run: str) -> None:
    expect_unchanged(run)


@pytest.mark.parametrize("run", REAL)
def test_a_strategy_does_what_it_did_on_real_bars(run: str, test_data: Path) -> None:
    assert test_data.is_dir()
    expect_unchanged(run)


def test_every_strategy_is_kept_on_every_market_and_nothing_else() -> None:
    assert sorted(kept()) == sorted(RUNS)
    assert all(figures["trades"] >= 10 for figures in kept().values()), "a run without trades would hold nothing"


def test_a_change_is_shown_figure_by_figure() -> None:
    old: dict[str, Told] = {"a": {"sharpe": 1.0, "cash": "5", "calmar": math.nan}, "gone": {"trades": 3.0}}
    new: dict[str, Told] = {"a": {"sharpe": 1.5, "cash": "5", "calmar": math.nan, "sortino": 2.0}}
    assert [" ".join(line.split()) for line in changes(old, new)] == [
        "a sharpe 1.0 -> 1.5",
        "a sortino none -> 2.0",
        "gone trades 3.0 -> none",
    ]
