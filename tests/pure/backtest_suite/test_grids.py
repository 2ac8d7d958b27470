"""A grid: the same results by every backend, none computed twice, and one that crashes or hangs costs itself alone."""

from __future__ import annotations

import math
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from services.backtest_suite import backends
from services.backtest_suite.axes import axes_of
from services.backtest_suite.backends import Backend, outcomes
from services.backtest_suite.driver import Experiment
from services.backtest_suite.grids import GridResult, run_grid
from services.backtest_suite.run_store import RunStore
from shared.contracts.errors import NeedsOperator
from shared.trading.strategies import load_strategy
from tests.pure.backtest_suite.markets import experiment, trends

AXES = axes_of(["fast=5:20:5", "slow=15:60:15"])
SETS = 14  # 4 x 4 without (15, 15) and (20, 15): fast < slow

# A strategy that does what its parameter says: trades, raises, ends the process, or never ends.
UNRULY = '''
"""Behaves as it is told."""

import os
from typing import NamedTuple

from trimtab import Bar, Regime, Target, kernel, long, strategy


class Params(NamedTuple):
    number: int = 0
    raises_at: int = -1
    crashes_at: int = -1
    hangs_at: int = -1


class State(NamedTuple):
    seen: int


@kernel
def start(p: Params) -> State:
    return State(0)


def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Runs interpreted: os._exit cannot be compiled."""
    if s.seen == 3:
        if p.number == p.raises_at:
            raise ValueError("raised on purpose")
        if p.number == p.crashes_at:
            os._exit(11)
        while p.number == p.hangs_at:
            pass
    return State(s.seen + 1), long(1.0 if (s.seen // (1 + p.number % 5)) % 2 else 0.0)


STRATEGY = strategy(
    "unruly", Params, start, step,
    bounds={"number": (0, 1000), "raises_at": (-1, 1000), "crashes_at": (-1, 1000), "hangs_at": (-1, 1000)},
    warmup=lambda p: 0,
)
'''


def unruly(folder: Path) -> Experiment:
    file = folder / "unruly.py"
    file.write_text(textwrap.dedent(UNRULY))
    made = Experiment.of(load_strategy(file), trends(60))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it does not compile: said once, on purpose here
        made.run()
    return made


def test_a_grid_gives_what_single_runs_give() -> None:
    made = experiment()
    grid = run_grid(made, AXES, workers=2)
    assert len(grid.outcomes) == SETS
    for one in grid.outcomes:
        assert one.figures == made.run(one.params).figures


def test_the_best_are_sorted_by_the_metric_and_less_is_better_where_it_is() -> None:
    by_sharpe = run_grid(experiment(), AXES).best(5)
    assert [one.value for one in by_sharpe] == sorted((one.value for one in by_sharpe), reverse=True)
    shallow = run_grid(experiment(), AXES, metric="max_drawdown")
    depths = [one.figures.max_drawdown for one in shallow.best(20)]
    assert depths == sorted(depths)
    assert shallow.best(1)[0].value == min(depths)


