"""Backtests: the loop of `loop.py` compiled, over one parameter set, a grid of them, or given targets.

The only room that imports numba. What does not compile is decided by Python first (`callbacks`), and gives the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import Any, Literal, cast

import numpy as np

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs, Figures
from shared.contracts.instruments import Instrument
from shared.contracts.times import timeframe_length
from shared.trading import ledger
from shared.trading.columns import Columns, Floats, Integers
from shared.trading.compiled.callbacks import Failure, callback_targets, failure, place, vector_targets
from shared.trading.compiled.loops import IN_DETAIL, PLAIN, UNKNOWN_COLUMN, Call, Loop, compiled_loop, follow_loop
from shared.trading.compiled.targets import Targets
from shared.trading.fills import CANNOT_REST, NOTE, REFUSALS, Sleeve
from shared.trading.frictions import frictions
from shared.trading.loop import Regimes, Series
from shared.trading.performance import Stats, figures, periods_per_year
from shared.trading.scales import Scale
from shared.trading.strategy import Strategy

__all__ = [
    "Failure",
    "Run",
    "Targets",
    "Terms",
    "callback_targets",
    "execute",
    "grid",
    "scan",
    "vector_targets",
]

NOTES_A_BAR = 6  # at most: a fill at the open, an exit there, an order that rested, an exit inside, a fill at the close, borrowing
CHUNK = 25  # parameter sets between two signs of progress: a few milliseconds of a thread that holds no lock


@dataclass(frozen=True)
class Terms:
    """On what terms a run trades. What the defaults say is what the engine does."""

    instrument: Instrument
    timeframe: str
    costs: Costs
    cash: Decimal  # quote currency
    max_quantity: Decimal | None = None  # base units that may be held
    size: Decimal | None = None  # base units held whenever the exposure is not 0; None: the exposure's share of equity
    exposure: float = 1.0  # 0..1, times the strategy's own
    shorts: bool = True  # where the instrument allows them; False: a negative exposure is 0
    fill: Literal["next_open", "same_close", "next_close"] = "next_open"  # where market orders are filled
    exits: Literal["on_close", "at_venue"] = "on_close"  # judged on the closed bar, or resting inside the next
    funding: tuple[Integers, Floats] | None = None  # of a perpetual: times (ms, rising) and rates, both (k,)

    @property
    def is_plain(self) -> bool:
        """Whether this is what the engine does as well: nothing is filled inside a bar or at its close."""
        plain = self.fill == "next_open" and self.exits == "on_close" and self.funding is None
        return plain and not self.costs.backtest_only


@dataclass(frozen=True)
class Run:
    """What came of one parameter set."""

    params: Any
    figures: Figures
    sleeve: Sleeve  # as it stood after the last bar
    stats: Stats
    curve: Integers | None  # equity at each close, ledger units (n,)
    fills: Integers | None  # (k, 6): bar, lots, ticks, fee, reason (a number of `fills.REASONS`), at stake after it
    charges: (
        Integers | None
    )  # (m, 4): bar, paid for holding, reason, how many fills came before it; told with the fills

    @property
    def fees(self) -> int:
        """Paid in all, ledger units."""
        return self.sleeve.book.fees


def scan(
    strategy: Strategy,
    bars: Columns,
    params: Mapping[str, object] | tuple[Any, ...],
    terms: Terms,
    *,
    trade_from: int = 0,
    regimes: Sequence[Floats] | None = None,
    with_curve: bool = False,
    with_fills: bool = False,
) -> Run:
    """Run one parameter set over all bars; orders are made from bar `trade_from` on, and figures count from there.

    `regimes` are the columns bull, bear, chop, each of shape (n,). Raises Failure when the strategy raises or says
    something impossible, and BadParams for parameters outside its bounds.
    """
    checked = strategy.params(_named(params))
    job = _Job(bars, terms, trade_from, regimes)
    (result,) = job.runs(strategy, [checked], with_curve, with_fills)
    if isinstance(result, Failure):
        raise result
    return result


def grid(
    strategy: Strategy,
    bars: Columns,
    table: Iterable[Mapping[str, object] | tuple[Any, ...]],
    terms: Terms,
    *,
    trade_from: int = 0,
    regimes: Sequence[Floats] | None = None,
    threads: int | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[Run | Failure]:
    """Run every parameter set of the table, in its order, in threads: the compiled loop holds no lock.

    A set that fails is told as a Failure in its place, and the others go on. `on_progress` hears how many are done.
    """
    job = _Job(bars, terms, trade_from, regimes)
    checked: list[Any] = [strategy.params(_named(params)) for params in table]
    chunks = [checked[first : first + CHUNK] for first in range(0, len(checked), CHUNK)]
    done: list[Run | Failure] = []
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        for results in pool.map(partial(job.runs, strategy), chunks):
            done += results
            if on_progress:
                on_progress(len(done))
    return done


def execute(
    targets: Targets,
    bars: Columns,
    terms: Terms,
    *,
    trade_from: int = 0,
    with_curve: bool = False,
    with_fills: bool = False,
) -> Run:
    """Trade given targets: the functions that execute a strategy's own, so the same targets earn the same bits."""
    if len(targets) != len(bars):
        raise NeedsOperator(f"There must be one target for each of the {len(bars)} bars, were {len(targets)}.")
    return _Job(bars, terms, trade_from).follow(targets, with_curve, with_fills)


