"""A running param_controller and the house around it: a voice for ml_service, the governor, and an engine that trades."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from pydantic import SecretStr

from services.param_controller.service import SERVICE
from services.param_controller.settings import ParamSettings
from shared.artifacts.presets import Preset, default_preset, preset_bytes, preset_id
from shared.bus.bus import Bus, Delivery, Outgoing
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.execution import Signal, TradeClosed, TradeFill
from shared.contracts.governance import PresetCandidate, PresetPromoted
from shared.contracts.market import BarClosed
from shared.contracts.operations import Progress
from shared.contracts.parameters import ParamDecision, ParamOutcome
from shared.contracts.regime import RegimeReading
from shared.contracts.subjects import GOV, PARAM, PRESET_CANDIDATE, PROGRESS, subject_of
from shared.contracts.times import parse_time, to_ms
from shared.contracts.wire import Message, message_id, open_envelope, pack, unpack, wrap
from shared.regimes.context import CONTEXT_SCHEMA
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application
from shared.trading.strategies import BUILT_IN
from tests.houses import so_far

M = TypeVar("M", bound=Message)

START = parse_time("2024-01-01")
MINUTE = timedelta(minutes=1)
MOMENTUM = BUILT_IN["momentum"]
DEFAULT = default_preset(MOMENTUM, "BTC-USDT", "1m")
TOKEN = "a-token-of-this-test"
PATIENCE_S = 20.0
REGIMES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def closed(bar: int) -> datetime:
    return START + (bar + 1) * MINUTE


def reading(bar: int, *, is_history: bool = False) -> RegimeReading:
    """The regime changes every 20 bars."""
    bull, bear, chop = REGIMES[bar // 20 % 3]
    return RegimeReading(
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        opened_at=START + bar * MINUTE,
        regime=("BULL", "BEAR", "CHOP")[bar // 20 % 3],
        bull=bull,
        bear=bear,
        chop=chop,
        model_id="m",
        context=(1.0, bull, bear, chop, 0.25),
        context_schema=CONTEXT_SCHEMA,
        reading_hash="0",
        is_history=is_history,
    )


def bar_closed(bar: int) -> BarClosed:
    return BarClosed(
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        opened_at=START + bar * MINUTE,
        closed_at=closed(bar),
        open=100.0,
        high=100.0,
        low=100.0,
        close=100.0,
        volume=1.0,
    )


def a_preset(entry: int) -> Preset:
    return Preset(
        strategy="momentum",
        source_hash=MOMENTUM.source,
        schema_version=1,
        params=MOMENTUM.params({"entry": entry})._asdict(),
        symbol="BTC-USDT",
        timeframe="1m",
        origin="backtest",
    )


def promoted(entry: int, at: datetime = START) -> PresetPromoted:
    return PresetPromoted(
        preset_id=preset_id(a_preset(entry)),
        preset=preset_bytes(a_preset(entry)),
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        evidence_id="e",
        promoted_at=at,
    )


def signal(bar: int, exposure: float, under: ParamDecision) -> Signal:
    return Signal(
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        opened_at=START + bar * MINUTE,
        closed_at=closed(bar),
        exposure=exposure,
        exit_reason="" if exposure else "signal",
        preset_id=under.preset_id,
        model_id="m",
        decision_id=under.decision_id,
        regime="BULL",
    )


def fill(bar: int) -> TradeFill:
    return TradeFill(
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        trade_id=str(bar),
        order_id=f"o{bar}",
        side="buy",
        quantity=Decimal(1),
        price=Decimal(100),
        fee=Decimal(0),
        fee_asset="USDT",
        at=closed(bar),
    )


def trade(bar: int, result_r: float, under: ParamDecision) -> TradeClosed:
    return TradeClosed(
        trade_id=f"t{bar}",
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        side="long",
        opened_at=START,
        closed_at=closed(bar),
        bars_held=1,
        quantity=Decimal(1),
        entry_price=Decimal(100),
        exit_price=Decimal(100),
        fees=Decimal(0),
        pnl=Decimal(0),
        risk=Decimal(1),
        result_r=result_r,
        exit_reason="signal",
        preset_id=under.preset_id,
        model_id="m",
        decision_id=under.decision_id,
        regime="BULL",
    )


class Around:
    """What the controller hears and is heard by, on any bus."""

    def __init__(self, voice: Bus) -> None:
        self.voice = voice
        self.decisions: list[ParamDecision] = []
        self.outcomes: list[ParamOutcome] = []
        self.candidates: list[PresetCandidate] = []
        self.correlations: list[str] = []
        self.progress: Progress | None = None
        self.engine_at = -1
        self.engine_told: list[str] = []
        self._count = 0
        self._heard = asyncio.Event()
        self._known: set[str] = set()
        self._booked: set[str] = set()  # by the controller, in all its lives

    async def begin(self) -> None:
        await self.voice.hear("progress.param_controller", self._on_progress)
        await self.voice.consume("around", PARAM, ["param.>"], self._take, lambda: None)
        await self.voice.consume("around", GOV, [PRESET_CANDIDATE.wildcard], self._take, lambda: None)

    async def tell(self, *messages: Message, on: Message | None = None) -> None:
        """Say these, each by its subject; `on` is the bar that led to them, if one did."""
        cause = None if on is None else wrap(on, "test")
        wrapped = [(message, wrap(message, "test", cause)) for message in messages]
        await self.voice.publish([Outgoing(subject_of(m).of(m), pack(e), e.id) for m, e in wrapped])

    async def promote(self, *said: PresetPromoted) -> None:
        """Presets are promoted; returns when the controller has taken that in, as the market would wait for it."""
        await self.tell(*said)
        booked = {message_id(one) for one in said}
        await self.until(lambda: self.progress is not None and booked <= set(self.progress.booked))

    async def engine_says(self) -> None:
        """How far the engine has come, once more."""
        self._count += 1
        progress = Progress(
            service="engine",
            venue="sim",
            at={} if self.engine_at < 0 else {"BTC-USDT.1m": to_ms(START + self.engine_at * MINUTE)},
            told=tuple(self.engine_told[-256:]),
            is_whole=True,
            said_at=VenueClock().wall(),
        )
        await self.voice.say(PROGRESS.of(progress), pack(wrap(progress, "engine")))

    async def engine_does(self, bar: int, *done: Message) -> None:
        """The engine comes to this bar, and says what it did there before it says that it has come."""
        self.engine_at = bar
        self.engine_told += [message_id(message) for message in done]
        await self.tell(*done)
        await self.engine_says()

    async def until(self, holds: Callable[[], bool], *, engine_is_up: bool = True) -> None:
        """Wait until this is true; the engine, if there is one, repeats itself meanwhile, as it does."""
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._heard.clear()
                try:
                    await asyncio.wait_for(self._heard.wait(), 0.1)
                except TimeoutError:
                    if engine_is_up:
                        await self.engine_says()

    def has_booked(self, message: Message) -> bool:
        return message_id(message) in self._booked

    def has_come_to(self, bar: int) -> bool:
        """Whether the next bar may be told: it is there, holds nothing back, and each has heard what the other told."""
        progress, opened_ms = self.progress, to_ms(START + bar * MINUTE)
        return (
            progress is not None
            and not progress.holding
            and max(progress.at.get("BTC-USDT.1m", -1), progress.idle_until.get("BTC-USDT.1m", 0) - 1) >= opened_ms
            and self._known >= set(progress.told)
            and self._booked >= set(self.engine_told)
        )

    def _on_progress(self, _subject: str, payload: bytes) -> None:
        self.progress = so_far(self.progress, open_envelope(unpack(payload), Progress))
        self._booked.update(self.progress.booked)
        self._heard.set()

    async def _take(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            envelope = unpack(delivery.payload)
            if envelope.id in self._known:
                continue
            self._known.add(envelope.id)
            self.correlations.append(envelope.correlation)
            match envelope.type:
                case "ParamDecision":
                    self.decisions.append(open_envelope(envelope, ParamDecision))
                case "ParamOutcome":
                    self.outcomes.append(open_envelope(envelope, ParamOutcome))
                case _:
                    self.candidates.append(open_envelope(envelope, PresetCandidate))
        self._heard.set()


class House(Around):
    """The same, and the service itself in this process on the memory bus."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, MemoryServer()
        super().__init__(MemoryBus(self.server))
        self.host: Host[ParamSettings] | None = None

    async def up(self, **settings: Any) -> Host[ParamSettings]:
        values = {"strategies": "momentum", "epoch_bars": 5, "engine_patience_s": 600, **settings}
        chosen = ParamSettings(data_dir=self.folder, api_token=SecretStr(TOKEN), **values)
        store = await Store.open(self.folder / "param_controller.sqlite", SERVICE.tables, "NORMAL")
        host: Host[ParamSettings] = Host("param_controller", chosen, MemoryBus(self.server), store, VenueClock())
        host.web = web_application(host)
        await host.start(SERVICE.serve)
        self.host = host
        return host

    async def down(self) -> None:
        if self.host is not None:
            await self.host.stop()
            self.host = None

    def client(self, token: str = TOKEN) -> httpx.AsyncClient:
        assert self.host is not None and self.host.web is not None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.host.web), base_url="http://p", headers=headers)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.begin()
    try:
        yield made
    finally:
        await made.down()
        await made.voice.close()


async def play(around: Around, bars: range) -> None:
    """An engine that follows each decision: in on the second bar of its epoch, out on the fourth, with a known result."""
    for bar in bars:
        done: list[Message] = []
        if around.decisions:
            current = around.decisions[-1]
            age = (START + bar * MINUTE - current.decided_on) // MINUTE
            if age == 2:
                done = [signal(bar, 1.0, current), fill(bar)]
            elif age == 4:
                earned = ((int(current.preset_id[:6], 16) + 7 * bar) % 200 - 100) / 100
                done = [signal(bar, 0.0, current), fill(bar), trade(bar, earned, current)]
        await around.tell(reading(bar))
        await around.engine_does(bar, *done)
        await around.until(lambda bar=bar: around.has_come_to(bar))
