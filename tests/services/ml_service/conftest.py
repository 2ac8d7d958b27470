"""A running ml_service on the memory bus, with an ingester that answers real HTTP and a governor's voice."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
import pyarrow as pa
import pyarrow.feather
import pytest
from fastapi import FastAPI, Response

from services.ml_service.series import SeriesState
from services.ml_service.service import TABLES, serve
from services.ml_service.settings import MlSettings
from services.ml_service.synthetic import made_up_bars
from shared.artifacts.canonical import content_id
from shared.artifacts.models import ModelManifest, manifest_bytes, model_bytes
from shared.bus.bus import Outgoing
from shared.bus.memory import MemoryBus
from shared.contracts.governance import ModelPromoted, ModelTrained, Span, StageChanged
from shared.contracts.market import BarClosed
from shared.contracts.operations import Progress
from shared.contracts.subjects import MODEL_TRAINED, subject_of
from shared.contracts.times import from_ms, parse_time, to_ms
from shared.contracts.wire import Message, open_envelope, pack, unpack, wrap
from shared.regimes.hmm import regime_model
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
PATIENCE_S = 60.0


def market(bars: int, *, symbol: str = "BTC-USDT", history: int = 0, seed: int = 6) -> list[BarClosed]:
    """Bars that rise, fall and idle; the first `history` of them are of the past."""
    return [
        BarClosed(
            venue="sim",
            symbol=symbol,
            timeframe="1m",
            opened_at=START + bar * MINUTE,
            closed_at=START + (bar + 1) * MINUTE,
            open=made.open,
            high=made.high,
            low=made.low,
            close=made.close,
            volume=made.volume,
            is_history=bar < history,
        )
        for bar, made in enumerate(made_up_bars(bars, seed))
    ]


HISTORY = 1_200
BARS = market(1_400, history=HISTORY)


UNIT = [[1.0 if i == j else 0.0 for j in range(4)] for i in range(4)]
A_MODEL = regime_model(
    start=[1 / 3] * 3,
    transition=[[0.98 if i == j else 0.01 for j in range(3)] for i in range(3)],
    means=[[0.8, 3.0, -6.2, 0.0], [-0.8, -3.0, -6.2, 0.0], [0.0, 0.0, -6.2, 0.0]],
    scales=[UNIT] * 3,
    labels=("BULL", "BEAR", "CHOP"),
    center=[0.0, 0.0, -6.2, 0.0],
    spread=[1.0] * 4,
)


def a_manifest() -> ModelManifest:
    span = Span(first=START, last=START, bars=1, data_sha256="0" * 64)
    return ModelManifest(
        model_id=content_id(model_bytes(A_MODEL)),
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        feature_schema=A_MODEL.feature_schema,
        labels=A_MODEL.labels,
        trained_on=span,
        held_out=span,
        scores={"log_likelihood": -3.0},
        seed=0,
        starts=1,
        tag="written by hand",
        is_synthetic=False,
        code_version="test",
        trained_at=START,
    )


class House(Around):
    """What is around the service: the bus, the bars that the ingester holds, and what was said so far."""

    PATIENCE_S = PATIENCE_S

    def __init__(self, folder: Path, bars: dict[tuple[str, int], BarClosed]) -> None:
        super().__init__()
        self.folder, self.held = folder, bars
        self.voice = MemoryBus(self.server)
        self.progress: list[Progress] = []
        self.asked = asyncio.Event()  # the ingester was asked for bars
        self.times_asked = 0
        self.ingester_is_away = asyncio.Event()

    async def up(self, **settings: Any) -> Host[MlSettings]:
        """Start the service, or start it again on what it kept."""
        values = {"min_train_bars": 400, "train_bars": 1500, "starts": 2, "patience_s": 0.2, **settings}
        chosen = MlSettings(data_dir=self.folder, api_token=TOKEN, **values)
        store = await Store.open(self.folder / "ml_service.sqlite", TABLES, "NORMAL")
        host: Host[MlSettings] = Host("ml_service", chosen, MemoryBus(self.server), store, VenueClock())
        host.web = web_application(host)
        await host.bus.hear("progress.ml_service", self._on_progress)
        await host.start(serve)
        self.host = host
        return host

    async def down(self) -> None:
        assert self.host is not None
        await self.host.stop()
        self.host = None

    async def tell(self, *messages: Message, source: str = "test") -> None:
        """Say these, as the services that they come from would. The ingester holds a bar before it tells it."""
        for message in messages:
            if isinstance(message, BarClosed):
                self.hold(message)
        batch = []
        for message in messages:
            envelope = wrap(message, source)
            batch.append(Outgoing(subject_of(message).of(message), pack(envelope), envelope.id))
        await self.voice.publish(batch)

    def hold(self, bar: BarClosed) -> None:
        """The ingester holds this bar, also if it is told to nobody."""
        self.held[bar.symbol, to_ms(bar.opened_at)] = bar

    async def until_progress(self, holds: Callable[[Progress], bool]) -> None:
        """Wait for a word of progress like this."""
        await self.until(lambda: bool(self.progress) and holds(self.progress[-1]))

    async def until_kept(self, bars: int) -> None:
        """Wait until so many bars are committed, while progress is held and cannot say it."""
        assert self.host is not None
        async with asyncio.timeout(PATIENCE_S):
            while True:
                self._heard.clear()
                row = await self.host.store.row("select state from series")
                if row is not None and msgspec.msgpack.decode(row[0], type=SeriesState).bars >= bars:
                    return
                await self._heard.wait()  # progress is said again after each batch

    def client(self, token: str = TOKEN) -> httpx.AsyncClient:
        """Ask the service's routes."""
        assert self.host is not None and self.host.web is not None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.host.web), base_url="http://ml", headers=headers)

    def ask(self, request: Coroutine[Any, Any, httpx.Response]) -> asyncio.Task[httpx.Response]:
        """Send a request whose answer depends on what is told meanwhile."""
        return asyncio.create_task(request)

    async def promote_a_known_model(self, at: datetime, symbol: str = "BTC-USDT") -> None:
        """Promote a model that was made elsewhere, and wait until it is in use."""
        manifest = a_manifest()
        before = sum(manifest.model_id in one for one in self.progress[-1].booked) if self.progress else 0
        await self.voice.put_artifact(manifest.model_id, model_bytes(A_MODEL))
        await self.tell(
            ModelPromoted(
                model_id=manifest.model_id,
                venue="sim",
                symbol=symbol,
                timeframe="1m",
                manifest=manifest_bytes(manifest),
                evidence_id="e",
                promoted_at=at,
            )
        )
        await self.until_progress(lambda progress: sum(manifest.model_id in one for one in progress.booked) > before)

    def _on_progress(self, _subject: str, payload: bytes) -> None:
        before = self.progress[-1] if self.progress else None
        self.progress.append(so_far(before, open_envelope(unpack(payload), Progress)))
        self._heard.set()


