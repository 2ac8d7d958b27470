"""A running backtest_suite and the house around it: an ingester that answers real HTTP, and the bus."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
import uvicorn
from fastapi import FastAPI, Response

from services.backtest_suite.service import SERVICE, serve
from services.backtest_suite.settings import BacktestSettings
from shared.bus.bus import Outgoing
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.governance import PresetCandidate
from shared.contracts.market import BarClosed
from shared.contracts.operations import Progress
from shared.contracts.subjects import PRESET_CANDIDATE, Subject, subject_of
from shared.contracts.times import parse_time, to_ms
from shared.contracts.wire import Message, open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application

M = TypeVar("M", bound=Message)

START = parse_time("2024-01-01")
MINUTE = timedelta(minutes=1)
TOKEN = "a-token-of-this-test"
PATIENCE_S = 20.0
HISTORY = 1200
SMALL: dict[str, Any] = {
    "strategies": "momentum",
    "window_bars": 1200,
    "least_bars": 1200,
    "search_bars": 100,
    "sets": 10,
    "least_trades": 2,
    "threads": 1,
    "api_token": TOKEN,
}


def market(bars: int) -> list[BarClosed]:
    """Trends of an hour each way; the first `HISTORY` bars are of the past."""
    rng = np.random.default_rng(3)
    drift = 0.002 * np.where((np.arange(bars) // 60) % 2 == 0, 1.0, -1.0)
    closes = (100.0 * np.exp(np.cumsum(drift + rng.normal(0.0, 0.001, bars)))).tolist()
    return [
        BarClosed(
            venue="sim",
            symbol="BTC-USDT",
            timeframe="1m",
            opened_at=START + i * MINUTE,
            closed_at=START + (i + 1) * MINUTE,
            open=before,
            high=max(before, close),
            low=min(before, close),
            close=close,
            volume=1.0,
            is_history=i < HISTORY,
        )
        for i, (before, close) in enumerate(zip([100.0, *closes[:-1]], closes, strict=True))
    ]


BARS = market(1420)


class House:
    """What is around the service: the bus, the bars that the ingester holds, and what was said so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: list[BarClosed] = []
        self.ingester_is_away = False
        self.asked = asyncio.Event()  # the ingester was asked for bars
        self.server = MemoryServer()
        self.voice = MemoryBus(self.server)
        self.progress: list[Progress] = []
        self.host: Host[BacktestSettings] | None = None
        self._heard = asyncio.Event()

    async def up(self, **settings: Any) -> None:
        """Start the service, or start it again on what it kept."""
        chosen = BacktestSettings(data_dir=self.folder, **{**SMALL, **settings})
        store = await Store.open(self.folder / "backtest_suite.sqlite", SERVICE.tables, "NORMAL")
        self.host = Host("backtest_suite", chosen, MemoryBus(self.server), store, VenueClock())
        self.host.web = web_application(self.host)
        self.client = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.host.web),
            base_url="http://suite",
            headers={"Authorization": f"Bearer {TOKEN}"},
        )
        await self.host.bus.hear("progress.backtest_suite", self._on_progress)
        await self.host.start(serve)

    async def down(self) -> None:
        if self.host is not None:
            await self.client.aclose()
            await self.host.stop()
            self.host = None

    async def tell(self, *messages: Message) -> None:
        """Say these, as the services that they come from would. The ingester holds a bar before it tells it."""
        self.held += [message for message in messages if isinstance(message, BarClosed)]
        envelopes = [(message, wrap(message, "test")) for message in messages]
        await self.voice.publish([Outgoing(subject_of(m).of(m), pack(e), e.id) for m, e in envelopes])

    def said(self, subject: Subject[M]) -> list[M]:
        """All that was said under this subject, oldest first."""
        return self.server.said(subject)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this is true; asked after each message. Fails when the service fails, or nothing comes."""
        assert self.host is not None
        failed = asyncio.ensure_future(self.host.failed())
        self.server.more.append(self._heard)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():
                    heard = asyncio.ensure_future(self._heard.wait())
                    await asyncio.wait({heard, failed}, return_when=asyncio.FIRST_COMPLETED)
                    heard.cancel()
                    if failed.done():
                        failed.result()
                    self._heard.clear()
        finally:
            self.server.more.remove(self._heard)
            failed.cancel()

    async def candidates(self, count: int = 3) -> list[PresetCandidate]:
        """Wait for so many candidates."""
        await self.until(lambda: len(self.said(PRESET_CANDIDATE)) >= count)
        return self.said(PRESET_CANDIDATE)

    async def until_at(self, bar: BarClosed) -> None:
        """Wait until the service says that it has come to this bar, and holds nothing."""
        at = to_ms(bar.opened_at)
        await self.until(lambda: bool(self.progress) and self.progress[-1].at.get("BTC-USDT.1m") == at)

    def _on_progress(self, _subject: str, payload: bytes) -> None:
        self.progress.append(open_envelope(unpack(payload), Progress))
        self._heard.set()


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A house whose ingester answers `GET /bars` over a real socket."""
    house = House(tmp_path)
    app = FastAPI()

    @app.get("/bars")
    async def bars(symbol: str, timeframe: str, first: datetime, last: datetime) -> Response:
        house.asked.set()
        if house.ingester_is_away:
            return Response(status_code=503)
        rows = [bar for bar in house.held if bar.symbol == symbol and first <= bar.opened_at <= last]
        columns = {name: [getattr(bar, name) for bar in rows] for name in ("open", "high", "low", "close", "volume")}
        table = pa.table({"timestamp": pa.array([to_ms(bar.opened_at) for bar in rows], pa.int64()), **columns})
        body = io.BytesIO()
        pyarrow.feather.write_feather(table, body, compression="uncompressed")
        return Response(body.getvalue(), media_type="application/vnd.apache.arrow.file")

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", ws="none"))
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    monkeypatch.setenv("TRIMTAB_INGESTER_URL", f"http://127.0.0.1:{listening.getsockname()[1]}")
    try:
        yield house
    finally:
        await house.down()
        server.should_exit = True
        await serving
        listening.close()
