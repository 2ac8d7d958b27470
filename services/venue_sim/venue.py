"""The venue itself: the tape and the exchange bound together, kept in SQLite, told to whoever listens.

`step` is the order of things in a bar: resting orders fill in it and their owner is told; then it closes and its
candle is told. What has been told is kept before it is told, so a start never takes a step back.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any

import msgspec
import structlog

from services.venue_sim import dialect, requests
from services.venue_sim.exchange import Balance, Exchange, Order, Trade
from services.venue_sim.market import Candle
from services.venue_sim.refusals import NO_SUCH_ORDER, UNKNOWN_CANCEL, UNKNOWN_SYMBOL, Refused, missing
from services.venue_sim.streams import Sockets
from services.venue_sim.tape import Tape
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import Instrument, to_binance
from shared.contracts.times import from_ms
from shared.runtime.clock import VenueClock
from shared.runtime.store import Statement, Store, keep_fact

TABLES = (
    "create table orders (id integer primary key, content blob not null)",
    "create table trades (id integer primary key, content blob not null)",
    "create table balances (asset text primary key, free text not null, locked text not null) without rowid",
)
OPEN_BARS_EVERY_S = 0.25  # Binance: a second or two. A market in lock-step closes hundreds of bars in that time
DAY_MS = timedelta(days=1) // timedelta(milliseconds=1)
UNKNOWN_KEPT = 200  # different unknown paths that are listed; all are counted

log = structlog.get_logger("venue_sim")


class Venue:
    """What clients ask and are told. One change at a time; reading needs no turn."""

    def __init__(self, tape: Tape, exchange: Exchange, store: Store, clock: VenueClock) -> None:
        self.tape = tape
        self.exchange = exchange
        self.market_streams = Sockets()
        self.user_streams = Sockets()
        self.unknown_paths: Counter[str] = Counter()
        self.refusals: Counter[int] = Counter()
        self._store = store
        self._clock = clock
        self._turn = asyncio.Lock()
        self._reports = 0
        self._told_open_s = -math.inf
        self._symbols = {to_binance(each.symbol): each for each in tape.instruments}

    async def recover(self) -> None:
        """Read back what was kept: where the market stands, balances, orders, trades."""
        identity = hashlib.sha256(self.tape.identity.encode()).hexdigest().encode()
        kept = await self._store.fact("market")
        if kept is not None and kept != identity:
            raise NeedsOperator(
                "The data folder holds another market than the one asked for (other files, symbols, seed or span). "
                "Use another --data-dir to begin a new one, or the same settings to go on."
            )
        position = await self._store.fact("position")
        if position is None:
            await self._store.commit(
                [
                    keep_fact("market", identity),
                    _position(self.tape.position),
                    *_balances(self.exchange.balances),
                ]
            )
        else:
            self.tape.position = msgspec.json.decode(position, type=dict[str, int])
            self.exchange.recover(
                {
                    asset: Balance(Decimal(free), Decimal(locked))
                    for asset, free, locked in await self._store.rows("select asset, free, locked from balances")
                },
                [
                    msgspec.json.decode(content, type=Order)
                    for (content,) in await self._store.rows("select content from orders order by id")
                ],
                [
                    msgspec.json.decode(content, type=Trade)
                    for (content,) in await self._store.rows("select content from trades order by id")
                ],
            )
        self._clock.saw(from_ms(self.tape.now))

    # -- the market --------------------------------------------------------------------------------------------------

    async def fill_resting_orders(self) -> list[Trade]:
        """The first half of a step: fill what the closing bar trades through, and tell its owner.

        Returns the trades that somebody was told of.
        """
        async with self._turn:
            filled = [
                each
                for symbol, bar in self.tape.upcoming()
                for each in self.exchange.match(symbol, bar, bar.opened_at + self.tape.length)
            ]
            for order, trade in filled:
                await self._keep(order, trade)
                self._report(order, trade, "TRADE")
            return [trade for _, trade in filled] if len(self.user_streams) else []

    async def close_bars(self) -> list[str]:
        """The second half: the bars close, their candles are told. Returns the symbols that had one."""
        async with self._turn:
            await self._store.commit([_position(self.tape.position_after)])
            closed = self.tape.advance()
            self._clock.saw(from_ms(self.tape.now))
            for symbol, bar in closed:
                self._tell_candle(symbol, bar, is_closed=True)
            self._tell_open_bars(symbol for symbol, _ in closed)
            return [symbol for symbol, _ in closed]

    @property
    def last_bars(self) -> dict[str, int]:
        """ "SYMBOL.TIMEFRAME" -> when the last bar told opened (ms)."""
        lasts = ((each.symbol, self.tape.last(each.symbol)) for each in self.tape.instruments)
        return {f"{symbol}.{self.tape.timeframe}": bar.opened_at for symbol, bar in lasts if bar is not None}

    def instrument(self, sent: Mapping[str, str]) -> Instrument:
        """The instrument that a request names. Raises Refused."""
        name = requests.text(sent, "symbol")
        if name not in self._symbols:
            raise Refused(UNKNOWN_SYMBOL)
        return self._symbols[name]

    def candles(self, symbol: str, first: int | None, last: int | None, limit: int) -> list[Candle]:
        """Closed bars, and as the last one the open bar, as Binance answers klines."""
        bars = self.tape.between(symbol, first, last, limit)
        upcoming = self.tape.open_bar(symbol)
        if upcoming is not None and (last is None or upcoming.opened_at <= last):
            newest = first is None
            if newest or (len(bars) < limit and upcoming.opened_at >= (first or 0)):
                bars = [*bars, dialect.just_opened(upcoming)][-limit:]
        return bars

    def price(self, symbol: str) -> float:
        """The last price: the open of the open bar, after the end the last close."""
        bar = self.tape.open_bar(symbol)
        if bar is not None:
            return bar.open
        last = self.tape.last(symbol)
        assert last is not None  # a tape has bars
        return last.close

    def best(self, instrument: Instrument) -> tuple[Decimal, Decimal]:
        """Bid and ask: what a market order would get and pay now."""
        price = self.price(instrument.symbol)
        bar = Candle(0, price, price, price, price, 0.0)
        return self.exchange.sell_price(instrument, bar), self.exchange.buy_price(instrument, bar)

    def ticker_24h(self, instrument: Instrument) -> dict[str, Any]:
        now, symbol = self.tape.now, instrument.symbol
        day = self.tape.between(symbol, now - DAY_MS, None, DAY_MS // self.tape.length)
        bid, ask = self.best(instrument)
        return dialect.ticker_24h(symbol, day, self.price(symbol), bid, ask, self.tape.length, now)

    # -- orders ------------------------------------------------------------------------------------------------------

    async def place(self, sent: Mapping[str, str]) -> dict[str, Any]:
        """A new order, answered once it is kept. Raises Refused."""
        instrument = self.instrument(sent)
        wanted = requests.order_request(sent, instrument)
        async with self._turn:
            bar = self.tape.open_bar(instrument.symbol)
            order, trade = self.exchange.place(instrument.symbol, wanted, bar, self.tape.now)
            await self._keep(order, trade)
            self._report(order, None, "NEW")
            if order.status != "NEW":
                self._report(order, trade, "TRADE" if trade else "EXPIRED")
            return dialect.new_order(order, trade)

    async def cancel(self, sent: Mapping[str, str]) -> dict[str, Any]:
        """Take an order back. Raises Refused."""
        async with self._turn:
            order = self._find(sent)
            if order is None:
                raise Refused(UNKNOWN_CANCEL)
            return await self._cancel(order)

    async def cancel_all(self, sent: Mapping[str, str]) -> list[dict[str, Any]]:
        """Take all resting orders of a symbol back. Raises Refused when there is none."""
        symbol = self.instrument(sent).symbol
        async with self._turn:
            resting = [order for order in self.exchange.open.values() if order.symbol == symbol]
            if not resting:
                raise Refused(UNKNOWN_CANCEL)
            return [await self._cancel(order) for order in resting]

    def order(self, sent: Mapping[str, str]) -> dict[str, Any]:
        """What became of an order. Raises Refused."""
        order = self._find(sent)
        if order is None:
            raise Refused(NO_SUCH_ORDER)
        return dialect.queried_order(order)

    def open_orders(self, sent: Mapping[str, str]) -> list[dict[str, Any]]:
        symbol = self.instrument(sent).symbol if sent.get("symbol") else None
        return [dialect.queried_order(o) for o in self.exchange.open.values() if symbol in (None, o.symbol)]

    def all_orders(self, sent: Mapping[str, str]) -> list[dict[str, Any]]:
        symbol, first = self.instrument(sent).symbol, requests.integer(sent, "orderId")
        since, until = requests.integer(sent, "startTime"), requests.integer(sent, "endTime")
        found = [
            order
            for order in self.exchange.orders.values()
            if order.symbol == symbol and order.id >= (first or 0) and _within(order.placed_at, since, until)
        ]
        return [dialect.queried_order(o) for o in _page(found, requests.limit(sent), first is None and since is None)]

    def trades(self, sent: Mapping[str, str]) -> list[dict[str, Any]]:
        symbol, first = self.instrument(sent).symbol, requests.integer(sent, "fromId")
        order_id = requests.integer(sent, "orderId")
        since, until = requests.integer(sent, "startTime"), requests.integer(sent, "endTime")
        found = [
            trade
            for trade in self.exchange.trades.values()
            if trade.symbol == symbol
            and trade.id >= (first or 0)
            and order_id in (None, trade.order_id)
            and _within(trade.at, since, until)
        ]
        return [dialect.account_trade(t) for t in _page(found, requests.limit(sent), first is None and since is None)]

    # -- what clients get wrong ----------------------------------------------------------------------------------------

    def note_unknown(self, what: str) -> None:
        """Somebody asked for what this venue does not have."""
        known = what in self.unknown_paths or len(self.unknown_paths) < UNKNOWN_KEPT
        self.unknown_paths[what if known else "(others)"] += 1
        log.warning("unknown_path", path=what)

    # -- within --------------------------------------------------------------------------------------------------------

    def _find(self, sent: Mapping[str, str]) -> Order | None:
        symbol = self.instrument(sent).symbol
        order_id, client_id = requests.integer(sent, "orderId"), sent.get("origClientOrderId")
        if order_id is None and not client_id:
            raise missing("origClientOrderId")
        return self.exchange.find(symbol, order_id, client_id)

    async def _cancel(self, order: Order) -> dict[str, Any]:
        canceled = self.exchange.cancel(order, self.tape.now)
        await self._keep(canceled, None)
        self._report(canceled, None, "CANCELED")
        return dialect.canceled_order(canceled)

    async def _keep(self, order: Order, trade: Trade | None) -> None:
        """An order and what it moved, in one transaction."""
        statements = [
            Statement("insert or replace into orders values (?, ?)", (order.id, msgspec.json.encode(order))),
            *_balances(self._touched(order)),
        ]
        if trade is not None:
            statements.append(Statement("insert into trades values (?, ?)", (trade.id, msgspec.json.encode(trade))))
        await self._store.commit(statements)

    def _report(self, order: Order, trade: Trade | None, kind: str) -> None:
        """Tell the account's owner what happened, and the balances after it."""
        if not len(self.user_streams):
            return
        self._reports += 1
        at = self.tape.now if trade is None else trade.at
        report = dialect.execution_report(order, trade, kind, self._reports, at)
        self.user_streams.tell_all({"subscriptionId": 0, "event": report})
        if kind != "NEW" or order.status == "NEW":  # an order that is filled at once moves balances once
            position = dialect.account_position(self._touched(order), at)
            self.user_streams.tell_all({"subscriptionId": 0, "event": position})

    def _touched(self, order: Order) -> dict[str, Balance]:
        instrument = self.exchange.instruments[order.symbol]
        return {asset: self.exchange.balances[asset] for asset in (instrument.base, instrument.quote)}

    def _tell_open_bars(self, symbols: Iterable[str]) -> None:
        """The bars that have just opened, at most so often in wall time, as Binance tells open candles."""
        now_s = self._clock.monotonic()
        if now_s - self._told_open_s < OPEN_BARS_EVERY_S:
            return
        self._told_open_s = now_s
        for symbol in symbols:
            upcoming = self.tape.open_bar(symbol)
            if upcoming is not None:
                self._tell_candle(symbol, dialect.just_opened(upcoming), is_closed=False)

    def _tell_candle(self, symbol: str, bar: Candle, *, is_closed: bool) -> None:
        stream = f"{to_binance(symbol).lower()}@kline_{self.tape.timeframe}"
        event = dialect.kline_event(
            symbol, self.tape.timeframe, bar, self.tape.length, self.tape.now, is_closed=is_closed
        )
        self.market_streams.tell(stream, event)


def _position(position: dict[str, int]) -> Statement:
    return keep_fact("position", msgspec.json.encode(position))


def _balances(balances: dict[str, Balance]) -> list[Statement]:
    return [
        Statement("insert or replace into balances values (?, ?, ?)", (asset, str(held.free), str(held.locked)))
        for asset, held in balances.items()
    ]


def _within(at: int, since: int | None, until: int | None) -> bool:
    return (since is None or at >= since) and (until is None or at <= until)


def _page(rows: list[Any], limit: int, latest: bool) -> list[Any]:
    """Binance answers with the latest rows, or the earliest ones from where it was asked to begin."""
    return rows[-limit:] if latest else rows[:limit]
