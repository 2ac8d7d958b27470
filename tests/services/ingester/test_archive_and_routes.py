"""What is kept is given out again whole; the same content is stored once; a fill on demand needs the token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import feather

from services.ingester.archive import Archive
from services.ingester.book import Series, chunks_of
from services.ingester.candles import Candle, SeriesName
from services.venue_sim.local import local_venue
from services.venue_sim.settings import VenueSettings
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.market import BarClosed, ChunkRegistered, UniverseUpdated
from shared.contracts.times import parse_time, to_ms

STILL = VenueSettings(speed="max", lockstep=("nobody",), history_bars=1000, symbols=("BTC-USDT",))
BTC = SeriesName("sim", "BTC-USDT", "1m")


def rows(bars: list[BarClosed]) -> list[tuple[float, ...]]:
    return [(to_ms(b.opened_at), b.open, b.high, b.low, b.close, b.volume) for b in bars]


def rows_of(content: bytes) -> list[tuple[float, ...]]:
    table = feather.read_table(pa.BufferReader(content))
    assert table.schema.field("timestamp").type == pa.int64()
    return list(zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True))


async def test_bars_are_given_out_from_parts_and_tail_as_one(
    run_ingester: Any, server: MemoryServer, tmp_path: Path
) -> None:
    async with (
        local_venue(STILL, bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="BTC-USDT", chunk_bars=300) as ingester,
    ):
        await ingester.until(lambda: len(ingester.said[ChunkRegistered]) == 3 and len(ingester.bars) == 1000)
        told = rows(ingester.bars)
        async with ingester.client() as client:
            asked = {"symbol": "BTC-USDT", "timeframe": "1m"}
            answer = await client.get("/bars", params=asked)
            assert rows_of(answer.content) == told and len(told) == 1000
            for first, last in ((250, 350), (890, 999), (0, 0), (950, 951)):  # across parts, across the tail, one bar
                span = {"first": told[first][0], "last": told[last][0]}
                answer = await client.get("/api/v1/bars", params=asked | span)
                assert rows_of(answer.content) == told[first : last + 1]
            iso = {"first": "2025-01-01T00:10", "last": "2025-01-01T00:12"}
            assert [row[0] for row in rows_of((await client.get("/bars", params=asked | iso)).content)] == [
                told[at][0] for at in (10, 11, 12)
            ]
            parts = (await client.get("/chunks", params=asked)).json()
            first_two = (await client.get("/chunks", params=asked | {"last": told[300][0]})).json()
            assert (await client.get("/chunks", params=asked | {"symbol": "ETH-USDT"})).json() == []
            [state] = (await client.get("/watermarks")).json()
        registered = ingester.said[ChunkRegistered]
        assert [(part["data_sha256"], part["bars"]) for part in parts] == [(one.sha256, 300) for one in registered]
        assert parse_time(parts[1]["first"]) == registered[1].first_opened_at and first_two == parts[:2]
        assert (state["bars"], state["in_tail"], state["absent"]) == (1000, 100, 0)
        assert state["watermark"] == "2025-01-01T16:39:00Z" and state["live_from"] == "2025-01-01T16:40:00Z"
        parts = sorted((tmp_path / "bars").rglob("*.parquet"))
        assert [pq.read_metadata(part).row_group(0).column(1).compression for part in parts] == ["ZSTD"] * 3


async def test_the_same_content_twice_is_stored_once(run_ingester: Any, server: MemoryServer, tmp_path: Path) -> None:
    candles = [Candle(at * 60_000, 1.0, 2.0, 0.5, 1.5, float(at)) for at in range(10)]
    async with (
        local_venue(STILL, bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="BTC-USDT") as ingester,
    ):
        await ingester.until(lambda: len(ingester.bars) == 1000)
        archive = Archive(ingester.host, tmp_path / "elsewhere")
        series = Series(BTC, None)
        assert await archive.store(series, candles) is True
        assert await archive.store(series, candles) is False
        assert await archive.store(series, candles[:9]) is True  # other content
        chunks = await chunks_of(ingester.host.store, BTC)
        assert len(chunks) == 2 and len(list((tmp_path / "elsewhere").rglob("*.parquet"))) == 2
        await ingester.until(lambda: len(ingester.said[ChunkRegistered]) == 2)


async def test_a_fill_on_demand_needs_the_token_and_says_what_it_brought(
    run_ingester: Any, server: MemoryServer
) -> None:
    async with (
        local_venue(STILL, bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="BTC-USDT") as ingester,
    ):
        await ingester.until(lambda: len(ingester.bars) == 1000)
        async with ingester.client() as client:
            assert (await client.post("/ingest_once", headers={"authorization": ""})).status_code == 401
            assert (await client.post("/ingest_once", headers={"authorization": "Bearer x"})).status_code == 403
            answer = (await client.post("/ingest_once")).json()
    assert answer["bars"] == {"BTC-USDT": 0} and answer["watermarks"][0]["bars"] == 1000


async def test_what_is_not_kept_is_not_found_and_what_is_misspelt_is_refused(
    run_ingester: Any, server: MemoryServer
) -> None:
    async with (
        local_venue(STILL, bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="BTC-USDT") as ingester,
    ):
        await ingester.until(lambda: len(ingester.bars) == 1000)
        async with ingester.client() as client:
            absent = await client.get("/bars", params={"symbol": "ETH-USDT", "timeframe": "1m"})
            assert absent.status_code == 404 and "Followed are BTC-USDT" in absent.json()["detail"]
            for wrong in ({"symbol": "btc", "timeframe": "1m"}, {"symbol": "BTC-USDT", "timeframe": "7m"}):
                assert (await client.get("/bars", params=wrong)).status_code == 422
            wrong = {"symbol": "BTC-USDT", "timeframe": "1m", "first": "yesterday"}
            assert (await client.get("/bars", params=wrong)).status_code == 422


async def test_the_universe_is_told_once_with_its_source(run_ingester: Any, server: MemoryServer) -> None:
    async with local_venue(STILL, bus=MemoryBus(server)) as venue:
        for _ in range(2):
            async with run_ingester(venue, strategy_symbols="BTC/USDT") as ingester:
                await ingester.until(lambda i=ingester: len(i.bars) == 1000 and i.said[UniverseUpdated])
                [universe] = ingester.said[UniverseUpdated]
                assert (universe.symbols, universe.source) == (("BTC-USDT",), "strategy_symbols")
