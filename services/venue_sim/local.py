"""A venue inside this process, on a free port of this machine: the whole service, for tests and notebooks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import uvicorn

from services.venue_sim.service import TABLES, serve
from services.venue_sim.settings import VenueSettings
from shared.bus.bus import Bus
from shared.bus.memory import MemoryBus
from shared.contracts.operations import Progress
from shared.contracts.subjects import PROGRESS
from shared.contracts.wire import pack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application


class LocalVenue(NamedTuple):
    """Where it answers, and what it hears."""

    url: str
    bus: Bus
    host: Host[VenueSettings]

    async def say_progress(self, service: str, at: Mapping[str, int], booked: tuple[str, ...] = ()) -> None:
        """Speak for a service that the market waits for."""
        said = Progress(service=service, venue="sim", at=dict(at), booked=booked, said_at=self.host.clock.wall())
        await self.bus.say(PROGRESS.of(said), pack(wrap(said, service)))


@asynccontextmanager
async def local_venue(
    settings: VenueSettings, path: Path | None = None, bus: Bus | None = None
) -> AsyncIterator[LocalVenue]:
    """Run it until the end of the block. `path` is its SQLite file; None keeps everything in memory."""
    bus = bus or MemoryBus()
    store = await Store.open(path, TABLES, "NORMAL")
    host: Host[VenueSettings] = Host("venue_sim", settings, bus, store, VenueClock())
    host.web = web_application(host)
    try:
        await host.start(serve)
        async with _served(host) as url:
            failed = asyncio.create_task(host.failed())
            yield LocalVenue(url, bus, host)
            if failed.done():
                failed.result()
            failed.cancel()
            await asyncio.gather(failed, return_exceptions=True)
    finally:
        await host.stop()


@asynccontextmanager
async def _served(host: Host[VenueSettings]) -> AsyncIterator[str]:
    """Its routes, under the address that this gives."""
    assert host.web is not None
    config = uvicorn.Config(
        host.web, log_config=None, lifespan="off", timeout_graceful_shutdown=1, ws="websockets-sansio"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """The process that this venue is a guest in keeps its signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
