"""The doors: every route, under /api/v1 and at its plain path. What is asked is checked here; what is answered is made
next door. Money is text, exact; statistics are numbers; what cannot be known is null."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from services.ops_api import queries
from services.ops_api.access import Access, GuardedRoute
from services.ops_api.commands import Commands, Verb
from services.ops_api.explain import explanation
from services.ops_api.live import Pulse
from services.ops_api.now import Now
from services.ops_api.presets import sleeves
from services.ops_api.queries import TradeFilter
from services.ops_api.settings import OpsSettings
from services.ops_api.status import Watch
from shared.contracts.governance import StageChanged
from shared.contracts.instruments import check_symbol
from shared.contracts.operations import Alert
from shared.contracts.times import parse_time, timeframe_ms
from shared.runtime.store import Store
from shared.runtime.version import code_version

MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}
Limit = Annotated[int, Query(ge=1, le=1000)]


class JsonResponse(Response):
    """msgspec's JSON: exact decimals as text, NaN as null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return msgspec.json.encode(content)


def api_routes(
    store: Store,
    now: Now,
    watch: Watch,
    pulse: Pulse,
    access: Access,
    commands: Commands,
    settings: OpsSettings,
    stopping: asyncio.Event,
) -> APIRouter:
    """What programs ask."""
    readers = APIRouter(route_class=GuardedRoute, dependencies=[Depends(access.reader)])

    @readers.get("/status")
    async def status() -> Response:
        return JsonResponse(watch.status().flat())

    @readers.get("/trades/stats")
    async def trade_stats() -> Response:
        return JsonResponse(now.earnings.stats())

    @readers.get("/trades")
    async def trades(
        limit: Limit = 50,
        after: str = "",
        symbol: str = "",
        strategy: str = "",
        timeframe: str = "",
        side: Literal["", "long", "short"] = "",
        exit_reason: str = "",
        first: Annotated[str, Query(alias="from")] = "",
        last: Annotated[str, Query(alias="to")] = "",
    ) -> Response:
        wanted = TradeFilter(
            symbol=symbol and check_symbol(symbol),
            strategy=strategy,
            timeframe=timeframe,
            side=side,
            exit_reason=exit_reason,
            first=parse_time(first) if first else None,
            last=parse_time(last) if last else None,
        )
        return JsonResponse(await queries.trade_page(store, wanted, limit, after))

    @readers.get("/positions")
    async def positions() -> Response:
        if now.portfolio is None:
            raise HTTPException(404, f"No snapshot of the account {now.account!r} yet: the engine tells one a bar.")
        return JsonResponse(now.portfolio)

    @readers.get("/equity")
    async def equity(
        points: Annotated[int, Query(ge=2, le=5000)] = 1000,
        first: Annotated[str, Query(alias="from")] = "",
        last: Annotated[str, Query(alias="to")] = "",
    ) -> Response:
        begin, end = parse_time(first) if first else None, parse_time(last) if last else None
        return JsonResponse(await queries.equity_curve(store, now.account, points, begin, end))

    @readers.get("/bars/{instrument}")
    async def bars(
        instrument: str, timeframe: str = "", limit: Annotated[int, Query(ge=1, le=5000)] = 500, after_ms: int = -1
    ) -> Response:
        symbol, _, frame = known_series(now, instrument, timeframe).rpartition(".")
        return JsonResponse(await queries.bars_of(store, symbol, frame, limit, after_ms))

    @readers.get("/presets")
    async def presets() -> Response:
        return JsonResponse({"sleeves": sleeves(now)})

    @readers.get("/governance")
    async def governance(limit: Limit = 100) -> Response:
        changes: list[StageChanged] = [one.message for one in await queries.recent(store, StageChanged, limit)]
        record = sorted(changes, key=lambda change: -change.sequence)
        names = ("models_promoted", "models_refused", "presets_promoted", "presets_refused")
        return JsonResponse({"record": record, **{name: now.counts[name] for name in names}})

    @readers.get("/alerts")
    async def alerts(limit: Limit = 50) -> Response:
        return JsonResponse({"alerts": [one.message for one in await queries.recent(store, Alert, limit)]})

    @readers.get("/explain/{named:path}")
    async def explain(named: str) -> Response:
        found = await explanation(store, named)
        if found is None:
            raise HTTPException(
                404,
                f"Nothing that was heard speaks of {named!r}: pass the id of a trade, an order, a decision, a "
                "preset, a model or an event.",
            )
        return JsonResponse(found)

    @readers.get("/stream")
    async def stream() -> Response:
        async def frames() -> AsyncIterator[bytes]:
            async with pulse.looker() as looker:
                while not stopping.is_set():
                    yield await looker.frame()

        return StreamingResponse(frames(), media_type="text/event-stream")

    @readers.get("/session")
    async def session(request: Request) -> Response:
        return JsonResponse({"may_command": await access.has_session(request) and not settings.dry_run})

    operators = APIRouter(route_class=GuardedRoute)

    @operators.post("/ops/{verb}")
    async def command(
        verb: Verb,
        actor: str = Depends(access.operator),
        idempotency_key: Annotated[str, Header()] = "",
        reason: Annotated[str, Query(max_length=500)] = "",
    ) -> Response:
        state = await commands.send(verb, actor, reason, idempotency_key)
        return JsonResponse(state, status_code=202 if state.done is None else 200 if state.done else 409)

    both = APIRouter()
    both.include_router(readers)
    both.include_router(operators)
    return both


def page_routes(access: Access, settings: OpsSettings) -> APIRouter:
    """What a browser asks: the page and its parts, all from this package."""
    page = APIRouter(route_class=GuardedRoute)
    # `autoescape` always: symbols and notes are other people's text.
    templates = Environment(
        loader=PackageLoader("services.ops_api"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    parts = _static_parts()

    @page.get("/")
    async def index(request: Request, login: str = "") -> Response:
        if login:
            answer = RedirectResponse("/", status_code=303)
            if not await access.has_session(request):
                await access.log_in(login, answer)
            return answer
        shell = templates.get_template("page.html")
        return HTMLResponse(shell.render(version=code_version(), venue=settings.venue, market=settings.market_shown))

    @page.get("/static/{name:path}")
    async def static(name: str) -> Response:
        if name not in parts:
            raise HTTPException(404, "The page has no such part.")
        content, media_type = parts[name]
        return Response(content, media_type=media_type)

    return page


def _static_parts() -> dict[str, tuple[bytes, str]]:
    """Every file of the page by name, read once: no path that a browser sends reaches the disk."""
    parts: dict[str, tuple[bytes, str]] = {}
    folders = [("", files("services.ops_api") / "static")]
    for prefix, folder in folders:
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append((f"{prefix}{entry.name}/", entry))
            else:
                media_type = MEDIA_TYPES["." + entry.name.rpartition(".")[2]]
                parts[prefix + entry.name] = entry.read_bytes(), media_type
    return parts


def known_series(now: Now, instrument: str, timeframe: str) -> str:
    """The series that is meant; without a timeframe the shortest there is. 404 when nothing was heard of it."""
    check_symbol(instrument)
    known = [
        series for series, bar in now.bars.items() if bar.symbol == instrument and timeframe in ("", bar.timeframe)
    ]
    if not known:
        there = ", ".join(sorted(now.bars)) or "none yet"
        raise HTTPException(404, f"No bar of {instrument} {timeframe} was heard. There are: {there}.")
    return min(known, key=lambda series: timeframe_ms(series.rpartition(".")[2]))
