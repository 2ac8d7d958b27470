"""Backtests for people: takes what is at hand (a name, a file, a frame) and counts every try as the command line does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Unpack

import msgspec

from services.backtest_suite import (
    cards,  # noqa: F401  # what is returned here draws itself
    presets,
)
from services.backtest_suite import walk_forward as walk
from services.backtest_suite.axes import Axes, axes_of
from services.backtest_suite.backends import Backend
from services.backtest_suite.data import Bars
from services.backtest_suite.driver import DECIDED, Experiment, Given
from services.backtest_suite.grids import TIMEOUT_S, GridResult, Progress, run_grid
from services.backtest_suite.manifests import Reading
from services.backtest_suite.panels import Panel
from services.backtest_suite.presets import PresetSearch, Split
from services.backtest_suite.results import Result
from services.backtest_suite.run_store import DEFAULT_FOLDER, RunStore
from services.backtest_suite.sources import bars_found, strategy_named
from services.backtest_suite.walk_forward import SETS, WalkForward
from services.backtest_suite.windows import Scheme, length_of
from shared.contracts.errors import NeedsOperator
from shared.trading.compiled import Targets
from shared.trading.strategy import PortfolioStrategy, Strategy

Named = Strategy | PortfolioStrategy | str | Path
Amount = Decimal | int | float | str


def backtest(
    strategy: Named | Targets,
    bars: Bars | str | Path | Any,
    *,
    params: dict[str, Any] | None = None,
    lot: Amount | None = None,
    data_dir: str | Path | None = DEFAULT_FOLDER,
    **given: Unpack[Given],
) -> Result:
    """Run one parameter set.

        backtest("trend_follow", "BTCUSDT_1h.parquet", params={"fast": 10}, costs=Costs(fee_bps=10, slippage_bps=5))

    `strategy` is one of ours, a name, a file, or `Targets` that were decided elsewhere; `bars` are Bars, a file, or a
    pandas or polars frame; for a portfolio a list of them, or a folder. Terms by name: `cash`, `costs`, `fill` ("next_open", "same_close", "next_close"), `size` (units
    of every position), `exposure`, `shorts`, `exits`, `trade_from`, `seed`; `lot=1` trades whole units. The run counts
    itself in the runs database of `data_dir`; with None nobody counts, and one is easily fooled.
    """
    experiment = _experiment(strategy, bars, lot, given)
    with _counted(data_dir) as store:
        return experiment.run(params) if store is None else store.run(experiment, params)


def grid(
    strategy: Named,
    bars: Bars | str | Path | Any,
    axes: Axes | Sequence[str],
    *,
    metric: str = "sharpe",
    backend: Backend = "threads",
    workers: int | None = None,
    timeout_s: float = TIMEOUT_S,
    use_cache: bool = True,
    on_progress: Progress | None = None,
    lot: Amount | None = None,
    data_dir: str | Path | None = DEFAULT_FOLDER,
    **given: Unpack[Given],
) -> GridResult:
    """Run every combination: `grid("trend_follow", bars, {"fast": range(5, 55, 5), "slow": (50, 100, 200)})`.

    Axes may also be written as on the command line: `["fast=5:50:5"]`. The rest is as in `backtest`.
    """
    experiment = _experiment(strategy, bars, lot, given)
    with _counted(data_dir) as store:
        return run_grid(
            experiment,
            _named(axes),
            store,
            metric=metric,
            backend=backend,
            workers=workers,
            timeout_s=timeout_s,
            use_cache=use_cache,
            on_progress=on_progress,
        )


def walk_forward(
    strategy: Named,
    bars: Bars | str | Path | Any,
    *,
    train: timedelta | str,
    test: timedelta | str,
    anchored: bool = False,
    embargo: int = 0,
    axes: Axes | Sequence[str] = (),
    sets: int = SETS,
    metric: str = "sharpe",
    workers: int | None = None,
    use_cache: bool = True,
    on_progress: Progress | None = None,
    lot: Amount | None = None,
    data_dir: str | Path | None = DEFAULT_FOLDER,
    **given: Unpack[Given],
) -> WalkForward:
    """Tune on a span, trade the one after it, go on: `walk_forward("momentum", bars, train="365d", test="90d")`.

    Each window tries the sets of `axes`, or `sets` that are drawn from the schema by `seed`. `embargo` is in bars. The
    rest is as in `backtest`.
    """
    scheme = Scheme(_length(train), _length(test), anchored, embargo)
    experiment = _experiment(strategy, bars, lot, given)
    with _counted(data_dir) as store:
        return walk.walk_forward(
            experiment,
            scheme,
            _named(axes),
            store,
            sets=sets,
            metric=metric,
            workers=workers,
            use_cache=use_cache,
            on_progress=on_progress,
        )


def find_presets(
    strategy: Named,
    bars: Bars | str | Path | Any,
    *,
    timeframes: Sequence[str] = (),
    train_share: float = 0.5,
    test_share: float = 0.25,
    tested: int = 10,
    best: int = 3,
    least_trades: int = 5,
    axes: Axes | Sequence[str] = (),
    sets: int = SETS,
    metric: str = "sharpe",
    workers: int | None = None,
    on_progress: Progress | None = None,
    lot: Amount | None = None,
    data_dir: str | Path | None = DEFAULT_FOLDER,
    **given: Unpack[Given],
) -> PresetSearch:
    """Tune on the oldest bars, try the best on those after them, leave the newest to the governor.

    `found.passed` are those that may be proposed, and `found.candidates("sim")` what the governor would be told of them.
    The rest is as in `walk_forward`.
    """
    split = Split(train_share, test_share, tested, best, least_trades)
    experiment = _experiment(strategy, bars, lot, given)
    with _counted(data_dir) as store:
        return presets.find_presets(
            experiment,
            split,
            _named(axes),
            store,
            timeframes=timeframes,
            sets=sets,
            metric=metric,
            workers=workers,
            on_progress=on_progress,
        )


def _named(axes: Axes | Sequence[str]) -> Axes:
    return {name: tuple(values) for name, values in axes.items()} if isinstance(axes, dict) else axes_of(list(axes))


def _length(given: timedelta | str) -> timedelta:
    return given if isinstance(given, timedelta) else length_of(given)


def _experiment(strategy: Named | Targets, given_bars: Any, lot: Amount | None, given: Given) -> Experiment:
    each_of = given_bars if isinstance(given_bars, list | tuple) else [given_bars]
    found = [one for each in each_of for one in _bars(each)]
    members = tuple(bars if lot is None else _in_lots(bars, lot) for bars, _ in found)
    readings = tuple(reading for _, reading in found if reading is not None)
    if "cash" in given:
        given["cash"] = _exact(given["cash"])
    if (size := given.get("size")) is not None:
        given["size"] = _exact(size)
    made = strategy_named(str(strategy)) if isinstance(strategy, str | Path) else strategy
    if isinstance(made, PortfolioStrategy):
        return Experiment.of(made, Panel(members), readings=readings, **given)
    if len(members) != 1:
        names = ", ".join(f"{each.symbol} {each.timeframe}" for each in members) or "none"
        raise NeedsOperator(f"These are several series ({names}): give the file of one, or loop over read_bars.")
    (series,) = members
    if isinstance(made, Targets):
        return Experiment.of(DECIDED, series, readings=readings, targets=made, **given)
    return Experiment.of(made, series, readings=readings, **given)


def _bars(given: Any) -> list[tuple[Bars, Reading | None]]:
    """What is at hand, and where it was read: of a folder all that is in it."""
    if isinstance(given, Bars):
        return [(given, None)]
    if not isinstance(given, str | Path):
        return [(Bars.from_frame(given), None)]
    return [(each.bars, each.reading) for each in bars_found(Reading(path=str(Path(given).resolve())))]


def _in_lots(bars: Bars, lot: Amount) -> Bars:
    return replace(bars, instrument=msgspec.structs.replace(bars.instrument, lot=_exact(lot)))


def _counted(data_dir: str | Path | None) -> Any:
    return nullcontext(None) if data_dir is None else RunStore(Path(data_dir))


def _exact(amount: Any) -> Decimal:
    """0.1 is meant as 0.1, not as the float beside it."""
    return Decimal(str(amount))
