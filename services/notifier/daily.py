"""A day's closed trades, summed up when the day is over by venue time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from services.notifier.phrases import Note
from shared.contracts.execution import TradeClosed
from shared.contracts.wire import message_id
from shared.runtime.listening import Effects
from shared.runtime.store import Store

# The engine says by its progress that a day is over before the day's last trade has come by the bus: so long it may be
# under way. A trade of the next day comes in order and says the same for certain.
GRACE = timedelta(minutes=10)


@dataclass
class Day:
    """Sums of one day."""

    trades: int = 0
    wins: int = 0
    net: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)

    def book(self, pnl: Decimal, fees: Decimal) -> None:
        self.trades += 1
        self.wins += pnl > 0
        self.net += pnl
        self.fees += fees


class Daily:
    """Days on which a trade closed, until they are told."""

    def __init__(self, tell: Callable[[Effects, str, Note, datetime], None]) -> None:
        self._tell = tell
        self._days: dict[date, Day] = {}
        self.is_due = asyncio.Event()

    async def recover(self, store: Store) -> None:
        """Read back the days that are not told yet."""
        for day, pnl, fees in await store.rows("select day, pnl, fees from day_trades"):
            self._days.setdefault(date.fromisoformat(day), Day()).book(Decimal(pnl), Decimal(fees))

    def book(self, trade: TradeClosed, effects: Effects) -> None:
        """Add a trade to its day, and tell the days before."""
        today = trade.closed_at.date()
        self.tell_before(today, effects)
        self._days.setdefault(today, Day()).book(trade.pnl, trade.fees)
        effects.execute(
            "insert or ignore into day_trades values (?, ?, ?, ?)",
            *(message_id(trade), today.isoformat(), str(trade.pnl), str(trade.fees)),
        )

    def time_is(self, now: datetime) -> None:
        """The market has come to here: see whether a day is over."""
        if any(day < (now - GRACE).date() for day in self._days):
            self.is_due.set()

    def tell_before(self, today: date, effects: Effects) -> None:
        """Tell the days before this one."""
        for day in sorted(day for day in self._days if day < today):
            sums = self._days.pop(day)
            effects.execute("delete from day_trades where day = ?", day.isoformat())
            text = f"Day {day}: {sums.net:+.2f} net in {sums.trades} trades, {sums.wins} won, fees {sums.fees:.2f}"
            at = datetime.fromisoformat(f"{today.isoformat()}T00:00:00+00:00")
            self._tell(effects, f"daily.{day}", Note(level="ordinary", text=text), at)
