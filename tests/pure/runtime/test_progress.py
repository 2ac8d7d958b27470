"""How far a service says it has come, and what another makes of it."""

from __future__ import annotations

import asyncio
import tracemalloc

from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.operations import Progress
from shared.contracts.times import from_ms
from shared.contracts.wire import open_envelope, unpack
from shared.runtime.clock import VenueClock
from shared.runtime.progress import REMEMBERED, Heard, ProgressKeeper


async def test_what_was_booked_long_ago_is_forgotten_by_who_heard_of_it_and_takes_no_room() -> None:
    server = MemoryServer()
    engine = ProgressKeeper("engine", MemoryBus(server), VenueClock())
    listener = ProgressKeeper("param_controller", MemoryBus(server), VenueClock())
    heard: list[Heard] = []

    def look(said: Heard) -> bool:
        heard[:] = [said]
        return False

    saying = asyncio.create_task(engine.say_for_ever())
    waiting = asyncio.create_task(listener.until("engine", look))

    async def book(first: int, count: int) -> int:
        for number in range(first, first + count):
            engine.booked(f"TradeFill:sim.BTC-USDT.{number:06}")
            if number % 50 == 49:
                await asyncio.sleep(0)  # its turn to say it
                await asyncio.sleep(0)  # and the other's to look at it
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        before = await book(0, 20_000)
        after = await book(20_000, 20_000)
    finally:
        tracemalloc.stop()
        for task in (saying, waiting):
            task.cancel()
        await asyncio.gather(saying, waiting, return_exceptions=True)

    booked = list(heard[0].booked)
    assert len(booked) == REMEMBERED
    assert booked[-1] == "TradeFill:sim.BTC-USDT.039999"
    assert after - before < 200_000  # 20,000 ids that nobody needs would be 2 MB


async def test_bars_before_the_one_until_which_a_service_said_it_is_idle_are_not_told() -> None:
    server = MemoryServer()
    said: list[dict[str, int]] = []
    keeper = ProgressKeeper("param_controller", MemoryBus(server), VenueClock())
    await MemoryBus(server).hear(
        "progress.param_controller", lambda _, payload: said.append(open_envelope(unpack(payload), Progress).at)
    )
    saying = asyncio.create_task(keeper.say_for_ever())
    await asyncio.sleep(0)  # its first word

    for bar, idle_until in ((1, 4), (2, 4), (3, 4), (4, 5), (5, 9)):
        keeper.reached("sim", "BTC-USDT", "1m", from_ms(bar * 60_000), idle_until_ms=idle_until * 60_000)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    saying.cancel()
    await asyncio.gather(saying, return_exceptions=True)
    assert [at.get("BTC-USDT.1m", 0) // 60_000 for at in said] == [0, 1, 4, 5]
