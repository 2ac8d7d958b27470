"""The service on a bus, with an ingester that answers real HTTP and a governor's voice."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
import uvicorn
from fastapi import FastAPI, Response

from services.backtest_suite.searches import TABLES
from services.backtest_suite.service import serve
from services.backtest_suite.settings import BacktestSettings
from shared.artifacts.presets import preset_from_bytes
from shared.bus.bus import Outgoing
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import PresetCandidate, PresetPromoted, PresetRefused, StageChanged
from shared.contracts.jobs import EvidenceOrdered
from shared.contracts.market import BarClosed
from shared.contracts.operations import Progress
from shared.contracts.subjects import EVIDENCE_GIVEN, PRESET_CANDIDATE, Subject, subject_of
from shared.contracts.times import parse_time, to_ms
from shared.contracts.wire import Message, open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.trading.strategies import BUILT_IN

M = TypeVar("M", bound=Message)

START = parse_time("2024-01-01")
MINUTE = timedelta(minutes=1)
PATIENCE_S = 20.0
HISTORY = 600
SMALL: dict[str, Any] = {
    "strategies": "momentum",
    "window_bars": 600,
    "least_bars": 600,
    "search_bars": 100,
    "sets": 10,
    "least_trades": 2,
    "threads": 1,
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


BARS = market(820)


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
        store = await Store.open(self.folder / "backtest_suite.sqlite", TABLES, "NORMAL")
        self.host = Host("backtest_suite", chosen, MemoryBus(self.server), store, VenueClock())
        await self.host.bus.hear("progress.backtest_suite", self._on_progress)
        await self.host.start(serve)

    async def down(self) -> None:
        if self.host is not None:
            await self.host.stop()
            self.host = None

    async def tell(self, *messages: Message) -> None:
        """Say these, as the services that they come from would. The ingester holds a bar before it tells it."""
        self.held += [message for message in messages if isinstance(message, BarClosed)]
        envelopes = [(message, wrap(message, "test")) for message in messages]
        await self.voice.publish([Outgoing(subject_of(m).of(m), pack(e), e.id) for m, e in envelopes])

    def said(self, subject: Subject[M]) -> list[M]:
        """All that was said under this subject, oldest first."""
        assert subject.stream is not None
        envelopes = [unpack(delivery.payload) for delivery in self.server.streams[subject.stream.name]]
        return [open_envelope(one, subject.message) for one in envelopes if one.type == subject.message.__name__]

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


def place(candidate: PresetCandidate) -> dict[str, str]:
    """Whose preset it is."""
    names = ("preset_id", "venue", "strategy", "symbol", "timeframe")
    return {name: getattr(candidate, name) for name in names}


def promoted(candidate: PresetCandidate) -> PresetPromoted:
    at = candidate.proposed_at
    return PresetPromoted(**place(candidate), preset=candidate.preset, evidence_id="e", promoted_at=at)


def refused(candidate: PresetCandidate) -> PresetRefused:
    return PresetRefused(
        **place(candidate), reasons=("sharpe at least 1, was 0.2",), evidence_id="e", refused_at=candidate.proposed_at
    )


def judged_before(candidate: PresetCandidate) -> StageChanged:
    return StageChanged(
        sequence=1,
        kind="preset",
        subject_id=candidate.preset_id,
        venue=candidate.venue,
        strategy=candidate.strategy,
        symbol=candidate.symbol,
        timeframe=candidate.timeframe,
        before="refused",
        after="refused",
        reasons=("judged before",),
        profile="demo/1",
        evidence_id="e",
        actor="gate",
        changed_at=candidate.proposed_at,
        previous_hash="",
        hash="f" * 64,
    )


async def test_the_first_live_bar_makes_a_search_due_and_its_best_are_proposed(house: House) -> None:
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    found = await house.candidates()
    preset = preset_from_bytes(found[0].preset, found[0].preset_id)
    assert (preset.strategy, preset.source_hash) == ("momentum", BUILT_IN["momentum"].source)
    assert BUILT_IN["momentum"].params(preset.params)
    assert (found[0].trials, found[0].origin, found[0].proposed_at) == (10, "backtest", BARS[HISTORY].closed_at)
    train, test = found[0].train, found[0].test
    assert train is not None and test is not None
    assert (train.first, train.bars, test.bars) == (BARS[1].opened_at, 300, 150)  # the window ends at the live bar
    assert test.last < BARS[HISTORY].opened_at - 100 * MINUTE  # the governor's holdout is left alone


async def test_progress_is_held_until_the_governor_has_spoken_on_every_candidate(house: House) -> None:
    await house.up()
    await house.tell(*BARS[:HISTORY])
    await house.until_at(BARS[HISTORY - 1])
    await house.tell(BARS[HISTORY])
    first, second, third = await house.candidates()
    await house.until(lambda: house.progress[-1].holding == "verdict momentum BTC-USDT")
    await house.tell(promoted(first), refused(second))
    await house.until(lambda: len([one for one in house.progress[-1].booked if "Preset" in one]) == 2)
    assert house.progress[-1].at["BTC-USDT.1m"] == to_ms(BARS[HISTORY - 1].opened_at)
    await house.tell(judged_before(third))
    await house.until_at(BARS[HISTORY])
    assert house.progress[-1].holding == ""


async def test_the_next_search_comes_after_its_time_in_the_market_and_not_before(house: House) -> None:
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    await house.tell(*[refused(one) for one in await house.candidates()])
    await house.until_at(BARS[HISTORY])
    await house.tell(*BARS[HISTORY + 1 : HISTORY + 100])
    await house.until_at(BARS[HISTORY + 99])
    assert len(house.said(PRESET_CANDIDATE)) == 3
    assert house.progress[-1].idle_until["BTC-USDT.1m"] == to_ms(BARS[HISTORY + 100].opened_at)  # nobody need wait
    await house.tell(BARS[HISTORY + 100])
    again = await house.candidates(6)
    assert again[-1].proposed_at == BARS[HISTORY + 100].closed_at


async def test_a_restart_does_the_search_that_was_under_way_again_on_the_same_bars(house: House) -> None:
    house.ingester_is_away = True
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    await asyncio.wait_for(house.asked.wait(), PATIENCE_S)
    await house.down()
    assert house.said(PRESET_CANDIDATE) == []

    house.ingester_is_away = False
    await house.tell(*BARS[HISTORY + 1 : HISTORY + 5])
    await house.up()
    found = await house.candidates()
    assert {one.proposed_at for one in found} == {BARS[HISTORY].closed_at}
    assert found[0].train is not None
    assert found[0].train.first == BARS[1].opened_at

    await house.down()
    house.progress.clear()
    await house.up()
    await house.until(lambda: bool(house.progress) and house.progress[-1].holding == "verdict momentum BTC-USDT")
    assert house.said(PRESET_CANDIDATE) == found


async def test_evidence_is_given_on_the_span_that_was_ordered_or_the_reason_why_not(house: House) -> None:
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    candidate = (await house.candidates())[0]
    order = EvidenceOrdered(
        job_id="job-1",
        worker="backtest_suite",
        subject_id=candidate.preset_id,
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        preset=candidate.preset,
        first=BARS[451].opened_at,
        last=BARS[HISTORY].opened_at,
        costs=candidate.costs or pytest.fail("a candidate tells its costs"),
        ordered_at=candidate.proposed_at,
    )
    strange = msgspec.structs.replace(order, job_id="job-2", preset=b"{}")
    early = msgspec.structs.replace(
        order, job_id="job-3", first=START - timedelta(days=9), last=START - timedelta(days=8)
    )
    await house.tell(order, strange, early)
    await house.until(lambda: len(house.said(EVIDENCE_GIVEN)) == 3)
    given, no_preset, no_bars = house.said(EVIDENCE_GIVEN)
    assert given.span is not None and given.figures is not None and given.stressed is not None
    assert (given.failure, given.span.bars, given.figures.bars, given.trials) == ("", 150, 150, 10)
    assert given.stressed.net_return <= given.figures.net_return
    assert (no_preset.figures, no_bars.figures) == (None, None)
    assert "Expected the preset" in no_preset.failure
    assert "There are no bars of BTC-USDT" in no_bars.failure


async def test_a_strategy_that_nobody_knows_stops_the_service_with_the_nearest_name(house: House) -> None:
    with pytest.raises(NeedsOperator, match="Did you mean 'momentum'"):
        await house.up(strategies="momentun")
