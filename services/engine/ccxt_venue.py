"""A real exchange, or one that speaks its dialect, through ccxt. Numbers are read from the venue's own strings.

ccxt says what it could not do by class and by the venue's code in its text. Only codes that say "not taken, for good"
are a refusal; whatever else goes wrong on the way of an order means that nobody knows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

import structlog

from services.engine.venue import Execution, OrderRefused, OrderStatus, OutcomeUnknown, Report, Ticket
from shared.contracts.errors import NeedsOperator, TryAgain
from shared.contracts.execution import Side
from shared.contracts.instruments import Instrument, from_binance, to_ccxt
from shared.contracts.times import from_ms
from shared.runtime.ccxt_binance import binance_class, make_binance

log: Any = structlog.get_logger("engine.venue")

CODE = re.compile(r'"code":\s*(-?\d+)')
# https://developers.binance.com/docs/binance-spot-api-docs/errors: the execution status of these is unknown
UNKNOWN_CODES = {-1000, -1001, -1006, -1007, -1008, -1016}
NO_SUCH_ORDER = -2013
STATUS: dict[str, OrderStatus] = {
    "NEW": "open",
    "PARTIALLY_FILLED": "open",
    "PENDING_NEW": "open",
    "PENDING_CANCEL": "open",
    "FILLED": "filled",
    "CANCELED": "canceled",
    "EXPIRED": "expired",
    "EXPIRED_IN_MATCH": "expired",
    "REJECTED": "rejected",
}
CLOCK_MARGIN_S = 1.0  # how far the venue's clock may be ahead of ours
WATCH_AGAIN_S = 0.25


class CcxtVenue:
    """One spot account on an exchange of Binance's dialect. ccxt is imported at the first call."""

    def __init__(
        self, name: str, *, base_url: str, api_key: str, secret: str, recv_window_ms: int, is_local: bool
    ) -> None:
        self.name = name
        self.settle_s = recv_window_ms / 1000 + CLOCK_MARGIN_S
        self._access = {"base_url": base_url, "api_key": api_key, "secret": secret, "is_local": is_local}
        self._recv_window_ms = recv_window_ms
        self._made: Any = None
        self._told: asyncio.Queue[Report | TryAgain] = asyncio.Queue()
        self._watching: asyncio.Task[None] | None = None

    # -- what can be traded ------------------------------------------------------------------------------------------

    async def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        markets = await self._read(self._exchange.load_markets())
        wanted = {to_ccxt(symbol): symbol for symbol in symbols}
        return {symbol: _instrument(symbol, markets[name]) for name, symbol in wanted.items() if name in markets}

    async def balances(self) -> dict[str, Decimal] | None:
        answer = await self._read(self._exchange.fetch_balance())
        return {each["asset"]: Decimal(each["free"]) + Decimal(each["locked"]) for each in answer["info"]["balances"]}

    # -- orders ------------------------------------------------------------------------------------------------------

    async def submit(self, ticket: Ticket) -> Report:
        errors = _errors()
        try:
            # Always our id: without one ccxt invents its own, and nobody could ask for the order again.
            answer = await self._exchange.create_order(
                to_ccxt(ticket.symbol),
                "market",
                ticket.side,
                f"{ticket.quantity:f}",
                None,
                {"newClientOrderId": ticket.order_id, "newOrderRespType": "FULL"},
            )
        except errors.BaseError as error:
            code = _code(error)
            # Without a code ccxt knew the refusal by its words, or refused by itself: then its class says it.
            is_refused = code not in UNKNOWN_CODES if code is not None else isinstance(error, _refusals(errors))
            if not is_refused:
                raise OutcomeUnknown(f"{type(error).__name__}: {str(error)[:300]}") from error
            raise OrderRefused(str(code or type(error).__name__), str(error)[:300]) from error
        try:
            info = answer["info"]
            at = from_ms(int(info["transactTime"]))
            fills = tuple(_fill_of_answer(ticket, fill, at) for fill in info["fills"])
            return _report(ticket.order_id, info, fills)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise OutcomeUnknown(f"The answer could not be read: {error!r}") from error

    async def query(self, ticket: Ticket) -> Report | None:
        params = {"origClientOrderId": ticket.order_id}
        try:
            answer = await self._read(self._exchange.fetch_order(None, to_ccxt(ticket.symbol), params))
        except _NoSuchOrder:
            return None
        # The order says sums; who traded at which price and fee only the trades say.
        info = answer["info"]
        fills = await self.executions(ticket, str(info["orderId"])) if Decimal(info["executedQty"]) > 0 else ()
        return _report(ticket.order_id, info, fills)

    async def executions(self, ticket: Ticket, venue_order_id: str) -> tuple[Execution, ...]:
        params = {"orderId": venue_order_id}
        trades = await self._read(self._exchange.fetch_my_trades(to_ccxt(ticket.symbol), None, None, params))
        return tuple(_fill_of_trade(ticket.symbol, each["info"]) for each in trades)

    # -- what it tells unasked ---------------------------------------------------------------------------------------

    def opened(self, symbol: str, price: float, at: datetime) -> Sequence[Report]:
        return ()  # it fills by itself, and says so

    async def next_reports(self) -> Sequence[Report]:
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="user stream")
        told = await self._told.get()
        if isinstance(told, TryAgain):
            raise told
        return (told,)

    async def _watch(self) -> None:
        """Keep the user stream open. What it says is taken in `_hear`; `watch_orders` returns only by an error."""
        errors = _errors()
        while True:
            try:
                await self._exchange.watch_orders()
            except errors.BaseError as error:
                log.info("user_stream.again", venue=self.name, error=f"{type(error).__name__}: {str(error)[:200]}")
                await asyncio.sleep(WATCH_AGAIN_S)

    def _stream_begins(self) -> None:
        """It is confirmed from here on; what happened before must be asked for, now and not before."""
        self._told.put_nowait(TryAgain("the user stream begins"))

    def _hear(self, message: dict[str, Any]) -> None:
        """One raw execution report, as the socket said it."""
        if message.get("e") != "executionReport" or message["x"] not in ("TRADE", "CANCELED", "EXPIRED", "REJECTED"):
            return
        fills = (_fill_of_report(message),) if message["x"] == "TRADE" else ()
        report = Report(
            order_id=message["C"] if message["x"] == "CANCELED" and message["C"] else message["c"],
            venue_order_id=str(message["i"]),
            status=STATUS[message["X"]],
            executed=Decimal(message["z"]),
            executions=fills,
            reason="" if message["r"] == "NONE" else message["r"],
        )
        self._told.put_nowait(report)

    def take_up(self, tickets: Iterable[Ticket]) -> None:
        pass  # it remembers them itself

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        if self._made is not None:
            await self._made.close()

    # -- within ------------------------------------------------------------------------------------------------------

    @property
    def _exchange(self) -> Any:
        if self._made is None:
            hear, begun = self._hear, self._stream_begins

            class Listening(binance_class()):
                """ccxt's connection, our ears: it would drop the trade id's type and the fee's digits."""

                def handle_order_update(self, client: Any, message: dict[str, Any]) -> None:
                    hear(message)

                def handle_user_data_stream_subscribe(self, client: Any, message: dict[str, Any]) -> None:
                    super().handle_user_data_stream_subscribe(client, message)
                    if message.get("status") == 200:
                        begun()

            self._made = make_binance(Listening, **self._access)
            self._made.options["recvWindow"] = self._recv_window_ms
        return self._made

    async def _read(self, question: Any) -> Any:
        """The answer to a question that changes nothing. Raises TryAgain while the venue is not to be reached."""
        errors = _errors()
        try:
            return await question
        except errors.OrderNotFound as error:  # an InvalidOrder, so before it
            raise _NoSuchOrder from error
        except errors.AuthenticationError as error:
            raise NeedsOperator(f"{self.name} refuses our key: {error}. Check the API key and its rights.") from error
        except errors.OperationFailed as error:
            raise TryAgain(f"{self.name}: {type(error).__name__}: {str(error)[:300]}") from error