def promoted(trained: ModelTrained, at: datetime) -> ModelPromoted:
    return ModelPromoted(
        model_id=trained.model_id,
        venue=trained.venue,
        symbol=trained.symbol,
        timeframe=trained.timeframe,
        manifest=trained.manifest,
        evidence_id="e",
        promoted_at=at,
    )


def refused(trained: ModelTrained) -> StageChanged:
    return StageChanged(
        sequence=1,
        kind="model",
        subject_id=trained.model_id,
        venue=trained.venue,
        strategy="",
        symbol=trained.symbol,
        timeframe=trained.timeframe,
        before="candidate",
        after="refused",
        reasons=("log_likelihood must be above -1, was -2",),
        profile="demo/1",
        evidence_id="e",
        actor="gate",
        changed_at=trained.trained_at,
        previous_hash="",
        hash="f" * 64,
    )


async def trained_on_history(house: House) -> ModelTrained:
    """The service is up, has seen the past, and waits for the governor's word on its first model."""
    await house.up()
    await house.tell(*BARS[:HISTORY])
    return (await house.until_said(MODEL_TRAINED))[0]


async def with_a_model(house: House) -> ModelTrained:
    """... and the governor has promoted it at the close of the last bar of the past."""
    trained = await trained_on_history(house)
    await house.tell(promoted(trained, BARS[HISTORY - 1].closed_at))
    await house.until_progress(lambda progress: not progress.holding)
    return trained


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A house whose ingester answers `GET /bars` over a real socket."""
    held: dict[tuple[str, int], BarClosed] = {}
    app = FastAPI()

    @app.get("/bars")
    async def bars(symbol: str, timeframe: str, first: datetime, last: datetime) -> Response:
        house.asked.set()
        if house.ingester_is_away.is_set():
            return Response(status_code=503)
        house.times_asked += 1
        rows = [
            bar
            for (_, ms), bar in sorted(held.items())
            if bar.symbol == symbol and bar.timeframe == timeframe and to_ms(first) <= ms <= to_ms(last)
        ]
        table = pa.table(
            {
                "timestamp": pa.array([to_ms(bar.opened_at) for bar in rows], pa.int64()),
                **{name: [getattr(bar, name) for bar in rows] for name in ("open", "high", "low", "close", "volume")},
            }
        )
        body = io.BytesIO()
        pyarrow.feather.write_feather(table, body, compression="uncompressed")
        return Response(body.getvalue(), media_type="application/vnd.apache.arrow.file")

    @app.get("/chunks")
    async def chunks(symbol: str, timeframe: str, first: datetime, last: datetime) -> list[dict[str, Any]]:
        """One part of the first 500 bars."""
        times = sorted(ms for _, ms in held)[:500]
        if symbol != "BTC-USDT" or len(times) < 500 or not to_ms(first) <= times[-1] or not times[0] <= to_ms(last):
            return []
        return [{"first": from_ms(times[0]), "last": from_ms(times[-1]), "bars": 500, "data_sha256": "c" * 64}]

    house = House(tmp_path, held)
    async with listening(app) as address:
        monkeypatch.setenv("TRIMTAB_INGESTER_URL", address)
        try:
            yield house
        finally:
            if house.host is not None:
                await house.down()


@pytest.fixture
async def model_in_use(house: House) -> House:
    """The service after the first 100 bars, with a model that no training had to make."""
    await house.up(synthetic_bootstrap=False, min_train_bars=2_000, train_bars=3_000)
    await house.tell(*BARS[:100])
    await house.until_progress(lambda progress: progress.at.get("BTC-USDT.1m") == to_ms(BARS[99].opened_at))
    await house.promote_a_known_model(BARS[99].closed_at)
    return house
