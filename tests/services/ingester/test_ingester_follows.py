"""Every closed bar once, in order, with its final values: through drops, restarts, outages and unknown names."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.venue_sim.local import LocalVenue, local_venue
from services.venue_sim.settings import VenueSettings
from shared.bus.memory import MemoryBus, MemoryServer
from shared.bus.nats import NatsBus
from shared.contracts.errors import NeedsOperator
from shared.contracts.market import BarClosed
from shared.contracts.operations import Alert
from shared.contracts.times import from_ms, parse_time, to_ms

SYMBOLS = ("BTC-USDT", "ETH-USDT")
FAST = VenueSettings(speed="max", lockstep=("ingester",), history_bars=1500, bars=450, symbols=SYMBOLS)


def with_(settings: VenueSettings, **changes: Any) -> VenueSettings:
    return settings.model_copy(update=changes)


async def klines(venue: LocalVenue, symbol: str) -> list[tuple[float, ...]]:
    """All bars that the venue has closed, by REST: opened-at (ms) and the five values."""
    rows: list[tuple[float, ...]] = []
    async with httpx.AsyncClient(base_url=venue.url, verify=False) as client:
        while True:
            since = int(rows[-1][0]) + 1 if rows else 0
            sent = {"symbol": symbol.replace("-", ""), "interval": "1m", "limit": 1000, "startTime": since}
            page = (await client.get("/api/v3/klines", params=sent)).json()
            rows += [(row[0], *map(float, row[1:6])) for row in page]
            if len(page) < 1000:
                return rows[:-1]  # the last one is open


def as_rows(bars: list[BarClosed], symbol: str) -> list[tuple[float, ...]]:
    return [
        (to_ms(bar.opened_at), bar.open, bar.high, bar.low, bar.close, bar.volume)
        for bar in bars
        if bar.symbol == symbol
    ]


@pytest.mark.parametrize("hang_up_every_bars", [0, 100])
async def test_a_stream_that_breaks_every_hundred_bars_loses_and_doubles_none(
    run_ingester: Any, server: MemoryServer, hang_up_every_bars: int
) -> None:
    settings = with_(FAST, hang_up_every_bars=hang_up_every_bars)
    async with (
        local_venue(settings, bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols=SYMBOLS) as ingester,
    ):
        await ingester.until(lambda: len(ingester.bars) >= 2 * (1500 + 450))
        for symbol in SYMBOLS:
            # Equal to the venue's own word: none lost, none twice, in order, and none taken while it was open.
            assert as_rows(ingester.bars, symbol) == await klines(venue, symbol)
        assert ingester.gaps == []
        states = (await ingester.client().get("/watermarks")).json()
        if hang_up_every_bars:
            assert all(state["subscriptions"] >= 1 + 450 // 100 for state in states)


async def test_history_is_what_was_there_before_it_followed_also_after_a_restart(
    run_ingester: Any, server: MemoryServer, tmp_path: Path
) -> None:
    steps = with_(FAST, lockstep=("test",))
    async with local_venue(steps, bus=MemoryBus(server)) as venue:
        async with run_ingester(venue, trade_symbols=SYMBOLS) as ingester:
            await ingester.until(lambda: len(ingester.bars) == 3000)
            await take_steps(venue, 3)
            await ingester.until(lambda: len(ingester.bars) == 3006)
        await take_steps(venue, 4)  # nobody follows meanwhile
        async with run_ingester(venue, trade_symbols=SYMBOLS) as ingester:
            await ingester.until(lambda: len(ingester.bars) >= 3014)
            await take_steps(venue, 1)
            await ingester.until(lambda: len(ingester.bars) >= 3016)
            history = [bar for bar in ingester.bars if bar.is_history]
            for symbol in SYMBOLS:
                assert as_rows(ingester.bars, symbol) == await klines(venue, symbol)
                assert len(as_rows(history, symbol)) == 1500
            assert max(bar.opened_at for bar in history) < min(
                bar.opened_at for bar in ingester.bars if not bar.is_history
            )


async def take_steps(venue: LocalVenue, count: int) -> None:
    """Let the market take so many steps, by speaking for the one it waits for."""
    async with httpx.AsyncClient(base_url=venue.url, verify=False) as client:
        for _ in range(count):
            before = (await client.get("/sim/status")).json()
            at = {f"{symbol}.1m": before["market_time_ms"] - 60_000 for symbol in SYMBOLS}
            await venue.say_progress("test", at)
            async with asyncio.timeout(5):
                while (await client.get("/sim/status")).json()["bars"] == before["bars"]:
                    pass


async def test_only_so_much_history_is_fetched_as_is_wanted(run_ingester: Any, server: MemoryServer) -> None:
    async with (
        local_venue(with_(FAST, lockstep=("nobody",)), bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols=SYMBOLS, history_bars=200) as ingester,
    ):
        await ingester.until(lambda: len(ingester.bars) >= 400)
        assert as_rows(ingester.bars, "BTC-USDT") == (await klines(venue, "BTC-USDT"))[-200:]


async def test_a_real_outage_is_announced_and_passed(run_ingester: Any, server: MemoryServer, test_data: Path) -> None:
    settings = VenueSettings(
        market=(str(test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet"),),
        begins="2018-02-07",
        ends="2018-02-12",
        speed="max",
        lockstep=("ingester",),
    )
    async with (
        local_venue(settings, bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="BTC-USDT", timeframe="1h", history_bars=100) as ingester,
    ):
        await ingester.until(
            lambda: bool(ingester.bars) and ingester.bars[-1].opened_at == parse_time("2018-02-11T23:00")
        )
    [gap] = ingester.gaps
    # By the data's manifest: 33 hours after 2018-02-08 00:00.
    assert (gap.bars, gap.reason, gap.is_history) == (33, "absent", False)
    assert gap.first_opened_at == parse_time("2018-02-08T01:00")
    times = [bar.opened_at for bar in ingester.bars]
    steps = {later - earlier for earlier, later in itertools.pairwise(times)}
    assert steps == {timedelta(hours=1), timedelta(hours=34)}
    assert len(times) == 100 + 5 * 24 - 33


async def test_a_symbol_that_the_venue_does_not_know_is_named_and_the_others_go_on(
    run_ingester: Any, server: MemoryServer
) -> None:
    async with (
        local_venue(with_(FAST, lockstep=("nobody",)), bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="DOGE-USDT,BTC-USDT", history_bars=50) as ingester,
    ):
        await ingester.until(lambda: len(ingester.bars) >= 50 and ingester.said[Alert])
        [alert] = ingester.said[Alert]
        assert alert.name == "unknown-symbol-DOGE-USDT"
        assert alert.text == "The venue sim does not list DOGE-USDT, which is left out. It lists BTC-USDT, ETH-USDT."
        assert {bar.symbol for bar in ingester.bars} == {"BTC-USDT"}


async def test_a_venue_that_knows_none_of_the_symbols_needs_a_person(run_ingester: Any, server: MemoryServer) -> None:
    async with (
        local_venue(with_(FAST, lockstep=("nobody",)), bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="DOGE-USDT") as ingester,
    ):
        with pytest.raises(NeedsOperator, match=r"lists none of DOGE-USDT. It lists BTC-USDT, ETH-USDT"):
            await ingester.until(lambda: False)


async def test_bars_reach_a_real_nats_once_and_in_order(
    run_ingester: Any, nats_server: Any, nats_bus: NatsBus, server: MemoryServer
) -> None:
    own = await NatsBus.connect(nats_server.url, "ingester")
    settings = with_(FAST, bars=20, history_bars=300, hang_up_every_bars=7, speed=200.0, lockstep=())
    async with (
        local_venue(settings, bus=MemoryBus(server)) as venue,
        run_ingester(venue, bus=own, ear=nats_bus, trade_symbols=SYMBOLS) as ingester,
    ):
        await ingester.until(lambda: len(ingester.bars) >= 2 * 320)
        for symbol in SYMBOLS:
            assert as_rows(ingester.bars, symbol) == await klines(venue, symbol)


async def test_it_waits_for_a_venue_that_is_not_up_yet(run_ingester: Any, server: MemoryServer) -> None:
    settings = with_(FAST, lockstep=("nobody",))
    async with local_venue(settings, bus=MemoryBus(server)) as gone:
        pass
    async with run_ingester(gone, trade_symbols=SYMBOLS) as ingester:
        await asyncio.wait({asyncio.ensure_future(ingester.host.failed())}, timeout=0.3)
        assert ingester.host.waiting_for() == ["venue"]
        assert ingester.host.listener.waiting_to_be_told == 0 and from_ms(0) == ingester.host.clock.now()


async def test_a_real_venues_dialect_is_followed_by_its_own_name(run_ingester: Any, server: MemoryServer) -> None:
    async with (
        local_venue(with_(FAST, bars=5, speed=50.0, lockstep=()), bus=MemoryBus(server)) as venue,
        run_ingester(venue, venue="binance", trade_symbols="BTC-USDT", history_bars=50) as ingester,
    ):
        await ingester.until(lambda: bool(ingester.bars) and ingester.bars[-1].opened_at == from_ms(LAST_OF_FIVE))
        assert {bar.venue for bar in ingester.bars} == {"binance"}
        assert as_rows(ingester.bars, "BTC-USDT") == (await klines(venue, "BTC-USDT"))[-len(ingester.bars) :]


LAST_OF_FIVE = to_ms(parse_time("2025-01-01")) + (1500 + 5 - 1) * 60_000


async def test_a_timeframe_that_the_venue_does_not_have_needs_a_person(run_ingester: Any, server: MemoryServer) -> None:
    async with (
        local_venue(with_(FAST, lockstep=("nobody",)), bus=MemoryBus(server)) as venue,
        run_ingester(venue, trade_symbols="BTC-USDT", timeframe="1h") as ingester,
    ):
        with pytest.raises(NeedsOperator, match=r"refuses candles of BTC-USDT 1h.*Set TIMEFRAME"):
            await ingester.until(lambda: False)
