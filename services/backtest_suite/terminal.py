"""What the verbs print: tables, a heatmap of blocks, a progress bar. Plain text where it is no terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from services.backtest_suite.driver import Experiment
from services.backtest_suite.grids import GridResult
from services.backtest_suite.grids import Progress as OnProgress
from services.backtest_suite.presets import PresetSearch
from services.backtest_suite.results import Result
from services.backtest_suite.summaries import (
    LEG_COLUMNS,
    WALK_COLUMNS,
    Said,
    grid_headline,
    headline_of,
    legs_table,
    percent,
    plain,
    provenance_of,
    scheme_told,
    spelled,
    subject_of,
    title_of,
    trials,
    walk_headline,
    walk_row,
)
from services.backtest_suite.walk_forward import WalkForward

console = Console(highlight=False)
aside = Console(stderr=True, highlight=False)  # progress is not a result
SHADES = (
    ("··", "#c33a45"),
    ("░░", "#d98a8f"),
    ("▒▒", "#8d97a3"),
    ("▓▓", "#7fb79f"),
    ("██", "#17855a"),
)  # worst to best
WIDEST_MAP = 40  # columns
TOLD_FAILURES = 5
TOLD_LEGS = 12
TOLD_OF_A_WINDOW = (2, 5, 6, 9, 11)  # of WALK_COLUMNS, what fits a terminal: from when, Sharpe ratios, return, trades


def show_run(result: Result) -> None:
    """A run as a table, and below it what qualifies it."""
    table = Table(title=f"{title_of(result)}  run {result.run_id}", title_justify="left", show_header=False)
    for tile in headline_of(result):
        table.add_row(tile.name, f"[bold]{tile.value}[/]", f"[dim]{tile.note}[/]")
    console.print(table)
    _show_legs(result)
    _show_provenance(provenance_of(result.experiment))
    for note in result.notes:
        console.print(f"[dim]{note}[/]", soft_wrap=True)


def _show_legs(result: Result) -> None:
    """What came of each instrument, those first that moved the account most; nothing where there is one alone."""
    if len(result.legs) < 2:
        return
    rows = legs_table(result)
    table = Table(*LEG_COLUMNS, title="By instrument, closed trades", title_justify="left")
    for row in rows[:TOLD_LEGS]:
        table.add_row(*row)
    console.print(table)
    if len(rows) > TOLD_LEGS:
        console.print(f"[dim]and {len(rows) - TOLD_LEGS} more[/]")


def show_grid(grid: GridResult, count: int) -> None:
    """The best sets, a map of the two longest axes, and what failed."""
    names = list(grid.axes)
    columns = (*names, grid.metric, "plateau", "", "net return", "drawdown", "trades")
    title = f"{grid.experiment.strategy.name}: the best {count} of {len(grid.outcomes):,} by {grid.metric}, in sample"
    table = Table(*columns, title=title, title_justify="left")
    for one in grid.best(count):
        edge = f", at the edge of {', '.join(one.edges)}" if one.edges else ""
        table.add_row(
            *(plain(float(one.outcome.params[name])) for name in names),
            plain(one.value),
            plain(one.plateau),
            ("[red]peak[/]" if one.is_peak else "plateau") + edge,
            percent(one.figures.net_return),
            percent(-one.figures.max_drawdown),
            f"{one.figures.trades:,}",
        )
    console.print(table)
    _show_map(grid)
    console.print(" · ".join(f"{tile.name} [bold]{tile.value}[/] {tile.note}".strip() for tile in grid_headline(grid)))
    for failed in grid.failures[:TOLD_FAILURES]:
        console.print(f"failed: {spelled(failed.params)}: {failed.failure}", markup=False, style="red", soft_wrap=True)
    _show_provenance(provenance_of(grid.experiment))


def show_walk(walk: WalkForward) -> None:
    """Out of sample, window by window, and in sum."""
    title = f"{subject_of(walk.experiment)}: walk-forward, {scheme_told(walk)}"
    names = "/".join(field.name for field in walk.experiment.strategy.fields)
    table = Table(*(WALK_COLUMNS[place] for place in TOLD_OF_A_WINDOW), names, title=title, title_justify="left")
    for step in walk.steps:
        row = walk_row(walk, step)
        chosen = "nothing" if step.chosen is None else "/".join(f"{value:g}" for value in step.chosen.params.values())
        table.add_row(*(row[place] for place in TOLD_OF_A_WINDOW), chosen)
    console.print(table)
    headline = Table(title="Out of sample", title_justify="left", show_header=False)
    for tile in walk_headline(walk):
        headline.add_row(tile.name, f"[bold]{tile.value}[/]", f"[dim]{tile.note}[/]")
    console.print(headline)
    if walk.unused_bars:
        console.print(f"[dim]the last {walk.unused_bars:,} bars fill no test span and were not used[/]")
    _show_provenance(provenance_of(walk.experiment))


def show_presets(search: PresetSearch) -> None:
    """What was tried out of sample, the best there first, and what may be proposed."""
    experiment = search.experiment
    columns = ("timeframe", "set", "Sharpe in sample", "out of sample", "return", "trades", "")
    title = f"{experiment.strategy.name} on {experiment.bars.symbol}: the best in training, tried after it"
    table = Table(*columns, title=title, title_justify="left")
    for one in search.tried:
        test = one.found.test_figures
        table.add_row(
            one.timeframe,
            spelled(one.found.params),
            plain(one.found.train_figures.sharpe),
            plain(test.sharpe),
            percent(test.net_return),
            f"{test.trades:,}",
            "passed" if not one.fault else f"[red]{one.fault}[/]",
        )
    console.print(table)
    console.print(f"{len(search.passed)} may be proposed, each the best of {trials(search.trials)}")
    _show_provenance(provenance_of(experiment))


@contextmanager
def progress_of(experiment: Experiment) -> Iterator[OnProgress | None]:
    """A bar with rate and time left; nothing where it is no terminal."""
    if not aside.is_terminal:
        yield None
        return
    columns = (BarColumn(), MofNCompleteColumn(), _Rate(len(experiment.bars)), TimeRemainingColumn())
    with Progress(*columns, console=aside, transient=True) as progress:
        task = progress.add_task("grid", total=None)
        yield lambda done, of: progress.update(task, completed=done, total=of)


class _Rate(ProgressColumn):
    """Bar evaluations a second."""

    def __init__(self, bars: int) -> None:
        super().__init__()
        self._bars = bars

    def render(self, task: Task) -> Text:
        return Text(f"{(task.speed or 0.0) * self._bars / 1e6:,.1f} M bars/s")


def _show_provenance(said: list[Said]) -> None:
    parts = [f"{s.name} [yellow]{s.value}[/]" if s.is_warning else f"{s.name} {s.value}" for s in said]
    console.print(f"[dim]{' · '.join(parts)}[/]", soft_wrap=True)


def _show_map(grid: GridResult) -> None:
    """Two blocks for each pair of values, coloured by rank; the best is marked."""
    axes, best = grid.surface.widest(), grid.best(1)
    if axes is None or not best or len(grid.surface.axes[axes[1]]) > WIDEST_MAP:
        return
    params = best[0].outcome.params
    values = grid.surface.section(*axes, through=params)
    known = np.sort(values[np.isfinite(values)])
    rows, columns = (grid.surface.axes[name] for name in axes)
    console.print(
        f"{grid.metric} over {axes[0]} (down) and {axes[1]} (across, {columns[0]:g} to {columns[-1]:g}), "
        f"worst {''.join(block[0] for block, _ in SHADES)} best, ◆ the best of all"
    )
    for i, row in enumerate(rows):
        line = Text(f"{row:>8g} ")
        for j, column in enumerate(columns):
            value = float(values[i, j])
            if math.isnan(value):
                line.append("  ")
                continue
            rank = np.searchsorted(known, value) / max(len(known) - 1, 1)
            block, style = SHADES[min(int(rank * len(SHADES)), len(SHADES) - 1)]
            line.append("◆◆" if (row, column) == (params[axes[0]], params[axes[1]]) else block, style=style)
        console.print(line)
