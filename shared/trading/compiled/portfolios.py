"""Backtests of strategies over many instruments: the loop of `portfolio.py` compiled, over the slices of one market.

What does not compile still runs, interpreted, and gives the same bits.
"""

# pyright: standard
# numba's decorators are typed too narrowly for functions that are given to it at run time.

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
from numba import njit

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs, Figures
from shared.contracts.instruments import Instrument
from shared.trading import ledger, loop, portfolio_loop
from shared.trading.columns import Floats, Integers, MarketColumns
from shared.trading.compiled import cache
from shared.trading.compiled.callbacks import Failure
from shared.trading.compiled.loops import UNKNOWN_COLUMN, as_python, compiled_or_none, register
from shared.trading.compiled.portfolio_terms import PortfolioTerms
from shared.trading.compiled.weights import FOLLOWING, Followed, Weights, stepped_weights
from shared.trading.kernel import kernel
from shared.trading.performance import Stats, figures, periods_per_year
from shared.trading.portfolio import NOTED, REFUSALS, Account, Legs, PortfolioRules, no_legs
from shared.trading.scales import Scale
from shared.trading.strategy import PortfolioStrategy

NO_WEIGHTS = Followed(np.zeros((0, 1)), np.zeros(0, np.int64))
_loops: dict[str, Callable[..., Any]] = {}  # source -> loop


@dataclass(frozen=True)
class PortfolioRun:
    """What came of one parameter set over one market."""

    params: Any
    figures: Figures  # a trade is one instrument's, from flat to flat
    account: Account  # as it stood after the last bar, in ledger units
    legs: Legs
    stats: Stats
    scales: tuple[Scale, ...]  # of each instrument: what a lot, a tick and a ledger unit are
    curve: Integers | None  # equity at each close, ledger units (n_bars,)
    fills: Integers | None  # (k, 5): bar, instrument, lots, ticks, fee in ledger units
    charges: Integers | None  # (m, 5): bar, instrument, paid for holding, reason, how many fills came before it

    @property
    def fees(self) -> int:
        """Paid in all, ledger units."""
        return self.account.fees


def scan_portfolio(
    strategy: PortfolioStrategy,
    market: MarketColumns,
    params: Mapping[str, object] | tuple[Any, ...],
    terms: PortfolioTerms,
    *,
    trade_from: int = 0,
    regimes: Sequence[Floats] | None = None,
    with_curve: bool = False,
    with_fills: bool = False,
) -> PortfolioRun:
    """Run one parameter set over a market; orders are made from bar `trade_from` on, and figures count from there.

    `regimes` are the columns bull, bear, chop of the market as a whole, each of shape (n_bars,). Raises Failure when the
    strategy raises or says something impossible, BadParams for parameters outside its bounds, and NeedsOperator for terms
    that do not fit the market.
    """
    checked = strategy.params(_named(params))
    return _Job(strategy, market, terms, trade_from, regimes).run(checked, with_curve, with_fills)


def grid_portfolio(
    strategy: PortfolioStrategy,
    market: MarketColumns,
    table: Iterable[Mapping[str, object] | tuple[Any, ...]],
    terms: PortfolioTerms,
    *,
    trade_from: int = 0,
    regimes: Sequence[Floats] | None = None,
    threads: int | None = None,
) -> list[PortfolioRun | Failure]:
    """Run every parameter set of the table, in its order, in threads: the compiled loop holds no lock.

    A set that fails is told as a Failure in its place, and the others go on.
    """
    job = _Job(strategy, market, terms, trade_from, regimes)
    compiled_portfolio_loop(strategy)  # once, and not by each thread
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return list(pool.map(job.outcome, [strategy.params(_named(params)) for params in table]))


def execute_weights(
    decided: Weights,
    market: MarketColumns,
    terms: PortfolioTerms,
    *,
    is_one_intent: bool = False,
    trade_from: int = 0,
    with_curve: bool = False,
    with_fills: bool = False,
) -> PortfolioRun:
    """Trade given weights: by the loop that trades a strategy's own, so the same weights earn the same bits."""
    if decided.weights.shape != market.close.shape:
        raise NeedsOperator(
            f"There must be a weight for each bar and instrument {market.close.shape}, were {decided.weights.shape}."
        )
    strategy = replace(FOLLOWING, is_one_intent=is_one_intent)
    job = _Job(strategy, market, terms, trade_from, None)
    return job.run(Followed(decided.weights, decided.is_decided.astype(np.int64)), with_curve, with_fills)


