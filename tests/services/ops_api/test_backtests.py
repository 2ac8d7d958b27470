"""Backtests through ops_api: passed on with the house's token once they may, and honest while the suite is away."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.backtest_suite.service import SERVICE
from services.backtest_suite.settings import BacktestSettings
from shared.bus.memory import MemoryBus, MemoryServer
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application
from tests.browser.serving import served
from tests.serving import listening

TOKEN = {"Authorization": "Bearer t0ken"}
RUN = {"strategy": "momentum", "symbol": "BTC-USDT", "timeframe": "1m"}


@asynccontextmanager
async def suite(bus: MemoryServer, folder: Path) -> AsyncIterator[str]:
    """A real backtest_suite on a real socket. Yields its address."""
    store = await Store.open(None, SERVICE.tables)
    settings = BacktestSettings.load(data_dir=folder, api_token="t0ken")
    host = Host("backtest_suite", settings, MemoryBus(bus), store, VenueClock())
    host.web = web_application(host)
    await host.start(SERVICE.serve)
    try:
        async with listening(host.web) as address:
            yield address
    finally:
        await host.stop()


@pytest.fixture
async def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """ops_api, with a suite behind it whose ingester never answers: what is ordered stays."""
    bus = MemoryServer()
    monkeypatch.setenv("TRIMTAB_INGESTER_URL", "http://127.0.0.1:9")
    async with suite(bus, tmp_path) as address:
        monkeypatch.setenv("TRIMTAB_BACKTEST_SUITE_URL", address)
        async with served(bus) as ops, httpx.AsyncClient(base_url=ops.address, timeout=10, verify=False) as client:
            yield client


async def test_a_backtest_is_ordered_read_and_canceled_through_the_one_door(page: httpx.AsyncClient) -> None:
    ordered = await page.post("/api/v1/backtest/run", json=RUN, headers={**TOKEN, "Idempotency-Key": "mine"})
    assert (ordered.status_code, ordered.json()["id"]) == (202, "mine")
    assert [one["id"] for one in (await page.get("/runs?limit=1")).json()["runs"]] == ["mine"]
    assert (await page.get("/runs/mine")).json()["order"]["strategy"] == "momentum"
    assert (await page.get("/runs/mine/equity")).status_code == 409
    assert (await page.post("/runs/mine/cancel", headers=TOKEN)).json()["state"] == "canceled"


async def test_what_the_suite_refuses_is_told_as_it_said_it(page: httpx.AsyncClient) -> None:
    answer = await page.post("/backtest/run", json={**RUN, "strategy": "momentun"}, headers=TOKEN)
    assert (answer.status_code, "Expected a strategy among" in answer.json()["detail"]) == (422, True)
    assert (await page.get("/runs/nothing")).status_code == 404
    assert (await page.get("/runs/a%2F..%2Fb")).status_code in (404, 422)  # no path of ours leads elsewhere


async def test_nobody_orders_or_cancels_without_the_token(page: httpx.AsyncClient) -> None:
    wrong: dict[str, Any] = {"Authorization": "Bearer other"}
    for path in ("/backtest/run", "/runs/mine/cancel"):
        assert (await page.post(path, json=RUN)).status_code == 401
        assert (await page.post(path, json=RUN, headers=wrong)).status_code == 403
    assert (await page.get("/runs")).json() == {"runs": []}


async def test_while_the_suite_is_away_the_door_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_BACKTEST_SUITE_URL", "http://127.0.0.1:9")
    async with served(MemoryServer()) as ops, httpx.AsyncClient(base_url=ops.address, verify=False) as client:
        answer = await client.get("/runs")
    assert (answer.status_code, "does not answer" in answer.json()["detail"]) == (503, True)
