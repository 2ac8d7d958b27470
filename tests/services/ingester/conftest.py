"""The ingester as a whole, against a venue that real ccxt talks to."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.ingester.service import SERVICE
from services.ingester.settings import IngesterSettings
from services.venue_sim.local import LocalVenue
from shared.bus.bus import Bus, Delivery
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.subjects import DATA, MD, OPS, SUBJECTS
from shared.contracts.wire import Message, open_envelope, unpack
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application

KINDS = {subject.message.__name__: subject.message for subject in SUBJECTS}


class Running:
    """A running ingester, and all that it has said, by kind, in order."""

    def __init__(self, host: Host[IngesterSettings], said: dict[type[Message], list[Any]]) -> None:
        self.host = host
        self.said = said

    @property
    def bars(self) -> list[BarClosed]:
        return self.said[BarClosed]

    @property
    def gaps(self) -> list[GapFound]:
        return self.said[GapFound]

    def client(self) -> httpx.AsyncClient:
        """Its routes, with the house's token."""
        assert self.host.web is not None
        transport = httpx.ASGITransport(self.host.web)
        return httpx.AsyncClient(
            transport=transport, base_url="http://ingester", headers={"authorization": "Bearer token"}
        )

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until what was said makes this true. Raises what ended the service."""
        async with asyncio.timeout(20):
            failed = asyncio.ensure_future(self.host.failed())
            try:
                while not holds():
                    await asyncio.wait({failed}, timeout=0.01)
                    if failed.done():
                        failed.result()
            finally:
                failed.cancel()


@pytest.fixture
def server() -> MemoryServer:
    """What the venue, the ingester and the test speak through."""
    return MemoryServer()


@pytest.fixture
def run_ingester(tmp_path: Path, server: MemoryServer) -> Any:
    """`async with run_ingester(venue, trade_symbols=...) as ingester`: one service, each time on the same data folder."""

    @asynccontextmanager
    async def run(
        at: LocalVenue, /, bus: Bus | None = None, ear: Bus | None = None, **chosen: Any
    ) -> AsyncIterator[Any]:
        said: dict[type[Message], list[Any]] = defaultdict(list)
        ear = ear or MemoryBus(server)

        async def take(batch: list[Delivery]) -> None:
            for delivery in batch:
                envelope = unpack(delivery.payload)
                kind = KINDS[envelope.type]
                said[kind].append(open_envelope(envelope, kind))

        for stream in (MD, DATA, OPS):
            await ear.consume("test", stream, [f"{root}.>" for root in stream.roots], take, lambda: None)
        store = await Store.open(tmp_path / "ingester.sqlite", SERVICE.tables, SERVICE.synchronous)
        settings = IngesterSettings.load(venue_url=at.url, data_dir=tmp_path, api_token="token", **chosen)
        host = Host("ingester", settings, bus or MemoryBus(server), store, VenueClock())
        host.web = web_application(host)
        try:
            await host.start(SERVICE.serve)
            yield Running(host, said)
        finally:
            await host.stop()
            await ear.close()

    return run
