"""One ordered backtest, done: a run or a grid, counted in the runs database. No bus and no clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from services.backtest_suite.axes import table_of
from services.backtest_suite.driver import Experiment, Result
from services.backtest_suite.grids import check_metric, run_grid
from services.backtest_suite.panels import Panel
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.sources import held_bars
from services.backtest_suite.trades import Trade
from shared.contracts.errors import BadMessage
from shared.contracts.jobs import BacktestOrdered
from shared.trading.columns import Columns
from shared.trading.strategy import BadParams, PortfolioStrategy, Strategy

POINTS = 2000  # of an equity curve that are kept for a page
TRADES_TOLD = 1000  # the newest of a run
BEST_TOLD = 10


class Canceled(Exception):
    """Somebody does not want it any more."""


class Point(msgspec.Struct, frozen=True, array_like=True):
    """Equity at a bar's close."""

    opened_at_ms: int
    equity: float  # quote currency


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    run_id: str  # in the runs database; "" for a grid
    summary: dict[str, Any]  # what `trimtab backtest --json` prints
    equity: list[Point]  # of a run, at most `POINTS`, the last bar among them
    trades: list[Trade] = []  # of a run, the newest `TRADES_TOLD`, oldest first


def check(
    order: BacktestOrdered, strategies: Mapping[str, Strategy | PortfolioStrategy]
) -> Strategy | PortfolioStrategy:
    """The strategy that is asked for. Raises BadMessage when it is not ours, or does not take what it is given."""
    strategy = strategies.get(order.strategy)
    if strategy is None:
        raise BadMessage(f"Expected a strategy among {', '.join(sorted(strategies))}, was {order.strategy!r}.")
    least, most = strategy.instruments if isinstance(strategy, PortfolioStrategy) else (1, 1)
    if not least <= len(order.members) <= most:
        raise BadMessage(
            f"Strategy {strategy.name} takes {_counted(least, most)}, was asked for {order.symbol}. Those of a portfolio "
            "are joined by +, such as BTC-USDT+ETH-USDT."
        )
    try:
        strategy.params(order.params)
        if order.grid:
            check_metric(order.metric)
            table_of(strategy, _axes(order))
    except BadParams as error:
        raise BadMessage(str(error)) from error
    return strategy


def _counted(least: int, most: int) -> str:
    return f"{least} to {most} instruments" if most > least else "1 instrument" if most == 1 else f"{most} instruments"


def work(
    order: BacktestOrdered,
    strategy: Strategy | PortfolioStrategy,
    columns: Sequence[Columns],
    folder: Path,
    on_progress: Callable[[float], None],
) -> Finding:
    """Do it on the columns of its members. What `on_progress` raises ends a grid between two portions, and what was
    computed stays.

    Raises Failure when the strategy does, NeedsOperator when there are no bars or the disk refuses.
    """
    members = [
        held_bars(symbol, order.timeframe, each, "ingester")
        for symbol, each in zip(order.members, columns, strict=True)
    ]
    experiment = Experiment.of(
        strategy,
        Panel(tuple(members)) if len(members) > 1 else members[0],
        cash=order.cash,
        costs=order.costs,
        fill=order.fill,
        exits=order.exits,
        size=order.size,
        exposure=order.exposure,
        shorts=order.shorts,
        rebalance_band=order.rebalance_band,
        seed=order.seed,
    )
    with RunStore(folder) as store:
        if not order.grid:
            result = store.run(experiment, order.params)
            return Finding(
                run_id=result.run_id,
                summary=_plain(result.summary()),
                equity=_curve(result),
                trades=result.trades[-TRADES_TOLD:],
            )
        grid = run_grid(
            experiment,
            _axes(order),
            store,
            metric=order.metric,
            on_progress=lambda done, of: on_progress(done / of),
        )
    return Finding(run_id="", summary=_plain(grid.summary(BEST_TOLD)), equity=[])


def _axes(order: BacktestOrdered) -> dict[str, tuple[bool | int | float, ...]]:
    """The grid, and what else was given as axes of one value."""
    return {**{name: (value,) for name, value in order.params.items()}, **order.grid}


def _curve(result: Result) -> list[Point]:
    count = len(result.equity)
    places = np.unique(np.linspace(0, count - 1, min(count, POINTS)).round().astype(np.int64))
    times = result.experiment.bars.columns.opened_at_ms[places]
    return [Point(*each) for each in zip(times.tolist(), result.equity[places].tolist(), strict=True)]


def _plain(summary: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: NaN is null."""
    return msgspec.json.decode(msgspec.json.encode(summary))
