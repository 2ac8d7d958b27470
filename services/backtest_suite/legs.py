"""What a run did in each instrument: fills, what holding cost, and the round trips that they make."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.backtest_suite.trades import Trade, trades_of
from shared.contracts.instruments import Instrument
from shared.trading.columns import Floats, Integers, MarketColumns
from shared.trading.compiled import Run
from shared.trading.compiled.portfolios import PortfolioRun, PortfolioTerms
from shared.trading.fills import NO_EXITS, SIGNAL, no_watch, watched
from shared.trading.loop import typical_range
from shared.trading.scales import Rules, Scale


@dataclass(frozen=True)
class Leg:
    """One instrument's part in a run."""

    symbol: str
    scale: Scale
    fills: Integers  # as of a `Run`
    charges: Integers  # as of a `Run`
    filled_at_ms: Integers  # (n,) when the market orders that fill on each bar do so
    close: Floats  # (n,) NaN where it has no bar

    @cached_property
    def trades(self) -> list[Trade]:
        """The round trips, oldest first."""
        return trades_of(self.fills, self.charges, self.filled_at_ms, self.scale, self.symbol)

    @cached_property
    def is_held(self) -> NDArray[np.bool_]:
        """Whether anything is held at each close (n,)."""
        changes = np.zeros(len(self.filled_at_ms), np.int64)
        np.add.at(changes, self.fills[:, 0], self.fills[:, 1])
        return np.cumsum(changes) != 0

    @property
    def traded(self) -> float:
        """The notional of all fills, quote currency."""
        _, lots, ticks, *_ = self.fills.T
        return float(np.sum(np.abs(lots) * ticks * self.scale.unit, dtype=np.float64)) / 10.0**self.scale.decimals

    @property
    def fees(self) -> Decimal:
        return self.scale.amount(int(self.fills[:, 3].sum()))

    @property
    def paid(self) -> Decimal:
        """Funding and borrowing; negative: received."""
        return self.scale.amount(int(self.charges[:, 1].sum()))

    @property
    def earned(self) -> Decimal:
        """What its closed trades earned, net."""
        return sum((trade.pnl for trade in self.trades), Decimal(0))

    def summary(self) -> dict[str, Any]:
        """What `--json` prints of it."""
        return {
            "symbol": self.symbol,
            "trades": len(self.trades),
            "orders": len(self.fills),
            "fees": float(self.fees),
            "charges": float(self.paid),
            "earned": float(self.earned),
        }


def leg_of(run: Run, instrument: Instrument, filled_at_ms: Integers, close: Floats) -> Leg:
    """What was done in the only instrument. The run must have been told in detail, as below."""
    assert run.fills is not None and run.charges is not None
    return Leg(instrument.symbol, Scale.of(instrument), run.fills, run.charges, filled_at_ms, close)


def legs_of(run: PortfolioRun, terms: PortfolioTerms, market: MarketColumns, filled_at_ms: Integers) -> tuple[Leg, ...]:
    """What was done in each instrument of a portfolio, in their order."""
    assert run.fills is not None and run.charges is not None
    legs: list[Leg] = []
    for k, symbol in enumerate(terms.symbols):
        fills, charges = of_instrument(k, run.fills, run.charges)
        reasons, risks = np.full(len(fills), SIGNAL), stakes(fills, market, k, terms.rules[k])
        told = np.column_stack([fills, reasons, risks])
        legs.append(Leg(symbol, terms.scales[k], told, charges, filled_at_ms, market.close[:, k]))
    return tuple(legs)


def of_instrument(k: int, fills: Integers, charges: Integers) -> tuple[Integers, Integers]:
    """A portfolio's fills and charges of one instrument: (m, 4) bar, lots, ticks, fee; (c, 4) as of a `Run`."""
    is_own = fills[:, 1] == k
    before = np.concatenate([[0], np.cumsum(is_own)])  # own fills among so many of all
    own = charges[charges[:, 1] == k]
    return fills[is_own][:, [0, 2, 3, 4]], np.column_stack([own[:, [0, 2, 3]], before[own[:, 4]]])


def stakes(fills: Integers, market: MarketColumns, k: int, rules: Rules) -> Integers:
    """What is at stake after each fill (m,), ledger units: weights have no stop, so a typical bar's range, as in `fills`."""
    there = np.flatnonzero(~np.isnan(market.close[:, k]))
    high, low, close = (table[there, k].tolist() for table in (market.high, market.low, market.close))
    watch, held = no_watch(), 0
    told: list[int] = []
    for bar, lots, ticks, _ in fills.tolist():
        if held * (held + lots) < 0:  # one trade ends and another begins
            watch, lots, held = no_watch(), held + lots, 0
        if abs(held + lots) > abs(held):
            typical = typical_range(high, low, close, int(np.searchsorted(there, bar)) - 1)
            watch = watched(watch, NO_EXITS, held, lots, abs(lots) * ticks * rules.unit, typical, rules)
        held += lots
        watch = watch if held != 0 else no_watch()
        told.append(round(watch.risk))
    return np.array(told, np.int64)
