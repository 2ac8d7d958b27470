"""Lists, read from the tables: trades, the equity's curve, bars, the governor's record, events by what they speak of."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from shared.contracts.errors import BadMessage
from shared.contracts.execution import TradeClosed
from shared.contracts.subjects import SUBJECTS
from shared.contracts.times import to_ms
from shared.contracts.wire import Message
from shared.runtime.store import Store

KINDS = {subject.message.__name__: subject.message for subject in SUBJECTS}


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was heard, with what led to it."""

    id: str
    source: str
    correlation: str
    cause: str
    message: Any  # of the type that `id` begins with


class TradePage(msgspec.Struct, frozen=True, kw_only=True):
    """Closed trades, the last closed first. `next` fetches the page after this one; "" on the last."""

    trades: list[TradeClosed]
    total: int  # that match
    next: str


class Curve(msgspec.Struct, frozen=True, kw_only=True):
    """The account's equity at closes, thinned to the last close of each stretch."""

    account: str
    at_ms: list[int]
    equity: list[float]
    cash: list[float]


class Bars(msgspec.Struct, frozen=True, kw_only=True):
    """Bars by columns, oldest first, each with how it was read ("" where nothing was said)."""

    symbol: str
    timeframe: str
    opened_ms: list[int]
    open: list[float]
    high: list[float]
    low: list[float]
    close: list[float]
    volume: list[float]
    regime: list[str]


class TradeFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which trades are wanted; "" and None are no wish."""

    symbol: str = ""
    strategy: str = ""
    timeframe: str = ""
    side: str = ""
    exit_reason: str = ""
    first: datetime | None = None  # closed in [first, last]
    last: datetime | None = None

    def where(self) -> tuple[str, list[Any]]:
        """As SQL over the table `trades`."""
        terms: list[str] = []
        values: list[Any] = []
        for column in ("symbol", "strategy", "timeframe", "side", "exit_reason"):
            if value := getattr(self, column):
                terms.append(f"{column} = ?")
                values.append(value)
        for sign, moment in ((">=", self.first), ("<=", self.last)):
            if moment is not None:
                terms.append(f"closed_ms {sign} ?")
                values.append(to_ms(moment))
        return " and ".join(terms) or "true", values


async def trade_page(store: Store, wanted: TradeFilter, limit: int, after: str) -> TradePage:
    """One page of closed trades. `after` is the `next` of the page before. The order is total, so no trade is shown
    twice or left out when others close meanwhile."""
    where, values = wanted.where()
    counted = await store.row(f"select count(*) from trades where {where}", *values)
    seek, seek_values = "true", []
    if after:
        closed_ms, _, trade_id = after.partition(".")
        if not closed_ms.isdecimal() or not trade_id:
            raise BadMessage(f"`after` must be the `next` of another page, was {after!r}.")
        seek, seek_values = "(closed_ms, trade_id) < (?, ?)", [int(closed_ms), trade_id]
    rows = await store.rows(
        f"select closed_ms, trade_id, body from trades where {where} and {seek}"
        " order by closed_ms desc, trade_id desc limit ?",
        *values,
        *seek_values,
        limit + 1,
    )
    shown = rows[:limit]
    return TradePage(
        trades=[msgspec.msgpack.decode(body, type=TradeClosed) for _, _, body in shown],
        total=counted[0] if counted else 0,
        next=f"{shown[-1][0]}.{shown[-1][1]}" if len(rows) > limit else "",
    )


async def equity_curve(
    store: Store, account: str, points: int, first: datetime | None = None, last: datetime | None = None
) -> Curve:
    """At most about `points` closes between two instants, evenly in time; the newest is always among them."""
    span = "select coalesce(min(at_ms), 0), coalesce(max(at_ms), 0) from equity where account = ?"
    begin, end = (await store.row(span, account)) or (0, 0)
    begin = begin if first is None else max(begin, to_ms(first))
    end = end if last is None else min(end, to_ms(last))
    stretch = max(1, -(-(end - begin) // points))
    rows = await store.rows(
        "select max(at_ms), equity, cash from equity where account = ? and at_ms between ? and ?"
        " group by (? - at_ms) / ? order by 1",
        *(account, begin, end, end, stretch),
    )
    return Curve(
        account=account,
        at_ms=[row[0] for row in rows],
        equity=[float(row[1]) for row in rows],
        cash=[float(row[2]) for row in rows],
    )


async def bars_of(store: Store, symbol: str, timeframe: str, limit: int, after_ms: int = -1) -> Bars:
    """The last `limit` bars that opened after `after_ms`, with their regimes."""
    rows = await store.rows(
        "select b.opened_ms, open, high, low, close, volume, coalesce(regime, '') from bars b"
        " left join readings r on r.series = b.series and r.opened_ms = b.opened_ms"
        " where b.series = ? and b.opened_ms > ? order by b.opened_ms desc limit ?",
        *(f"{symbol}.{timeframe}", after_ms, limit),
    )
    columns: list[list[Any]] = [list(column) for column in zip(*reversed(rows), strict=True)] or [[] for _ in range(7)]
    names = ("opened_ms", "open", "high", "low", "close", "volume", "regime")
    return Bars(symbol=symbol, timeframe=timeframe, **dict(zip(names, columns, strict=True)))


async def event(store: Store, event_id: str) -> Event | None:
    """The event of this id, or None when it was not kept."""
    rows = await store.rows("select id, type, source, correlation, cause, body from events where id = ?", event_id)
    return _event(rows[0]) if rows else None


async def events_naming(store: Store, named: str, kind: type[Message] | None = None, limit: int = 100) -> list[Event]:
    """Events that mention this id, oldest first."""
    rows = await store.rows(
        "select e.id, e.type, source, correlation, cause, body from mentions m join events e on e.id = m.event"
        f" where named = ? {'' if kind is None else 'and m.type = ?'} order by m.at_ms, e.id limit ?",
        *((named, limit) if kind is None else (named, kind.__name__, limit)),
    )
    return [_event(row) for row in rows]


async def events_on(store: Store, named: Iterable[str], kinds: Iterable[type[Message]]) -> list[Event]:
    """Every event of these kinds that mentions one of these ids, oldest first."""
    rows = await store.rows(
        "select e.id, e.type, source, correlation, cause, body from mentions m join events e on e.id = m.event"
        " where named in (select value from json_each(?)) and m.type in (select value from json_each(?))"
        " order by m.at_ms, e.id",
        *(json.dumps(list(named)), json.dumps([kind.__name__ for kind in kinds])),
    )
    return [_event(row) for row in rows]


async def last_event(store: Store, kind: type[Message], sleeve: str, at: datetime) -> Event | None:
    """The last event of this kind on a sleeve that happened at `at` or before."""
    rows = await store.rows(
        "select id, type, source, correlation, cause, body from events where type = ? and sleeve = ? and at_ms <= ?"
        " order by at_ms desc, id desc limit 1",
        *(kind.__name__, sleeve, to_ms(at)),
    )
    return _event(rows[0]) if rows else None


async def recent(store: Store, kind: type[Message], limit: int, sleeve: str = "") -> list[Event]:
    """The newest events of a kind, newest first; with a sleeve, those on it (`BTC-USDT.1m` for models)."""
    rows = await store.rows(
        f"select id, type, source, correlation, cause, body from events where type = ? {'and sleeve = ?' * bool(sleeve)}"
        " order by at_ms desc, id desc limit ?",
        *((kind.__name__, sleeve, limit) if sleeve else (kind.__name__, limit)),
    )
    return [_event(row) for row in rows]


async def reading_at(store: Store, symbol: str, timeframe: str, opened_at: datetime) -> tuple[str, float | None] | None:
    """How a bar was read: the regime and its probability; None when that is no longer (or was never) kept."""
    row = await store.row(
        "select regime, bull, bear, chop from readings where series = ? and opened_ms = ?",
        *(f"{symbol}.{timeframe}", to_ms(opened_at)),
    )
    if row is None:
        return None
    return row[0], dict(zip(("BULL", "BEAR", "CHOP"), row[1:], strict=True)).get(row[0])


def _event(row: tuple[Any, ...]) -> Event:
    event_id, kind, source, correlation, cause, body = row
    return Event(
        id=event_id,
        source=source,
        correlation=correlation,
        cause=cause,
        message=msgspec.msgpack.decode(body, type=KINDS[kind]),
    )
