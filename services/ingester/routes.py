"""What the ingester answers: its bars, how far it has come, and a fill on demand."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, HTTPException, Response

from services.ingester.archive import Archive
from services.ingester.book import Chunk, chunks_of, gaps_of, tail_of
from services.ingester.candles import Candle, SeriesName
from services.ingester.follow import Follower
from services.ingester.settings import IngesterSettings
from shared.contracts.instruments import check_symbol
from shared.contracts.times import from_ms, parse_time, timeframe_ms, to_ms
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.web import allowed

FEATHER = "application/vnd.apache.arrow.file"
LATEST = 2**62  # ms


def routes(host: Host[IngesterSettings], follower: Follower, archive: Archive) -> APIRouter:
    """Its routes, plain and under /api/v1."""
    router = APIRouter()

    @router.get("/bars")
    async def bars(symbol: str, timeframe: str, first: str = "", last: str = "") -> Response:
        """Closed bars that opened in [first, last] as an Arrow feather file, ascending.

        Columns: timestamp (int64, ms since 1970 UTC), open, high, low, close, volume (float64). Times are ms or ISO.
        """
        timeframe_ms(timeframe)  # raises BadMessage, which is 422
        name = SeriesName(host.settings.venue, check_symbol(symbol), timeframe)
        since, until = _moment(first, 0), _moment(last, LATEST)
        chunks: list[Chunk] = []
        tail: list[Candle] = []

        async def look(_effects: Effects) -> None:
            # In its turn: between the two looks no part may be made of the tail.
            chunks.extend(await chunks_of(host.store, name))
            tail.extend(await tail_of(host.store, name))

        await host.act(look)
        if not chunks and not tail and name.symbol not in follower.fillers:
            known = ", ".join(sorted(follower.fillers))
            raise HTTPException(404, f"No bars of {symbol} {timeframe} are kept here. Followed are {known}.")
        wanted = [chunk for chunk in chunks if chunk.last_at >= since and chunk.first_at <= until]
        content = await asyncio.to_thread(archive.feather, wanted, tail, since, until)
        return Response(content, media_type=FEATHER)

    @router.get("/chunks")
    async def chunks(symbol: str, timeframe: str, first: str = "", last: str = "") -> list[dict[str, Any]]:
        """The stored parts that hold bars which opened in [first, last], oldest first, by the hash of their content.

        The newest bars lie in no part yet. Times are ms or ISO.
        """
        timeframe_ms(timeframe)
        since, until = _moment(first, 0), _moment(last, LATEST)
        return [
            {
                "first": from_ms(chunk.first_at),
                "last": from_ms(chunk.last_at),
                "bars": chunk.bars,
                "data_sha256": chunk.sha256,
            }
            for chunk in await chunks_of(host.store, SeriesName(host.settings.venue, check_symbol(symbol), timeframe))
            if chunk.last_at >= since and chunk.first_at <= until
        ]

    @router.get("/watermarks")
    async def watermarks() -> list[dict[str, Any]]:
        """How far each series has come."""
        return [await _state(host, follower, symbol) for symbol in sorted(follower.fillers)]

    @router.post("/ingest_once", dependencies=[allowed("operator")])
    async def ingest_once() -> dict[str, Any]:
        """Fetch now what is missing in any series, and answer when it is kept."""
        before = {symbol: filler.series.bars for symbol, filler in follower.fillers.items()}
        await asyncio.gather(*(filler.fill_now() for filler in follower.fillers.values()))
        fetched = {symbol: filler.series.bars - before[symbol] for symbol, filler in follower.fillers.items()}
        return {"bars": fetched, "watermarks": await watermarks()}

    return router


async def _state(host: Host[IngesterSettings], follower: Follower, symbol: str) -> dict[str, Any]:
    series = follower.fillers[symbol].series
    watermark, live_from = series.watermark, series.live_from
    return {
        **series.name._asdict(),
        "watermark": None if watermark is None else from_ms(watermark),
        "live_from": None if live_from is None else from_ms(live_from),
        "bars": series.bars,
        "absent": await gaps_of(host.store, series.name),
        "in_tail": series.in_tail,
        "subscriptions": follower.subscriptions,
    }


def _moment(text: str, otherwise: int) -> int:
    if not text:
        return otherwise
    return int(text) if text.isdigit() else to_ms(parse_time(text))
