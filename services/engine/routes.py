"""What one may ask the engine: how it stands, what it holds, what it ordered, and its journal. Nothing here changes anything."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response

from services.engine import journal
from services.engine.desk import Desk
from services.engine.orders import Order
from services.engine.settings import EngineSettings
from services.engine.status import status
from shared.contracts.execution import TradeClosed, TradeFill
from shared.runtime.service import Host

Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[int, Query(ge=0)]


def routes(host: Host[EngineSettings], desk: Desk, venue: str) -> APIRouter:
    """The engine's routes, over its own rows."""
    router = APIRouter()
    store, settings = host.store, host.settings

    @router.get("/status")
    async def read_status() -> Any:
        return msgspec.to_builtins(await status(store, desk, settings.account, venue, settings.mode))

    @router.get("/positions")
    async def read_positions() -> Any:
        return {
            "account": settings.account,
            "state": desk.standing.state,
            "equity": str(desk.equity),
            "positions": msgspec.to_builtins(list(desk.positions())),
        }

    @router.get("/sleeves")
    async def read_sleeves() -> Any:
        return [
            {
                "sleeve": each.name,
                "cash": str(each.trader.cash),
                "quantity": str(each.trader.quantity),
                "dust": str(each.trader.dust),
                "fees": str(each.trader.fees),
                "chosen": each.trader.chosen,
                "active": each.trader.active,
                "presets": {name: each.trader.is_ready(name) for name in each.trader.candidates},
                "halted": each.kept.halted,
            }
            for each in desk.sleeves.values()
        ]

    @router.get("/readings/{symbol}")
    async def read_readings(symbol: str, after_ms: After = 0, limit: Limit = 500) -> Any:
        """What the engine's own filter read, with the hash of its exact bytes, to be compared with ml_service's."""
        rows = await store.rows(
            "select opened_ms, regime, model_id, reading_hash from bars where series = ? and opened_ms > ?"
            " order by rowid limit ?",
            f"{symbol}.{settings.timeframe}",
            after_ms,
            limit,
        )
        names = ("opened_ms", "regime", "model_id", "reading_hash")
        body = msgspec.json.encode([dict(zip(names, row, strict=True)) for row in rows])
        return Response(body, media_type="application/json")  # pages of a thousand: checked again they cost 10 ms

    @router.get("/orders")
    async def read_orders(limit: Limit = 100) -> Any:
        rows = await store.rows("select content from orders order by rowid desc limit ?", limit)
        return [msgspec.to_builtins(msgspec.msgpack.decode(content, type=Order)) for (content,) in rows]

    @router.get("/orders/{order_id}/fills")
    async def read_fills(order_id: str) -> Any:
        rows = await store.rows("select content from fills where order_id = ?", order_id)
        return [msgspec.to_builtins(msgspec.msgpack.decode(content, type=TradeFill)) for (content,) in rows]

    @router.get("/closed")
    async def read_closed(limit: Limit = 100) -> Any:
        rows = await store.rows("select content from trades order by rowid desc limit ?", limit)
        return [msgspec.to_builtins(msgspec.msgpack.decode(content, type=TradeClosed)) for (content,) in rows]

    @router.get("/journal")
    async def read_journal(after: After = 0, limit: Limit = 500) -> Any:
        rows = await journal.rows_after(store, after, limit)
        return {"rows": [journal.shown(row) for row in rows], "next": rows[-1].seq if rows else after}

    @router.get("/journal/verify")
    async def verify_journal() -> Any:
        broken = await journal.verified(store)
        return {"sound": broken is None, "first_broken": broken}

    return router
