"""A running backtest_suite and the house around it: an ingester that answers real HTTP, and the bus."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from fastapi import FastAPI, Response

from services.backtest_suite.service import SERVICE, serve
from services.backtest_suite.settings import BacktestSettings
from shared.bus.bus import Outgoing
from shared.bus.memory import MemoryBus
from shared.contracts.governance import PresetCandidate
from shared.contracts.market import BarClosed
from shared.contracts.operations import Progress
from shared.contracts.subjects import PRESET_CANDIDATE, subject_of
from shared.contracts.times import parse_time, to_ms
from shared.contracts.wire import Message, open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application
from tests.houses import Around, so_far
from tests.serving import listening

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


class House(Around):
    """What is around the service: the bus, the bars that the ingester holds, and what was said so far."""

    PATIENCE_S = PATIENCE_S

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.held: list[BarClosed] = []
        self.ingester_is_away = False
        self.asked = asyncio.Event()  # the ingester was asked for bars
        self.voice = MemoryBus(self.server)
        self.progress: list[Progress] = []

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

    async def candidates(self, count: int = 3) -> list[PresetCandidate]:
        """Wait for so many candidates."""
        return await self.until_said(PRESET_CANDIDATE, count)

    async def until_at(self, bar: BarClosed) -> None:
        """Wait until the service says that it has come to this bar, and holds nothing."""
        at = to_ms(bar.opened_at)
        await self.until(lambda: bool(self.progress) and self.progress[-1].at.get("BTC-USDT.1m") == at)

    def _on_progress(self, _subject: str, payload: bytes) -> None:
        before = self.progress[-1] if self.progress else None
        self.progress.append(so_far(before, open_envelope(unpack(payload), Progress)))
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

    async with listening(app) as address:
        monkeypatch.setenv("TRIMTAB_INGESTER_URL", address)
        try:
            yield house
        finally:
            await house.down()
