"""A market from its first bar to its end, in one piece or in two."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from services.venue_sim.local import LocalVenue, local_venue
from services.venue_sim.settings import VenueSettings
from shared.contracts.errors import NeedsOperator
from shared.runtime.ccxt_binance import make_binance

MARKET: dict[str, Any] = {"history_bars": 50, "symbols": ("BTC-USDT", "SOL-USDT"), "bars": 200, "speed": "max"}


async def status(venue: LocalVenue) -> dict[str, Any]:
    async with httpx.AsyncClient(verify=False) as client:
        return (await client.get(f"{venue.url}/sim/status")).json()


async def finished(venue: LocalVenue) -> dict[str, Any]:
    async with asyncio.timeout(15):
        while not (now := await status(venue))["finished"]:  # noqa: ASYNC110  # asked over HTTP, which has no event
            await asyncio.sleep(0.01)
        return now


async def klines(venue: LocalVenue, symbol: str) -> list[list[Any]]:
    async with httpx.AsyncClient(verify=False) as client:
        sent = {"symbol": symbol, "interval": "1m", "limit": 1000}
        return (await client.get(f"{venue.url}/api/v3/klines", params=sent)).json()


async def closed_frames(venue: LocalVenue, symbol: str, count: int) -> list[dict[str, Any]]:
    """The first closed candles that a plain websocket is told."""
    import json

    frames: list[dict[str, Any]] = []
    async with connect(f"{venue.url.replace('http', 'ws')}/stream/ws/0") as socket:
        await socket.send(json.dumps({"method": "SUBSCRIBE", "params": [f"{symbol.lower()}@kline_1m"], "id": 1}))
        assert json.loads(await socket.recv()) == {"result": None, "id": 1}
        while len(frames) < count:
            event = json.loads(await socket.recv())
            if event["k"]["x"]:
                frames.append(event)
    return frames


async def test_a_simulated_market_ends_after_so_many_bars() -> None:
    async with local_venue(VenueSettings(**MARKET)) as venue:
        now = await finished(venue)
        assert now["bars"] == {"BTC-USDT": 200, "SOL-USDT": 200}
        assert len(await klines(venue, "BTCUSDT")) == 251  # history, all bars, and the one that is open


async def test_frames_and_klines_say_the_same() -> None:
    async with local_venue(VenueSettings(**MARKET | {"speed": 100.0})) as venue:
        frames = await closed_frames(venue, "BTCUSDT", 20)
        told = {row[0]: row for row in await klines(venue, "BTCUSDT")}
    opens = [frame["k"]["t"] for frame in frames]
    assert opens == list(range(opens[0], opens[0] + 20 * 60_000, 60_000))
    for frame in frames:
        k = frame["k"]
        assert [k["t"], k["o"], k["h"], k["l"], k["c"], k["v"], k["T"], k["q"]] == told[k["t"]][:8]
        assert frame["E"] == k["T"] + 1  # market time: the instant at which it closed


async def test_it_runs_no_faster_than_it_is_told_to() -> None:
    async with local_venue(VenueSettings(**MARKET | {"bars": 20, "speed": 50.0})) as venue:
        began = venue.host.clock.monotonic()
        await finished(venue)
        assert venue.host.clock.monotonic() - began > 0.3  # 20 bars at 50 a second, less what passed before


async def test_a_real_market_with_outages_ends_with_its_gaps_counted(test_data: Path) -> None:
    file = test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet"
    settings = VenueSettings(
        market=(str(file),), begins="2018-02-05", ends="2018-02-12", speed="max", history_bars=0, symbols=()
    )
    async with local_venue(settings) as venue:
        now = await finished(venue)
    # 7 x 24 hours, of which the exchange was out from 2018-02-08 00:00 to 02-09 08:00: 33 hours by the data's manifest
    assert now["bars"] == {"BTC-USDT": 7 * 24 - 33} and now["gaps"] == {"BTC-USDT": 33}
    assert now["market_time_ms"] == 1_518_393_600_000  # 2018-02-12 00:00


async def test_a_restart_goes_on_where_it_was_with_the_same_account(tmp_path: Path) -> None:
    settings = VenueSettings(**MARKET | {"lockstep": ("engine",)})
    async with local_venue(settings, tmp_path / "venue_sim.sqlite") as venue:
        exchange = make_binance(base_url=venue.url, api_key="sim", secret="sim", is_local=True)
        await exchange.create_order("BTC/USDT", "market", "buy", 0.01)
        await exchange.create_order("BTC/USDT", "limit", "buy", 0.01, 20_000)
        for _ in range(3):
            now = await status(venue)
            at = {f"{symbol}.1m": now["market_time_ms"] - 60_000 for symbol in ("BTC-USDT", "SOL-USDT")}
            await venue.say_progress("engine", at)
            while await status(venue) == now:
                pass
        before = await kept(venue, exchange)
        await exchange.close()
    async with local_venue(settings, tmp_path / "venue_sim.sqlite") as venue:
        exchange = make_binance(base_url=venue.url, api_key="sim", secret="sim", is_local=True)
        assert await kept(venue, exchange) == before
        next_order = await exchange.create_order("BTC/USDT", "market", "sell", 0.005)
        assert next_order["id"] == "3"
        await exchange.close()
    assert before[0] == {"BTC-USDT": 3, "SOL-USDT": 3}


async def kept(venue: LocalVenue, exchange: Any) -> tuple[Any, ...]:
    return (
        (await status(venue))["bars"],
        await klines(venue, "SOLUSDT"),
        (await exchange.fetch_balance())["total"],
        await exchange.fetch_orders("BTC/USDT"),
        await exchange.fetch_my_trades("BTC/USDT"),
    )


async def test_another_market_on_the_same_data_folder_is_refused(tmp_path: Path) -> None:
    async with local_venue(VenueSettings(**MARKET), tmp_path / "venue_sim.sqlite"):
        pass
    with pytest.raises(NeedsOperator, match="holds another market than the one asked for"):
        async with local_venue(VenueSettings(**MARKET | {"seed": 8}), tmp_path / "venue_sim.sqlite"):
            pass


async def test_streams_can_be_made_to_break_as_often_as_real_ones() -> None:
    async with local_venue(VenueSettings(**MARKET | {"speed": 100.0, "hang_up_every_bars": 10})) as venue:
        with pytest.raises(ConnectionClosed):
            await closed_frames(venue, "BTCUSDT", 11)
