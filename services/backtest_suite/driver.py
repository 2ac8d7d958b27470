"""The one way to run a backtest: an experiment, its runs, and what each run tells. Pure: no file is read or written.

Experiment   a strategy on bars, on terms: what several parameter sets have in common, and trials are counted on
Result       one parameter set: figures, trades, equity, and the manifest that repeats it to the same bits
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property
from typing import Any, NamedTuple, TypedDict, Unpack

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
from services.backtest_suite.results import Result
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.times import timeframe_ms
from shared.trading.columns import Integers
from shared.trading.compiled import Targets, Terms, execute, scan
from shared.trading.strategy import Strategy

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
    trade_from: int  # first bar on whose close an order may be made
    seed: int


class NoParams(NamedTuple):
    """Of what was decided elsewhere."""


def _undecided(*_: Any) -> Any:
    raise NeedsOperator("These targets were decided elsewhere: nothing can be stepped.")


DECIDED = Strategy(
    "targets", NoParams, _undecided, _undecided, {}, lambda _: True, lambda _: 0, False, "Decided elsewhere"
)


@dataclass(frozen=True)
class Experiment:
    """A strategy on bars, on terms."""

    strategy: Strategy
    bars: Bars
    assumptions: Assumptions
    reading: Reading | None = None  # where the bars come from, for the manifest
    targets: Targets | None = None  # that were decided elsewhere; the strategy is DECIDED then

    @classmethod
    def of(
        cls,
        strategy: Strategy,
        bars: Bars,
        *,
        reading: Reading | None = None,
        targets: Targets | None = None,
        **given: Unpack[Given],
    ) -> Experiment:
        """Put one together, on the instrument that the bars name. Raises NeedsOperator when there are no bars."""
        if not len(bars):
            raise NeedsOperator(f"A backtest needs at least one bar, {bars.source or bars.symbol} has none.")
        return cls(strategy, bars, Assumptions(instrument=bars.instrument, **given), reading, targets)

    @cached_property
    def terms(self) -> Terms:
        """The same, as the compiled loop takes it."""
        a = self.assumptions
        return Terms(
            a.instrument,
            self.bars.timeframe,
            a.costs,
            a.cash,
            size=a.size,
            exposure=a.exposure,
            shorts=a.shorts,
            fill=a.fill,
            exits=a.exits,
            funding=None if self.bars.funding is None else (self.bars.funding.at_ms, self.bars.funding.rate),
        )

    @cached_property
    def filled_at_ms(self) -> Integers:
        """When the market orders that fill on each bar do so (n,): at its open or at its close."""
        opened = self.bars.columns.opened_at_ms
        closed = opened + timeframe_ms(self.bars.timeframe)
        if self.assumptions.instrument.calendar == "XNYS":
            opened, closed = session_times(opened, self.bars.timeframe)
        return opened if self.assumptions.fill == "next_open" else closed

    @property
    def data(self) -> Data:
        """Which bars."""
        bars = self.bars
        return Data(
            reading=self.reading,
            symbol=bars.symbol,
            timeframe=bars.timeframe,
            universe=bars.universe,
            sha256=bars.sha256,
            funding_sha256="" if bars.funding is None else bars.funding.sha256(),
            first=bars.first,
            last=bars.last,
            bars=len(bars),
        )

    def fingerprint(self, params: Params) -> str:
        """SHA-256 (hex) of all that the result of these checked parameters depends on."""
        return fingerprint_of(self._common, params)

    @cached_property
    def _common(self) -> bytes:
        common = common_of(self.strategy, self.bars.sha256, self.assumptions)
        if self.bars.funding is not None:
            common += self.bars.funding.sha256().encode()
        return common if self.targets is None else common + b"".join(column.tobytes() for column in self.targets.all())

    def run(self, params: Mapping[str, object] | None = None, *, trials: int = 1) -> Result:
        """Run one parameter set, those not given by default. `trials`: sets tried on these bars, this one included.

        Raises BadParams for parameters that the strategy does not take, Failure when it raises at a bar.
        """
        checked = self.strategy.params(params)
        begun = time.perf_counter()
        told: Any = {"trade_from": self.assumptions.trade_from, "with_curve": True, "with_fills": True}
        if self.targets is None:
            run = scan(self.strategy, self.bars.columns, checked, self.terms, **told)
        else:
            run = replace(execute(self.targets, self.bars.columns, self.terms, **told), params=checked)
        return Result(self, run, trials, time.perf_counter() - begun)
