"""The doors: Binance's REST paths, its two websockets, and `/sim/status` for ourselves. What is not here is counted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Request, Response, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

from services.venue_sim import dialect, requests
from services.venue_sim.conductor import Conductor
from services.venue_sim.refusals import UNKNOWN_INTERVAL, Refusal, Refused
from services.venue_sim.requests import Keys
from services.venue_sim.streams import Socket
from services.venue_sim.venue import Venue
from shared.contracts.times import TIMEFRAMES, to_ms
from shared.runtime.clock import Clock

Sent = Mapping[str, str]
Answer = Callable[[Sent], Any]
SIGNATURE = re.compile(r"(?:^|&)signature=([^&]*)")
DUPLICATE = Refusal(-1101, "Duplicate values for a parameter detected.")
UNKNOWN_VARIANT = 2  # Binance's code for a websocket request it cannot read
STREAM = re.compile(r"([a-z0-9]+)@kline_(\w+)")


def routes(venue: Venue, conductor: Conductor, keys: Keys, clock: Clock) -> APIRouter:
    """Everything that this venue answers."""
    router = APIRouter()

    def wall_ms() -> int:
        return to_ms(clock.wall())

    def add(method: str, path: str, answer: Callable[[Sent], Any], *, is_signed: bool) -> None:
        async def endpoint(request: Request) -> Response:
            query, body = request.url.query, (await request.body()).decode()
            try:
                sent = _parameters(query, body)
                if is_signed:
                    signature = SIGNATURE.search(query) or SIGNATURE.search(body)
                    signed = SIGNATURE.sub("", query) + SIGNATURE.sub("", body)
                    key = request.headers.get("X-MBX-APIKEY")
                    keys.check(key, signed, signature[1] if signature else None, sent, wall_ms())
                found = answer(sent)
                return _json(await found if isinstance(found, Awaitable) else found)
            except Refused as error:
                venue.refusals[error.refusal.code] += 1
                return _json(dialect.refusal(error.refusal), error.refusal.status)

        router.add_api_route(f"/api/v3/{path}", endpoint, methods=[method], include_in_schema=False)

    def klines(sent: Sent) -> list[Any]:
        instrument = venue.instrument(sent)
        interval = requests.text(sent, "interval")
        if interval not in TIMEFRAMES or interval != venue.tape.timeframe:
            raise Refused(UNKNOWN_INTERVAL)
        first, last = requests.integer(sent, "startTime"), requests.integer(sent, "endTime")
        bars = venue.candles(instrument.symbol, first, last, requests.limit(sent))
        return [dialect.kline(bar, venue.tape.length) for bar in bars]

    def one_or_all(answer: Callable[[Any], Any]) -> Answer:
        """Ticker routes answer an object for one symbol and a list for all."""
        return lambda sent: (
            answer(venue.instrument(sent)) if "symbol" in sent else list(map(answer, venue.tape.instruments))
        )

    def exchange_info(sent: Sent) -> Any:
        wanted = [venue.instrument(sent)] if "symbol" in sent else venue.tape.instruments
        return dialect.exchange_info(wanted, wall_ms())

    for path, answer in {
        "ping": lambda _sent: {},
        "time": lambda _sent: dialect.server_time(wall_ms()),
        "exchangeInfo": exchange_info,
        "klines": klines,
        "ticker/24hr": one_or_all(venue.ticker_24h),
        "ticker/price": one_or_all(lambda each: dialect.ticker_price(each.symbol, venue.price(each.symbol))),
        "ticker/bookTicker": one_or_all(lambda each: dialect.book_ticker(each.symbol, *venue.best(each))),
    }.items():
        add("GET", path, answer, is_signed=False)
    signed: dict[tuple[str, str], Answer] = {
        ("GET", "account"): lambda _sent: dialect.account(venue.exchange, venue.tape.now),
        ("POST", "order"): venue.place,
        ("GET", "order"): venue.order,
        ("DELETE", "order"): venue.cancel,
        ("GET", "openOrders"): venue.open_orders,
        ("DELETE", "openOrders"): venue.cancel_all,
        ("GET", "allOrders"): venue.all_orders,
        ("GET", "myTrades"): venue.trades,
    }
    for (method, path), answer in signed.items():
        add(method, path, answer, is_signed=True)

    @router.websocket("/stream/ws/{number}")
    @router.websocket("/stream/ws")
    async def market_stream(websocket: WebSocket) -> None:
        async with _accepted(websocket) as socket:
            venue.market_streams.add(socket)
            try:
                async for request in _requests(websocket, socket):
                    _answer_subscription(venue, socket, request)
            finally:
                venue.market_streams.remove(socket)

    @router.websocket("/ws-api/v3")
    async def user_stream(websocket: WebSocket) -> None:
        async with _accepted(websocket) as socket:
            try:
                async for request in _requests(websocket, socket):
                    socket.tell(_answer_api(venue, keys, socket, request, wall_ms()))
            finally:
                venue.user_streams.remove(socket)

    @router.get("/sim/status")
    async def status() -> dict[str, Any]:
        return conductor.status()

    @router.api_route("/{path:path}", methods=["GET", "POST", "PUT", "DELETE"], include_in_schema=False)
    async def unknown(request: Request) -> Response:
        venue.note_unknown(f"{request.method} {request.url.path}")
        return _json({"code": -1000, "msg": f"This venue has no {request.method} {request.url.path}."}, 404)

    @router.websocket("/{path:path}")
    async def unknown_stream(websocket: WebSocket) -> None:
        venue.note_unknown(f"WS {websocket.url.path}")
        await websocket.close()

    return router


def _answer_subscription(venue: Venue, socket: Socket, request: dict[str, Any]) -> None:
    names = request.get("params") or []
    match request.get("method"):
        case "SUBSCRIBE":
            for name in names:
                found = STREAM.fullmatch(str(name))
                if found is None or found[2] != venue.tape.timeframe:  # Binance accepts it, and says nothing for ever
                    venue.note_unknown(f"STREAM {name}")
            socket.streams.update(map(str, names))
            socket.tell({"result": None, "id": request.get("id")})
        case "UNSUBSCRIBE":
            socket.streams.difference_update(map(str, names))
            socket.tell({"result": None, "id": request.get("id")})
        case "LIST_SUBSCRIPTIONS":
            socket.tell({"result": sorted(socket.streams), "id": request.get("id")})
        case method:
            venue.note_unknown(f"STREAM {method}")
            error = {"code": UNKNOWN_VARIANT, "msg": f"Invalid request: unknown variant `{method}`"}
            socket.tell({"error": error, "id": request.get("id")})


def _answer_api(venue: Venue, keys: Keys, socket: Socket, request: dict[str, Any], wall_ms: int) -> dict[str, Any]:
    """One request of the websocket API. Its signature is over the parameters in the order of their names."""
    name = request.get("id")
    sent = {key: str(value) for key, value in (request.get("params") or {}).items()}
    match request.get("method"):
        case "ping":
            return {"id": name, "status": 200, "result": {}}
        case "time":
            return {"id": name, "status": 200, "result": dialect.server_time(wall_ms)}
        case "userDataStream.subscribe.signature":
            signature = sent.pop("signature", None)
            text = "&".join(f"{key}={sent[key]}" for key in sorted(sent))
            try:
                keys.check(sent.get("apiKey"), text, signature, sent, wall_ms)
            except Refused as error:
                venue.refusals[error.refusal.code] += 1
                return {"id": name, "status": error.refusal.status, "error": dialect.refusal(error.refusal)}
            venue.user_streams.add(socket)
            return {"id": name, "status": 200, "result": {"subscriptionId": 0}}
        case method:
            venue.note_unknown(f"WS-API {method}")
            error = {"code": -1000, "msg": f"This venue has no method {method}."}
            return {"id": name, "status": 400, "error": error}


@asynccontextmanager
async def _accepted(websocket: WebSocket) -> AsyncIterator[Socket]:
    """An accepted socket and its sending task, ended together."""
    await websocket.accept()
    socket = Socket(websocket)
    sending = asyncio.create_task(socket.send_for_ever())
    try:
        yield socket
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def _requests(websocket: WebSocket, socket: Socket) -> AsyncIterator[dict[str, Any]]:
    """The JSON objects that a client sends, until it leaves or is hung up on."""
    while websocket.application_state is WebSocketState.CONNECTED:
        try:
            text = await websocket.receive_text()
        except WebSocketDisconnect:
            return
        try:
            request = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.DecodeError as error:
            socket.tell({"error": {"code": UNKNOWN_VARIANT, "msg": f"Invalid request: {error}"}, "id": None})
            continue
        yield request


def _parameters(query: str, body: str) -> Sent:
    """All parameters of a request; Binance takes them from the query and from the form alike."""
    pairs = [*parse_qsl(query, keep_blank_values=True), *parse_qsl(body, keep_blank_values=True)]
    sent = dict(pairs)
    if len(sent) != len(pairs):
        raise Refused(DUPLICATE)
    return sent


def _json(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
