"""kill -9 of the NATS server in the middle of traffic: nothing is lost, nothing has its effect twice, in order."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.market import BarClosed
from shared.contracts.subjects import BAR_CLOSED
from shared.runtime.clock import VenueClock
from shared.runtime.listening import Effects, Listener
from shared.runtime.store import Store

START = datetime(2024, 1, 1, tzinfo=UTC)
KILLS = 18


def bar(number: int) -> BarClosed:
    opened_at = START + number * timedelta(minutes=1)
    return BarClosed(
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        opened_at=opened_at,
        closed_at=opened_at + timedelta(minutes=1),
        open=100.0,
        high=100.0,
        low=100.0,
        close=100.0,
        volume=1.0,
    )


async def test_eighteen_kills_of_the_server_lose_and_double_no_bar_and_the_next_comes_within_a_second(
    tmp_path: Path,
) -> None:
    server = Server(tmp_path / "nats")
    await server.start()
    speaking, hearing = await NatsBus.connect(server.url, "ingester"), await NatsBus.connect(server.url, "engine")
    await speaking.ensure_streams()
    told, kept = (
        await Store.open(tmp_path / "ingester.sqlite"),
        await Store.open(tmp_path / "engine.sqlite", ["create table bars (number integer)"]),
    )
    ingester = Listener("ingester", speaking, told, VenueClock())
    engine = Listener("engine", hearing, kept, VenueClock())
    speaking.on_reconnect(ingester.wake)
    await ingester.recover()
    await engine.recover()
    loop = asyncio.get_running_loop()
    taken = asyncio.Event()
    last_taken = [-1]

    async def on_bar(message: BarClosed, effects: Effects) -> None:
        number = (message.opened_at - START) // timedelta(minutes=1)
        effects.execute("insert into bars values (?)", number)
        last_taken[0] = number
        effects.afterwards(taken.set)

    tasks: list[asyncio.Task[None]] = []
    try:
        await engine.listen({BAR_CLOSED: on_bar})
        tasks.append(asyncio.create_task(ingester.pump()))
        number = 0
        stop = asyncio.Event()

        async def trade() -> None:
            nonlocal number
            while not stop.is_set():

                async def work(effects: Effects, number: int = number) -> None:
                    effects.publish(BAR_CLOSED, bar(number))

                await ingester.act(work)
                number += 1
                await asyncio.sleep(0.002)

        trading = asyncio.create_task(trade())
        tasks.append(trading)
        gaps: list[float] = []
        for _ in range(KILLS):
            taken.clear()
            await asyncio.wait_for(taken.wait(), 10)
            server.kill()
            await asyncio.sleep(0.1)
            before = last_taken[0]
            await server.start()
            back = loop.time()
            while last_taken[0] <= before:
                taken.clear()
                await asyncio.wait_for(taken.wait(), 10)
            gaps.append(loop.time() - back)
        stop.set()
        await trading
        while last_taken[0] < number - 1:
            taken.clear()
            await asyncio.wait_for(taken.wait(), 10)

        numbers = [row[0] for row in await kept.rows("select number from bars order by rowid")]
        print(f"{KILLS} kills, {number} bars, gaps {min(gaps):.2f} .. {max(gaps):.2f} s")
        assert numbers == list(range(number))
        assert max(gaps) <= 1.0
    finally:
        for task in tasks:
            task.cancel()
        for bus in (speaking, hearing):
            await bus.close()
        for store in (told, kept):
            await store.close()
        server.stop()
