"""The life of an order, as it is kept: intent, then what the venue said of it.

    intent ──▶ accepted ──▶ filled | canceled | expired
       │──▶ unknown ──▶ (settled: as the venue says, or lost)
       └──▶ rejected

`intent` is committed before anything is sent, so after a crash it means "perhaps sent". `unknown` means that the
answer was lost. Both are settled by asking, see executor.py. `lost` was never known to the venue: it may be tried once
more under the id of the next attempt.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

from services.engine.venue import OrderStatus, Ticket
from shared.contracts.execution import Side, TradeClosed, TradeFill
from shared.contracts.times import to_ms
from shared.runtime.store import Statement, Store

State = Literal["intent", "accepted", "unknown", "filled", "canceled", "expired", "rejected", "lost"]
OPEN: tuple[State, ...] = ("intent", "accepted", "unknown")
ATTEMPTS = 2

# No index beyond the keys: each is one more page in every durable commit, and only a start and people look further.
TABLES = (
    """create table orders (order_id text primary key, sleeve text not null, state text not null, at_ms integer not null,
       content blob not null)""",
    """create table fills (venue text not null, symbol text not null, trade_id text not null, order_id text not null,
       content blob not null, primary key (venue, symbol, trade_id)) without rowid""",
    "create table trades (trade_id text primary key, closed_ms integer not null, content blob not null)",
)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One order of one sleeve, and what became of it. Changed by making the next one."""

    order_id: str
    sleeve: str  # "momentum.BTC-USDT.1m"
    venue: str
    symbol: str
    side: Side
    quantity: Decimal  # base units
    reason: str
    attempt: int
    decided_ms: int  # opened-at of the bar at whose close it was decided
    leg: str  # what tells two orders of one bar apart: "" or the id of a command
    at: datetime  # venue time
    state: State = "intent"
    venue_order_id: str = ""
    executed: Decimal = Decimal(0)  # sum of the fills that were booked
    code: str = ""
    detail: str = ""

    @property
    def ticket(self) -> Ticket:
        return Ticket(order_id=self.order_id, symbol=self.symbol, side=self.side, quantity=self.quantity)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def remaining(self) -> Decimal:
        return self.quantity - self.executed

    def became(self, status: OrderStatus, venue_order_id: str, reason: str = "") -> Order:
        """After the venue's word."""
        state: State = "accepted" if status == "open" else status
        return msgspec.structs.replace(self, state=state, venue_order_id=venue_order_id, detail=reason)

    def refused(self, code: str, reason: str) -> Order:
        return msgspec.structs.replace(self, state="rejected", code=code, detail=reason[:500])

    def next_attempt(self, account: str) -> Order | None:
        """The same order under the next id, when there is one more attempt."""
        if self.attempt >= ATTEMPTS:
            return None
        attempt = self.attempt + 1
        return msgspec.structs.replace(
            self,
            order_id=order_id(account, self.venue, self.sleeve, self.decided_ms, self.leg, attempt),
            attempt=attempt,
            state="intent",
        )


def order_id(account: str, venue: str, sleeve: str, decided_ms: int, leg: str, attempt: int) -> str:
    """The client order id: made from what the order is for, so that a restart asks for the same one. 25 characters."""
    about = "\0".join((account, venue, sleeve, str(decided_ms), leg, str(attempt)))
    digest = hashlib.blake2b(about.encode(), digest_size=15).digest()
    return "t" + base64.b32encode(digest).decode().lower()


def kept_order(order: Order) -> Statement:
    """The order as it is now."""
    return Statement(
        "insert into orders values (?, ?, ?, ?, ?) on conflict (order_id) do update set state = excluded.state,"
        " content = excluded.content",
        (order.order_id, order.sleeve, order.state, to_ms(order.at), msgspec.msgpack.encode(order)),
    )


def kept_fill(fill: TradeFill) -> Statement:
    """A fill under its key. The same key twice is an error here: who books must have looked."""
    return Statement(
        "insert into fills values (?, ?, ?, ?, ?)",
        (fill.venue, fill.symbol, fill.trade_id, fill.order_id, msgspec.msgpack.encode(fill)),
    )


def kept_trade(closed: TradeClosed) -> Statement:
    return Statement(
        "insert into trades values (?, ?, ?)",
        (closed.trade_id, to_ms(closed.closed_at), msgspec.msgpack.encode(closed)),
    )


async def open_orders(store: Store) -> list[Order]:
    """Those that a start must look after, oldest first."""
    marks = ",".join("?" * len(OPEN))
    rows = await store.rows(f"select content from orders where state in ({marks}) order by rowid", *OPEN)
    return [msgspec.msgpack.decode(content, type=Order) for (content,) in rows]


async def find_order(store: Store, order_id: str) -> Order | None:
    row = await store.row("select content from orders where order_id = ?", order_id)
    return None if row is None else msgspec.msgpack.decode(row[0], type=Order)


async def booked_trades(store: Store, order_id: str) -> set[str]:
    """The ids of the trades of an order that were booked."""
    return {row[0] for row in await store.rows("select trade_id from fills where order_id = ?", order_id)}


async def is_booked(store: Store, venue: str, symbol: str, trade_id: str) -> bool:
    """Whether a fill of this key was booked, by whichever way it came."""
    key = (venue, symbol, trade_id)
    return await store.row("select 1 from fills where venue = ? and symbol = ? and trade_id = ?", *key) is not None