def _named(params: Mapping[str, object] | tuple[Any, ...]) -> Mapping[str, object]:
    return params if isinstance(params, Mapping) else params._asdict()  # type: ignore[attr-defined]


class _Job:
    """One strategy over one market, whatever its parameters."""

    def __init__(
        self,
        strategy: PortfolioStrategy,
        market: MarketColumns,
        terms: PortfolioTerms,
        trade_from: int,
        regimes: Sequence[Floats] | None,
    ) -> None:
        _check(strategy, market, terms)
        self.strategy, self.market, self.terms, self.trade_from = strategy, market, terms, trade_from
        rows = terms.rows._replace(top=market.tops * terms.rows.ticks)
        self.rules = PortfolioRules(terms.rules[0], rows, terms.carry, terms.rebalance_band, strategy.is_one_intent)
        self.cash = terms.scales[0].units(terms.cash)
        if self.cash <= 0 or not ledger.fits(0, 0.0, 0, 4 * self.cash):
            raise NeedsOperator(f"An account's cash must be above 0 and countable, was {terms.cash}.")
        self.regimes = tuple(np.ascontiguousarray(c, np.float64) for c in regimes or [UNKNOWN_COLUMN] * 3)
        if regimes is not None and {len(column) for column in self.regimes} != {len(market)}:
            raise NeedsOperator(f"Regimes must have one value for each of the {len(market)} bars.")
        self.periods = periods_per_year(terms.timeframe, terms.instruments[0].calendar)

    def outcome(self, params: Any) -> PortfolioRun | Failure:
        """What came of one parameter set, or why nothing did."""
        try:
            return self.run(params)
        except Failure as failure:
            return failure

    def run(self, params: Any, with_curve: bool = False, with_fills: bool = False) -> PortfolioRun:
        trade_from = max(self.trade_from, self.strategy.warmup(params) - 1)
        curve = np.zeros(len(self.market) if with_curve else 0, np.int64)
        notes = np.zeros(0, np.int64)
        legs, account, stats, written = self._scanned(params, trade_from, curve, notes)
        if with_fills and written:
            notes = np.zeros(written, np.int64)  # now it is known how many there are
            legs, account, stats, written = self._scanned(params, trade_from, curve, notes)
        if account.refused:
            raise Failure(f"{self.strategy.name} {params}: {REFUSALS[account.refused]}.")
        return PortfolioRun(
            params,
            self._figures(account, stats, max(len(self.market) - trade_from, 0)),
            account,
            legs,
            stats,
            self.terms.scales,
            curve if with_curve else None,
            *(_sorted_out(notes) if with_fills else (None, None)),
        )

    def _scanned(
        self, params: Any, trade_from: int, curve: Integers, notes: Integers
    ) -> tuple[Legs, Account, Stats, int]:
        """Once over the market; writes as much of `curve` and `notes` as there is room for."""
        legs, account, stats, written = compiled_portfolio_loop(self.strategy)(
            self.market.all(), self.regimes, params, self.rules, self.cash, trade_from, curve, notes
        )
        if written < 0:
            raised = _failure(self.strategy, self.market, params, self.regimes)
            raise raised from raised.__cause__
        return legs, account, stats, written

    def _figures(self, account: Account, stats: Stats, bars: int) -> Figures:
        told = figures(
            stats,
            bars=bars,
            start=self.cash,
            fees=float(self.terms.scales[0].amount(account.fees)),
            periods_per_year=self.periods,
        )
        # No leg has a stop, so what it risked is not known.
        return msgspec.structs.replace(told, expectancy_r=math.nan)


def _sorted_out(notes: Integers) -> tuple[Integers, Integers]:
    """Fills and charges, as `PortfolioRun` tells them."""
    noted = notes.reshape(-1, NOTED)
    is_fill = noted[:, 2] != 0
    charges = np.column_stack([noted[:, [0, 1, 4, 5]], np.cumsum(is_fill)])
    return noted[is_fill][:, :5], charges[~is_fill]


