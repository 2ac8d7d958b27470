"""Fills to round trips: a trade runs from flat to flat, and its result is net of every fee and of what holding cost."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Literal

from shared.contracts.times import from_ms
from shared.trading.columns import Integers
from shared.trading.fills import REASONS, share_of
from shared.trading.scales import Scale


@dataclass(frozen=True)
class Trade:
    """One round trip. Money in quote currency; prices are means over the fills."""

    entry_at: datetime
    exit_at: datetime
    side: Literal["long", "short"]
    quantity: Decimal  # base units entered
    entry_price: float
    exit_price: float
    fees: Decimal
    charges: Decimal  # funding and borrowing; negative: received
    pnl: Decimal  # net of both
    risk: Decimal  # at stake at entry: the distance to the stop, else a typical bar's range, times the quantity
    result_r: float  # pnl / risk; 1.0: one stop earned
    bars_held: int
    reason: str  # why it ended: one of fills.REASONS
    symbol: str = ""  # where it was said


@dataclass
class _Open:
    """A trade that has not come back to flat."""

    side: int
    bar: int
    entered: int = 0  # lots
    entry_cost: int = 0  # lots x ticks
    left: int = 0
    exit_cost: int = 0
    fees: int = 0  # ledger units
    charges: int = 0
    risk: int = 0

    def take(self, lots: int, ticks: int, fee: int, risk: int) -> None:
        """Add a fill. `risk` is at stake after it; what leaves does not change what was."""
        if lots * self.side > 0:
            self.entered += abs(lots)
            self.entry_cost += abs(lots) * ticks
            self.risk = risk
        else:
            self.left += abs(lots)
            self.exit_cost += abs(lots) * ticks
        self.fees += fee

    def closed(self, bar: int, reason: int, times: Integers, scale: Scale, symbol: str) -> Trade:
        tick = float(scale.tick)
        earned = (self.exit_cost - self.entry_cost) * self.side * scale.unit - self.fees - self.charges
        return Trade(
            entry_at=from_ms(int(times[self.bar])),
            exit_at=from_ms(int(times[bar])),
            side="long" if self.side > 0 else "short",
            quantity=scale.quantity(self.entered),
            entry_price=self.entry_cost / self.entered * tick,
            exit_price=self.exit_cost / self.left * tick,
            fees=scale.amount(self.fees),
            charges=scale.amount(self.charges),
            pnl=scale.amount(earned),
            risk=scale.amount(self.risk),
            result_r=earned / self.risk if self.risk > 0 else 0.0,
            bars_held=bar - self.bar,
            reason=REASONS[reason],
            symbol=symbol,
        )


def trades_of(fills: Integers, charges: Integers, times: Integers, scale: Scale, symbol: str = "") -> list[Trade]:
    """The closed trades of `fills` and `charges` (as of a `Run`), oldest first.

    `times` (n,) tell when a bar's fills happened (ms). A fill that turns a position ends one trade and begins another;
    each pays its share of the fee, as in the ledger. What holding cost is borne by the trade that was open then.
    """
    closed: list[Trade] = []
    trade: _Open | None = None
    held = 0
    owed = deque(charges.tolist())
    for k, (bar, lots, ticks, fee, reason, risk) in enumerate(fills.tolist()):
        if trade is not None:
            trade.charges += _due(owed, k)
        if trade is not None and held * (held + lots) < 0:
            part = share_of(fee, abs(held), abs(lots))
            trade.take(-held, ticks, part, 0)
            closed.append(trade.closed(bar, reason, times, scale, symbol))
            trade, lots, fee, held = None, lots + held, fee - part, 0
        if trade is None:
            trade = _Open(1 if lots > 0 else -1, bar)
        trade.take(lots, ticks, fee, risk)
        held += lots
        if held == 0:
            closed.append(trade.closed(bar, reason, times, scale, symbol))
            trade = None
    return closed


def _due(owed: deque[list[int]], fills: int) -> int:
    """What was charged up to when so many fills had come, and nobody has borne."""
    total = 0
    while owed and owed[0][3] <= fills:
        total += owed.popleft()[1]
    return total