class _Job:
    """What all runs over the same bars share."""

    def __init__(
        self,
        bars: Columns,
        terms: Terms,
        trade_from: int,
        regimes: Sequence[Floats] | None = None,
    ) -> None:
        if len(bars) == 0:
            raise NeedsOperator("A backtest needs at least one bar, there were none.")
        scale = Scale.of(terms.instrument)
        self.bars = bars
        self.scale = scale
        self.terms = terms
        self.cash = scale.units(terms.cash)
        if self.cash <= 0 or not ledger.fits(0, 0.0, 0, 4 * self.cash):
            raise NeedsOperator(f"A sleeve's cash must be above 0 and countable, was {terms.cash}.")
        self.trade_from = trade_from
        self.regimes = Regimes(*(np.ascontiguousarray(c, np.float64) for c in regimes or [UNKNOWN_COLUMN] * 3))
        if regimes is not None and {len(column) for column in self.regimes} != {len(bars)}:
            raise NeedsOperator(f"Regimes must have one value for each of the {len(bars)} bars.")
        self.periods = periods_per_year(terms.timeframe, terms.instrument.calendar)

    def runs(
        self, strategy: Strategy, table: Sequence[Any], with_curve: bool = False, with_fills: bool = False
    ) -> list[Run | Failure]:
        """What came of each parameter set. Those that want orders to rest are run again where orders can."""
        with_notes = with_curve or with_fills
        trade_from = [max(self.trade_from, strategy.warmup(params) - 1) for params in table]
        call = self._call(self.regimes, with_notes, self.terms.is_plain)
        results = compiled_loop(strategy, call.events)(call, table, trade_from)
        runs: list[Run | Failure] = []
        for params, first, result in zip(table, trade_from, results, strict=True):
            played = call
            if result is not None and result[0].refused == CANNOT_REST:
                played = self._call(self.regimes, with_notes, False)
                (result,) = compiled_loop(strategy, played.events)(played, [params], [first])
            if result is not None and result[0].refused:
                loop = compiled_loop(strategy, played.events)
                who, why = f"{strategy.name} {params}", result[0].refused
                runs.append(self._refusal(who, why, played, partial(_sleeve_of, loop, params, first)))
            elif result is None:
                runs.append(failure(strategy, self.bars, params, cast(Any, self.regimes)))
            else:
                runs.append(self._told(params, result, first, played.notes, with_curve, with_fills))
        return runs

    def follow(self, targets: Targets, with_curve: bool, with_fills: bool) -> Run:
        rests = bool(np.any(targets.limit > 0) or np.any(targets.trigger > 0))
        call = self._call(targets.all(), with_curve or with_fills, self.terms.is_plain and not rests)
        follow = follow_loop(call.events)
        result = follow(call, self.trade_from)
        if why := result[0].refused:
            raise self._refusal("Targets", why, call, lambda part: follow(part, self.trade_from)[0])
        return self._told(None, result, self.trade_from, call.notes, with_curve, with_fills)

    def _refusal(self, who: str, why: int, call: Call, play: Callable[[Call], Sleeve]) -> Failure:
        """Why a sleeve could not go on, and at which bar: the first with which its prefix of the bars is refused."""
        first, last = 0, len(self.bars) - 1
        while first < last:
            middle = (first + last) // 2
            if play(call.first(middle + 1)).refused:
                last = middle
            else:
                first = middle + 1
        return Failure(f"{who}: {REFUSALS[why]}, at {place(self.bars, first)}.")

    def _call(self, beside: Any, with_notes: bool, is_plain: bool) -> Call:
        terms, bars = self.terms, Series(*self.bars.all())
        rules = self.scale.rules(
            terms.instrument,
            terms.costs,
            top=self.bars.top,
            max_quantity=terms.max_quantity,
            size=terms.size,
            exposure=terms.exposure,
            shorts=terms.shorts,
            rests=not is_plain,
        )
        if is_plain:
            return Call(PLAIN, bars, beside, rules, self.cash, np.zeros(NOTE * len(self.bars) * with_notes, np.int64))
        detailed = frictions(
            terms.instrument,
            terms.costs,
            rules,
            fill=terms.fill,
            exits=terms.exits,
            funding=None if terms.funding is None else tuple(column.tolist() for column in terms.funding),
            bar_ms=int(timeframe_length(terms.timeframe).total_seconds() * 1000),
        )
        most = NOTES_A_BAR * len(self.bars) + len(detailed.funding_at)
        return Call(IN_DETAIL, bars, beside, detailed, self.cash, np.zeros(NOTE * most * with_notes, np.int64))

    def _told(
        self,
        params: Any,
        result: Any,
        trade_from: int,
        written: Integers,
        with_curve: bool,
        with_fills: bool,
    ) -> Run:
        sleeve, stats, count = result
        earned = figures(
            stats,
            bars=max(len(self.bars) - trade_from, 0),
            start=self.cash,
            fees=float(self.scale.amount(sleeve.book.fees)),
            periods_per_year=self.periods,
        )
        noted = written[:count].reshape(-1, NOTE)
        curve = self._curve(noted) if with_curve else None
        is_fill = noted[:, 1] != 0
        if not with_fills:
            return Run(params, earned, sleeve, stats, curve, None, None)
        charges = np.column_stack([noted[:, [0, 3, 4]], np.cumsum(is_fill)])[~is_fill]
        return Run(params, earned, sleeve, stats, curve, noted[is_fill], charges)

    def _curve(self, noted: Integers) -> Integers:
        """The equity at each close (n,), in ledger units, from the fills: the same integers as the book's."""
        bar, lots, ticks, fee, *_ = noted.T
        cash, held = np.zeros((2, len(self.bars)), np.int64)
        cash[0] = self.cash
        np.add.at(cash, bar, -(lots * ticks * self.scale.unit + fee))
        np.add.at(held, bar, lots)
        marks = (self.bars.close * float(1 / self.scale.tick) + 0.5).astype(np.int64)
        return np.cumsum(cash) + np.cumsum(held) * marks * self.scale.unit


def _sleeve_of(loop: Loop, params: Any, first: int, call: Call) -> Sleeve:
    (result,) = loop(call, [params], [first])
    return result[0]


def _named(params: Mapping[str, object] | tuple[Any, ...]) -> Mapping[str, object]:
    return params if isinstance(params, Mapping) else cast(Any, params)._asdict()
