"""The one way to run a backtest: an experiment, its runs, and what each run tells. Pure: no file is read or written.

Experiment   a strategy on bars, on terms: what several parameter sets have in common, and trials are counted on. The bars
             are of one instrument, or a panel of many for a strategy that trades a portfolio
Result       one parameter set: figures, trades, equity, and the manifest that repeats it to the same bits
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple, TypedDict, Unpack, cast

from services.backtest_suite.data import Bars
from services.backtest_suite.listing import session_times
from services.backtest_suite.manifests import (
    Assumptions,
    Data,
    Exits,
    Fill,
    Params,
    Reading,
    common_of,
    fingerprint_of,
)
from services.backtest_suite.panels import Panel
from services.backtest_suite.results import Result
from services.backtest_suite.scanners import OverMany, OverOne, portfolio_terms_of, terms_of
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.times import timeframe_ms
from shared.trading.columns import Integers
from shared.trading.compiled import Targets, Terms
from shared.trading.compiled.portfolios import PortfolioTerms
from shared.trading.compiled.weights import FOLLOWING, Weights
from shared.trading.strategy import PortfolioStrategy, Strategy

WARMUPS = 3  # lengths of the warm-up before a span: averages that never forget have forgotten enough by then


class Given(TypedDict, total=False):
    """What may be said of a run, by name; what is not said is as in `Assumptions`."""

    cash: Decimal  # quote currency to begin with
    costs: Costs
    fill: Fill  # when an order made at a close is filled
    size: Decimal | None  # base units of every position, instead of a fraction of the equity
    exposure: float  # times the strategy's own
    shorts: bool  # where the instrument allows them
    exits: Exits  # judged on closed bars, or resting at the venue
    rebalance_band: float  # of a portfolio's equity: a leg that is off by less is left alone
    trade_from: int  # first bar on whose close an order may be made
    seed: int


class NoParams(NamedTuple):
    """Of what was decided elsewhere."""


def _undecided(*_: Any) -> Any:
    raise NeedsOperator("These targets were decided elsewhere: nothing can be stepped.")


DECIDED = Strategy(
    "targets", NoParams, _undecided, _undecided, {}, lambda _: True, lambda _: 0, False, "Decided elsewhere"
)
DECIDED_WEIGHTS = replace(FOLLOWING, Params=NoParams, start=_undecided, step=_undecided)


@dataclass(frozen=True)
class Experiment:
    """A strategy on bars, on terms."""

    strategy: Strategy | PortfolioStrategy
    bars: Bars | Panel
    assumptions: Assumptions
    readings: tuple[Reading, ...] = ()  # where the bars of each instrument come from; (): a program gave them
    targets: Targets | Weights | None = (
        None  # that were decided elsewhere; the strategy is DECIDED, DECIDED_WEIGHTS then
    )

    @classmethod
    def of(
        cls,
        strategy: Strategy | PortfolioStrategy,
        bars: Bars | Panel,
        *,
        readings: tuple[Reading, ...] = (),
        targets: Targets | None = None,
        **given: Unpack[Given],
    ) -> Experiment:
        """Put one together, on the instruments that the bars name. A portfolio of one may be given its bars alone.

        Raises NeedsOperator when there are no bars, or of more instruments than the strategy takes.
        """
        if not len(bars):
            raise NeedsOperator(f"A backtest needs at least one bar, {bars.source or bars.symbol} has none.")
        if isinstance(strategy, PortfolioStrategy) and isinstance(bars, Bars):
            bars = Panel((bars,))
        return cls(strategy, bars, Assumptions(instruments=bars.instruments, **given), readings, targets)

    @cached_property
    def terms(self) -> Terms | PortfolioTerms:
        """The same, as the compiled loop takes it."""
        return self.scanner.terms

    @cached_property
    def scanner(self) -> OverOne | OverMany:
        """What computes it. Raises NeedsOperator when strategy and bars do not go together."""
        given, strategy, bars = self.assumptions, self.strategy, self.bars
        if isinstance(strategy, PortfolioStrategy) and isinstance(bars, Panel):
            terms = portfolio_terms_of(given, bars)
            return OverMany(strategy, bars.columns, terms, given.trade_from, cast("Weights | None", self.targets))
        if isinstance(strategy, Strategy) and isinstance(bars, Bars):
            terms = terms_of(given, bars)
            return OverOne(strategy, bars.columns, terms, given.trade_from, cast("Targets | None", self.targets))
        raise NeedsOperator(
            f"Strategy {strategy.name} trades {'a portfolio' if isinstance(bars, Bars) else 'one instrument'}, "
            f"it was given the bars of {bars.symbol}."
        )

    def of_one(self, what: str) -> tuple[Strategy, Bars]:
        """Strategy and bars, where these must be of one instrument. Raises NeedsOperator that says what a portfolio cannot."""
        if isinstance(self.strategy, Strategy) and isinstance(self.bars, Bars):
            return self.strategy, self.bars
        raise NeedsOperator(f"{self.strategy.name} trades a portfolio, and {what}.")

    @cached_property
    def filled_at_ms(self) -> Integers:
        """When the market orders that fill on each bar do so (n,): at its open or at its close."""
        opened = self.bars.columns.opened_at_ms
        closed = opened + timeframe_ms(self.bars.timeframe)
        if self.assumptions.calendar == "XNYS":
            opened, closed = session_times(opened, self.bars.timeframe)
        return opened if self.assumptions.fill == "next_open" else closed

    @property
    def data(self) -> Data:
        """Which bars."""
        if isinstance(self.bars, Bars):
            return data_of(self.bars, next(iter(self.readings), None))
        readings = self.readings or (None,) * len(self.bars.members)
        return data_of(self.bars, members=tuple(map(data_of, self.bars.members, readings)))

    def fingerprint(self, params: Params) -> str:
        """SHA-256 (hex) of all that the result of these checked parameters depends on."""
        return fingerprint_of(self._common, params)

    @cached_property
    def _common(self) -> bytes:
        common = common_of(self.strategy, self.bars.sha256, self.assumptions)
        common += "".join(
            f"{each.symbol}{each.funding.sha256()}" for each in self.bars.members if each.funding
        ).encode()
        return common if self.targets is None else common + b"".join(column.tobytes() for column in self.targets.all())

    def run(self, params: Mapping[str, object] | None = None, *, trials: int = 1) -> Result:
        """Run one parameter set, those not given by default. `trials`: sets tried on these bars, this one included.

        Raises BadParams for parameters that the strategy does not take, Failure when it raises at a bar.
        """
        checked = self.strategy.params(params)
        begun = time.perf_counter()
        run = self.scanner.run(checked, in_detail=True)
        return Result(self, run, trials, time.perf_counter() - begun)


def data_of(bars: Bars | Panel, reading: Reading | None = None, members: tuple[Data, ...] = ()) -> Data:
    """Which bars these are."""
    return Data(
        reading=reading,
        symbol=bars.symbol,
        timeframe=bars.timeframe,
        universe=bars.universe,
        sha256=bars.sha256,
        funding_sha256=bars.funding.sha256() if isinstance(bars, Bars) and bars.funding else "",
        first=bars.first,
        last=bars.last,
        bars=len(bars),
        members=members,
    )