def test_nothing_is_computed_twice(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        first = run_grid(experiment(), AXES, store)
        again = run_grid(experiment(), AXES, store)
        more = run_grid(experiment(), {**AXES, "fast": (5, 10, 15, 20, 25)}, store)
        anew = run_grid(experiment(), AXES, store, use_cache=False)
    assert (first.computed, again.computed, anew.computed) == (SETS, 0, SETS)
    assert more.computed == len(more.outcomes) - SETS > 0
    assert again.outcomes == first.outcomes == anew.outcomes
    assert again.best(3) == first.best(3)
    assert first.trials == again.trials == SETS
    assert more.trials == anew.trials == len(more.outcomes)


def test_other_costs_are_computed_anew_and_are_no_new_trial(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        run_grid(experiment(), AXES, store)
        dear = run_grid(experiment(seed=2), AXES, store)
    assert dear.computed == SETS
    assert dear.trials == SETS


def test_a_killed_grid_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "TOGETHER_S", 0.0)  # looks after every few sets

    class Killed(BaseException):
        pass

    def kill(done: int, of: int) -> None:
        if done >= 4:
            raise Killed

    with RunStore(tmp_path) as store:
        with pytest.raises(Killed):
            run_grid(experiment(), AXES, store, workers=1, on_progress=kill)
        resumed = run_grid(experiment(), AXES, store)
    assert 0 < resumed.computed <= SETS - 4
    assert resumed.outcomes == run_grid(experiment(), AXES).outcomes


def test_one_that_raises_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    made = unruly(tmp_path)
    axes = {"number": tuple(range(6)), "raises_at": (4,)}
    with RunStore(tmp_path) as store:
        grid = run_grid(made, axes, store)
        again = run_grid(made, axes, store)
    (failed,) = grid.failures
    assert failed.params["number"] == 4
    assert "raised ValueError at bar 3 (2024-01-01 03:00, open=" in failed.failure
    assert failed.failure.endswith("raised on purpose")
    assert len(grid.best(10)) == 5
    assert again.computed == 0
    assert again.failures == [failed]


def test_of_200_sets_one_crashes_and_one_hangs_and_198_are_done(tmp_path: Path) -> None:
    made = unruly(tmp_path)
    axes = {"number": tuple(range(200)), "crashes_at": (50,), "hangs_at": (120,)}
    with RunStore(tmp_path) as store:
        grid = run_grid(made, axes, store, backend="processes", workers=1, timeout_s=1.0)
    done = [one for one in grid.outcomes if one.figures is not None]
    assert len(done) == 198
    here = run_grid(made, {"number": tuple(one.params["number"] for one in done)})
    assert [one.figures for one in done] == [one.figures for one in here.outcomes]
    crashed, hung = grid.failures
    assert (crashed.params["number"], hung.params["number"]) == (50, 120)
    assert "ended its process (exit code 11)" in crashed.failure
    assert "did not end within 1 s and was stopped" in hung.failure


def test_a_strategy_of_a_notebook_cannot_go_to_other_processes() -> None:
    made = experiment()
    homeless = replace(made, strategy=replace(made.strategy, name="homeless"))
    with pytest.raises(NeedsOperator, match=r"stands in no file, .* use the backend threads"):
        run_grid(homeless, AXES, backend="processes")


@pytest.mark.parametrize(("backend", "package"), [("dask", "dask.distributed"), ("ray", "ray")])
def test_a_backend_that_is_not_installed_says_what_to_install(backend: Backend, package: str) -> None:
    with pytest.raises(
        NeedsOperator, match=f"pip install '{package}".replace("dask.distributed", r"dask\[distributed\]")
    ):
        list(outcomes(experiment(), [experiment().strategy.params()._asdict()], backend, 1, 1.0))


def test_a_metric_that_is_none_is_refused() -> None:
    with pytest.raises(NeedsOperator, match="metric must be one of trades, net_return, sharpe"):
        run_grid(experiment(), AXES, metric="sharp")


def test_what_is_said_for_programs_is_json_of_numbers() -> None:
    grid = run_grid(experiment(), AXES)
    said = msgspec.json.decode(msgspec.json.encode(grid.summary(3)))
    assert (said["combinations"], said["rule_broken"], said["bar_evaluations"]) == (SETS, 2, SETS * 1200)
    assert said["bar_evaluations_per_s"] == pytest.approx(said["bar_evaluations"] / said["elapsed_s"])
    assert [set(one) for one in said["best"]] == [{"params", "metrics", "plateau", "is_peak", "at_edge_of"}] * 3
    assert said["best"][0]["metrics"]["sharpe"] == grid.best(1)[0].figures.sharpe


def test_sets_that_never_trade_are_not_the_best() -> None:
    grid: GridResult = run_grid(experiment(bars=trends(80)), {"fast": (5, 20), "slow": (60, 79)})
    assert all(not math.isnan(one.value) for one in grid.best(10))
    assert np.isnan(grid.surface.values).sum() == 4 - len(grid.best(10))
