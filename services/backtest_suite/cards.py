"""Results as notebooks show them: a headline and a picture. Importing this is what lets them draw themselves."""

from __future__ import annotations

from services.backtest_suite.drawn import card
from services.backtest_suite.grids import GridResult
from services.backtest_suite.pages import equity_chart, grid_map, render
from services.backtest_suite.results import Result
from services.backtest_suite.summaries import (
    grid_headline,
    headline_of,
    provenance_of,
    subject_of,
    title_of,
    walk_headline,
)
from services.backtest_suite.walk_forward import WalkForward


@card.register
def run_card(result: Result) -> str:
    """A run in a notebook: its headline and its equity."""
    return render(
        "card.html",
        title=title_of(result),
        subtitle=f"run {result.run_id}",
        provenance=provenance_of(result.experiment),
        headline=headline_of(result),
        chart=equity_chart(result),
    )


@card.register
def grid_card(grid: GridResult) -> str:
    """A grid in a notebook."""
    chart, _ = grid_map(grid)
    return render(
        "card.html",
        title=subject_of(grid.experiment),
        subtitle=f"grid of {len(grid.outcomes):,}, by {grid.metric}",
        provenance=provenance_of(grid.experiment),
        headline=grid_headline(grid),
        chart=chart,
    )


@card.register
def walk_card(walk: WalkForward) -> str:
    """A walk-forward in a notebook."""
    return render(
        "card.html",
        title=subject_of(walk.experiment),
        subtitle="walk-forward, out of sample",
        provenance=provenance_of(walk.experiment),
        headline=walk_headline(walk),
        chart=equity_chart(walk.result),
    )
