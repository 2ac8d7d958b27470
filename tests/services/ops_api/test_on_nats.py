"""ops_api on a real nats-server: what it folded survives a restart, and a lost file is folded again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from services.ops_api.service import SERVICE
from services.ops_api.settings import OpsSettings
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application
from tests.browser.story import Story

ASKED = ("/trades/stats", "/trades?limit=100", "/positions", "/equity", "/presets", "/governance", "/bars/BTC-USDT")


@asynccontextmanager
async def running(server: Server, path: Path) -> AsyncIterator[Host[OpsSettings]]:
    store = await Store.open(path, SERVICE.tables)
    bus = await NatsBus.connect(server.url, "ops_api")
    host = Host("ops_api", OpsSettings.load(), bus, store, VenueClock())
    host.web = web_application(host)
    await host.start(SERVICE.serve)
    yield host
    await host.stop()


async def answers(host: Host[OpsSettings], closed: int) -> dict[str, bytes]:
    """What every route answers once so many bars were folded and nothing more comes."""
    assert host.web is not None
    transport = httpx.ASGITransport(host.web)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client, asyncio.timeout(20):
        before, now = {}, {"": b""}
        while before != now or (await client.get("/status")).json()["bars_closed"] < closed:
            await asyncio.sleep(0.1)  # streams are folded side by side: wait until none adds anything
            before, now = now, {path: (await client.get(path)).content for path in ASKED}
    return now


async def test_a_restart_and_a_lost_file_both_answer_as_before(
    nats_server: Server, nats_bus: NatsBus, tmp_path: Path
) -> None:
    story = Story(nats_bus)
    await story.begin()
    await story.bars(60)
    async with running(nats_server, tmp_path / "ops.sqlite") as host:
        first = await answers(host, 180)

    async with running(nats_server, tmp_path / "ops.sqlite") as host:
        again = await answers(host, 180)
        assert host.listener.counters["handled"] == 0
    async with running(nats_server, tmp_path / "rebuilt.sqlite") as host:
        rebuilt = await answers(host, 180)

    assert b"trade_id" in first["/trades?limit=100"]
    assert again == first
    assert rebuilt == first
