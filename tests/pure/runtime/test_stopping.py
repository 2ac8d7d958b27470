"""How a service ends: what is under way is answered, then its tasks end, and only then is closed what they used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.bus.memory import MemoryBus, MemoryServer
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.settings import Settings
from shared.runtime.store import Store


async def test_what_tasks_use_is_closed_when_they_have_ended() -> None:
    happened: list[str] = []
    begun = asyncio.Event()

    def notes(what: str) -> Callable[[], Awaitable[None]]:
        async def note() -> None:
            happened.append(what)

        return note

    async def works() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            happened.append("the task ended")

    async def serve(host: Host[Settings]) -> None:
        host.closers += [notes("the first was closed"), notes("the second was closed")]
        host.stoppers.append(notes("what was under way was answered"))
        host.spawn(works(), "work")

    host = Host("test", Settings(), MemoryBus(MemoryServer()), await Store.open(None, ()), VenueClock())
    await host.start(serve)
    await begun.wait()
    await host.stop()

    assert happened == [
        "what was under way was answered",
        "the task ended",
        "the second was closed",
        "the first was closed",
    ]