def _check(strategy: PortfolioStrategy, market: MarketColumns, terms: PortfolioTerms) -> None:
    least, most = strategy.instruments
    if not least <= len(terms.symbols) <= most:
        raise NeedsOperator(
            f"Strategy {strategy.name} takes {least} to {most} instruments, there were {len(terms.symbols)}."
        )
    if terms.symbols != market.symbols:
        raise NeedsOperator(
            f"Terms must be for {', '.join(market.symbols)} in this order, were for {', '.join(terms.symbols)}."
        )
    if len(market) == 0:
        raise NeedsOperator("A backtest needs at least one bar, there were none.")


def compiled_portfolio_loop(strategy: PortfolioStrategy) -> Callable[..., Any]:
    """The loop compiled for this strategy; interpreted, said once, where numba cannot compile it."""
    if strategy.source not in _loops:
        _loops[strategy.source] = _compiled(strategy) or interpreted_portfolio_loop(strategy)
    return _loops[strategy.source]


def interpreted_portfolio_loop(strategy: PortfolioStrategy) -> Callable[..., Any]:
    """The same loop as plain Python, a row of a table as a list at a time."""
    run = loop.bound(portfolio_loop.run, step=strategy.step, row=lambda table, at: table[at].tolist())
    python = loop.bound(portfolio_loop.attempt, run=run, start=strategy.start)

    def call(columns: Sequence[Any], regimes: Sequence[Any], params: Any, rules: Any, *rest: Any) -> Any:
        times, *tables = columns
        odds = tuple(column.tolist() for column in regimes)
        n = tables[0].shape[1]
        legs, weights = no_legs(n), [0.0] * n
        rules = rules._replace(rows=_listed(rules.rows), carry=_listed(rules.carry))
        return legs, *python((times.tolist(), *tables), odds, params, legs, weights, rules, *rest)

    return call


def _listed(numbers: Any) -> Any:
    """Arrays as Python's lists."""
    return type(numbers)(*(each.tolist() if isinstance(each, np.ndarray) else each for each in numbers))


def _compiled(strategy: PortfolioStrategy) -> Callable[..., Any] | None:
    run = kernel(loop.bound(portfolio_loop.run, step=strategy.step))
    function = loop.bound(portfolio_loop.attempt, run=run, start=strategy.start)
    cache.LOOPS[function] = cache.LOOPS[run] = strategy.Params.__module__
    register()
    compiled = njit(function, nogil=True, cache=True, error_model="numpy")

    def call(columns: Sequence[Any], regimes: Sequence[Any], params: Any, rules: Any, *rest: Any) -> Any:
        n = columns[1].shape[1]
        table: Any = np.zeros((len(Legs._fields), n), np.int64)
        account, stats, written = compiled(columns, regimes, params, Legs(*table), np.zeros(n), rules, *rest)
        return Legs(*table.tolist()), as_python(account), as_python(stats), written

    return compiled_or_none(strategy, call, *_nothing(strategy))


def _nothing(strategy: PortfolioStrategy) -> tuple[Any, ...]:
    """Arguments of the right types and no bars: a call with them compiles."""
    n, params = strategy.instruments[0], NO_WEIGHTS if strategy.Params is Followed else strategy.params()
    no_times, no_prices = np.zeros(0, np.int64), np.zeros((0, n))
    instrument = Instrument(symbol="A-B", base="A", quote="B", tick=Decimal(1), lot=Decimal(1))
    terms = PortfolioTerms((instrument,) * n, "1d", Costs(fee_bps=0, slippage_bps=0), Decimal(1))
    rules = PortfolioRules(terms.rules[0], terms.rows, terms.carry, 0.0, strategy.is_one_intent)
    columns, regimes = (no_times, *[no_prices] * 5), (UNKNOWN_COLUMN,) * 3
    return columns, regimes, params, rules, 1, 0, no_times, no_times


def _failure(strategy: PortfolioStrategy, market: MarketColumns, params: Any, regimes: Sequence[Floats]) -> Failure:
    """What the strategy raised, found again interpreted: the bits are the same, bar and traceback are Python's."""
    _, told = stepped_weights(strategy, params, market, regimes)
    return told or Failure(f"{strategy.name} {params} failed compiled, but not interpreted: please report this.")