class _NoSuchOrder(Exception):
    """The venue does not know this order."""


def _errors() -> Any:
    binance_class()
    from ccxt.base import errors  # with the exchange, never before it

    return errors


def _refusals(errors: Any) -> tuple[type[Exception], ...]:
    """Classes that mean "not taken, for good". NetworkError and the bare ExchangeError are not among them."""
    return (
        errors.InsufficientFunds,
        errors.InvalidOrder,
        errors.BadRequest,
        errors.ArgumentsRequired,
        errors.AuthenticationError,
        errors.OperationRejected,
        errors.NotSupported,
    )


def _code(error: Exception) -> int | None:
    found = CODE.search(str(error))
    return None if found is None else int(found[1])


def _instrument(symbol: str, market: dict[str, Any]) -> Instrument:
    """Our instrument, from the venue's own filters."""
    filters = {each["filterType"]: each for each in market["info"]["filters"]}
    notional = filters.get("NOTIONAL") or filters.get("MIN_NOTIONAL") or {"minNotional": "0"}
    return Instrument(
        symbol=symbol,
        base=market["base"],
        quote=market["quote"],
        tick=Decimal(filters["PRICE_FILTER"]["tickSize"]).normalize(),
        lot=Decimal(filters["LOT_SIZE"]["stepSize"]).normalize(),
        min_notional=Decimal(notional["minNotional"]),
    )


def _report(order_id: str, info: dict[str, Any], fills: tuple[Execution, ...]) -> Report:
    return Report(
        order_id=order_id,
        venue_order_id=str(info["orderId"]),
        status=STATUS[info["status"]],
        executed=Decimal(info["executedQty"]),
        executions=fills,
    )


# Three ways in which the venue tells one trade. Their ids meet as text: REST says "17", the stream 17.


def _fill_of_answer(ticket: Ticket, fill: dict[str, Any], at: datetime) -> Execution:
    return Execution(
        symbol=ticket.symbol,
        trade_id=str(fill["tradeId"]),
        side=ticket.side,
        quantity=Decimal(fill["qty"]),
        price=Decimal(fill["price"]),
        fee=Decimal(fill["commission"]),
        fee_asset=fill["commissionAsset"],
        at=at,
    )


def _fill_of_trade(symbol: str, trade: dict[str, Any]) -> Execution:
    side: Side = "buy" if trade["isBuyer"] in (True, "true") else "sell"
    return Execution(
        symbol=symbol,
        trade_id=str(trade["id"]),
        side=side,
        quantity=Decimal(trade["qty"]),
        price=Decimal(trade["price"]),
        fee=Decimal(trade["commission"]),
        fee_asset=trade["commissionAsset"],
        at=from_ms(int(trade["time"])),
    )


def _fill_of_report(message: dict[str, Any]) -> Execution:
    side: Side = "buy" if message["S"] == "BUY" else "sell"
    return Execution(
        symbol=from_binance(message["s"]),
        trade_id=str(message["t"]),
        side=side,
        quantity=Decimal(message["l"]),
        price=Decimal(message["L"]),
        fee=Decimal(message["n"]),
        fee_asset=message["N"] or "",
        at=from_ms(int(message["T"])),
    )
