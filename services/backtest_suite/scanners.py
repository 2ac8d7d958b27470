"""How an experiment is computed: over the bars of one instrument, or over a panel with one account for all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from services.backtest_suite.data import Bars
from services.backtest_suite.manifests import Assumptions, Params
from services.backtest_suite.panels import Panel
from shared.contracts.errors import NeedsOperator
from shared.trading.columns import Columns, MarketColumns
from shared.trading.compiled import Failure, Run, Targets, Terms, execute, grid, scan
from shared.trading.compiled.loops import compiled_loop
from shared.trading.compiled.portfolios import (
    PortfolioRun,
    PortfolioTerms,
    compiled_portfolio_loop,
    execute_weights,
    grid_portfolio,
    scan_portfolio,
)
from shared.trading.compiled.weights import Weights
from shared.trading.strategy import PortfolioStrategy, Strategy


@dataclass(frozen=True)
class OverOne:
    """A strategy of one instrument, or targets that were decided elsewhere."""

    strategy: Strategy
    columns: Columns
    terms: Terms
    trade_from: int
    targets: Targets | None = None

    def run(self, params: Any, *, in_detail: bool = False) -> Run:
        """One checked parameter set; `in_detail` with equity and fills. Raises Failure when the strategy does."""
        told: Any = {"trade_from": self.trade_from, "with_curve": in_detail, "with_fills": in_detail}
        if self.targets is None:
            return scan(self.strategy, self.columns, params, self.terms, **told)
        return replace(execute(self.targets, self.columns, self.terms, **told), params=params)

    def runs(self, table: Sequence[Params], threads: int) -> list[Run | Failure]:
        """The figures of many, in their order."""
        return grid(self.strategy, self.columns, table, self.terms, trade_from=self.trade_from, threads=threads)

    def compile(self) -> None:
        compiled_loop(self.strategy)


@dataclass(frozen=True)
class OverMany:
    """A strategy over many instruments, or weights that were decided elsewhere. The same questions, the same answers."""

    strategy: PortfolioStrategy
    columns: MarketColumns
    terms: PortfolioTerms
    trade_from: int
    decided: Weights | None = None

    def run(self, params: Any, *, in_detail: bool = False) -> PortfolioRun:
        told: Any = {"trade_from": self.trade_from, "with_curve": in_detail, "with_fills": in_detail}
        if self.decided is not None:
            told["is_one_intent"] = self.strategy.is_one_intent
            return replace(execute_weights(self.decided, self.columns, self.terms, **told), params=params)
        return scan_portfolio(self.strategy, self.columns, params, self.terms, **told)

    def runs(self, table: Sequence[Params], threads: int) -> list[PortfolioRun | Failure]:
        return grid_portfolio(
            self.strategy, self.columns, table, self.terms, trade_from=self.trade_from, threads=threads
        )

    def compile(self) -> None:
        compiled_portfolio_loop(self.strategy)


def terms_of(given: Assumptions, bars: Bars) -> Terms:
    """What was assumed, as the loop over one instrument takes it."""
    return Terms(
        given.instruments[0],
        bars.timeframe,
        given.costs,
        given.cash,
        size=given.size,
        exposure=given.exposure,
        shorts=given.shorts,
        fill=given.fill,
        exits=given.exits,
        funding=None if bars.funding is None else (bars.funding.at_ms, bars.funding.rate),
    )


def portfolio_terms_of(given: Assumptions, panel: Panel) -> PortfolioTerms:
    """The same for a portfolio. Raises NeedsOperator for what it cannot do: it would be left out silently."""
    asked = {"size": given.size, "exposure": given.exposure, "fill": given.fill, "exits": given.exits}
    plain = {"size": None, "exposure": 1.0, "fill": "next_open", "exits": "on_close"}
    if unknown := [f"{name} {value}" for name, value in asked.items() if value != plain[name]]:
        raise NeedsOperator(
            f"A portfolio holds the weights that its strategy writes and is filled at the next open, was told "
            f"{', '.join(unknown)}. Leave these options out."
        )
    return PortfolioTerms(
        given.instruments,
        panel.timeframe,
        given.costs,
        given.cash,
        given.rebalance_band,
        shorts=given.shorts,
        funding={
            each.symbol: (each.funding.at_ms, each.funding.rate) for each in panel.members if each.funding is not None
        },
    )
