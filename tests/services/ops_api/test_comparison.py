"""What engine and ml_service read of the same bars is held together by its bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI

from services.engine.routes import routes as engine_routes
from services.engine.service import SERVICE as ENGINE
from services.engine.settings import EngineSettings
from services.ops_api.comparison import Read, differences
from shared.bus.memory import MemoryBus, MemoryServer
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Statement, Store
from tests.browser.serving import served
from tests.browser.story import Story
from tests.serving import listening

MODEL, OTHER = "a" * 64, "b" * 64


def read(minute: int, model: str = MODEL, bytes_hash: str = "0") -> Read:
    return Read(minute * 60_000, "BULL", model, bytes_hash)


def test_the_same_model_on_the_same_bar_must_give_the_same_bytes() -> None:
    engine = [read(1), read(2, bytes_hash="1"), read(3)]
    service = {one.opened_ms: one for one in (read(1), read(2), read(3))}

    assert differences(engine, service) == (3, [(engine[1], service[120_000])])


def test_a_promotion_on_its_way_is_no_mismatch() -> None:
    engine, service = [read(1, OTHER, "1")], {60_000: read(1)}

    assert differences(engine, service) == (0, [])


def test_what_only_one_of_them_has_read_waits() -> None:
    assert differences([read(1)], {120_000: read(2)}) == (0, [])


@asynccontextmanager
async def engine_that_read() -> AsyncIterator[tuple[Store, str]]:
    """The engine's own routes, over the rows of its store."""
    store = await Store.open(None, ENGINE.tables)
    host = Host("engine", EngineSettings.load(), MemoryBus(MemoryServer()), store, VenueClock())
    application = FastAPI()
    application.include_router(engine_routes(host, cast(Any, None), "paper"))  # /readings never asks the desk
    try:
        async with listening(application) as address:
            yield store, address
    finally:
        await store.close()  # or its thread keeps the process of the tests alive


async def test_a_reading_of_other_bytes_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bus = MemoryServer()
    async with engine_that_read() as (store, address), asyncio.timeout(30):
        monkeypatch.setenv("TRIMTAB_ENGINE_URL", address)
        async with served(bus) as page, httpx.AsyncClient(base_url=page.address, verify=False) as client:
            story = Story(MemoryBus(bus))
            await story.begin()
            await story.bars(60)
            rows = "select series, opened_ms, regime, model_id, reading_hash from readings where series = 'BTC-USDT.1m'"
            while len(kept := await page.host.store.rows(rows)) < 60:  # noqa: ASYNC110  # rows have no event
                await asyncio.sleep(0.05)
            insert = "insert into bars values (?, ?, 0, ?, ?, ?, '')"
            wrong = [(*row[:4], "f" * 64) if i == 50 else row for i, row in enumerate(kept)]
            await store.commit([Statement(insert, row) for row in wrong])
            await story.bars(1)  # the next reading begins a round

            while (status := (await client.get("/status")).json())["mismatches"] < 1:  # noqa: ASYNC110  # nor has HTTP
                await asyncio.sleep(0.1)

    (told,) = [one for one in bus.streams["REGIME"] if one.subject.startswith("regime.mismatch.")]
    assert told.subject == "regime.mismatch.sim.BTC-USDT.1m"
    assert (status["readings_compared"], status["mismatches"]) == (60, 1)
