"""kill -9 in the middle of a run, on the real nats-server: it goes on where it was, and is done once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.backtest_suite.run_store import RunStore
from shared.bus.bus import Delivery
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.operations import Health
from shared.contracts.subjects import BACKTEST_ORDERED, BT, HEALTH
from shared.contracts.wire import open_envelope, unpack
from shared.runtime.settings import PORTS
from tests.services.backtest_suite.conftest import BARS, HISTORY, TOKEN, House
from tests.services.launcher.test_launcher import free_port_base

pytestmark = pytest.mark.timeout(90)

PATIENCE_S = 40.0
GRID = {"entry": list(range(60, 210)), "exit": list(range(5, 55))}
SETS = 150 * 50  # seconds, most of them in the runs database
SUITE = """
import sys
from services.backtest_suite.service import SERVICE
from shared.runtime.process import run
sys.exit(run(SERVICE, SERVICE.settings.load()))
"""


class Process:
    """The suite as a process of its own, at an address, and what it says of its health."""

    def __init__(self, folder: Path, nats_url: str, port: int) -> None:
        own = {key: value for key, value in os.environ.items() if not key.startswith("TRIMTAB_")}
        self._environment = {
            **own,
            "TRIMTAB_DATA_DIR": str(folder),
            "TRIMTAB_NATS_URL": nats_url,
            "TRIMTAB_PORT_BASE": str(port - PORTS["backtest_suite"]),
            "TRIMTAB_API_TOKEN": TOKEN,
            "TRIMTAB_INGESTER_URL": os.environ["TRIMTAB_INGESTER_URL"],
        }
        self._log = folder / "suite.log"
        self._process: asyncio.subprocess.Process | None = None
        self._ready = asyncio.Event()

    def on_health(self, _subject: str, payload: bytes) -> None:
        if open_envelope(unpack(payload), Health).ready:
            self._ready.set()

    async def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        self._ready.clear()
        with self._log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SUITE, env=self._environment, stdout=out, stderr=out
            )
        ended = asyncio.ensure_future(self._process.wait())
        ready = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait({ended, ready}, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        assert ready.done(), self._log.read_text()[-3000:]

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()


@pytest.fixture
async def process(house: House, tmp_path: Path, nats_server: Server, nats_bus: NatsBus) -> AsyncIterator[Process]:
    """A suite on the real server, whose ingester holds bars of the past."""
    house.held += BARS[:HISTORY]
    folder = tmp_path / "suite"
    folder.mkdir()
    made = Process(folder, nats_server.url, free_port_base())
    await nats_bus.hear(HEALTH.wildcard, made.on_health)
    await made.start()
    try:
        yield made
    finally:
        await made.kill()


@asynccontextmanager
async def asking(process: Process) -> AsyncIterator[httpx.AsyncClient]:
    port = int(process._environment["TRIMTAB_PORT_BASE"]) + PORTS["backtest_suite"]
    headers = {"Authorization": f"Bearer {TOKEN}", "Idempotency-Key": "once"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, verify=False) as client:
        yield client


async def begun(client: httpx.AsyncClient) -> dict[str, Any]:
    """Ask for the run until it tells of progress."""
    async with asyncio.timeout(PATIENCE_S):
        while (told := (await client.get("/runs/once")).json())["progress"] == 0:
            assert told["state"] in ("ordered", "queued", "running"), told
    return told


async def test_a_grid_that_is_killed_goes_on_where_it_was(process: Process, nats_bus: NatsBus, tmp_path: Path) -> None:
    body = {"strategy": "momentum", "symbol": "BTC-USDT", "timeframe": "1m", "grid": GRID}
    async with asking(process) as client:
        assert (await client.post("/backtest/run", json=body)).status_code == 202
        killed = await begun(client)
    assert (killed["state"], killed["progress"] < 1) == ("running", True)
    await process.kill()
    with RunStore(tmp_path / "suite" / "backtests") as store:
        (kept,) = store._db.execute("select count(*) from results").fetchone()
    assert 0 < kept < SETS

    await process.start()
    async with asking(process) as client:
        again = await client.post("/backtest/run", json=body)  # who asks again gets the same run
        assert again.json()["id"] == "once"
        done = (await client.get("/runs/once", params={"wait_s": 30}, timeout=PATIENCE_S)).json()
        assert done["state"] == "done", done
        assert len((await client.get("/runs")).json()["runs"]) == 1
    assert done["summary"]["combinations"] == done["summary"]["trials"] == SETS
    assert done["summary"]["computed"] <= SETS - kept  # what had been computed was not computed again

    heard: list[str] = []
    whole = asyncio.Event()

    async def take(batch: list[Delivery]) -> None:
        heard.extend(unpack(delivery.payload).id for delivery in batch)
        whole.set()

    await nats_bus.consume("test", BT, [BACKTEST_ORDERED.wildcard], take, lambda: None)
    async with asyncio.timeout(PATIENCE_S):
        await whole.wait()
    assert heard == ["BacktestOrdered:once"]  # told once, whatever was killed
