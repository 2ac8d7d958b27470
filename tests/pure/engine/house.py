"""A running engine on the memory bus, what is told to it, and what it said. For all tests of the engine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from services.engine.desk import Desk
from services.engine.paper_venue import PaperVenue
from services.engine.service import SERVICE, serve_at
from services.engine.settings import EngineSettings
from services.engine.venue import Venue
from services.engine.venues import MakeVenue, Rules
from shared.artifacts.canonical import content_id
from shared.artifacts.models import ModelManifest, manifest_bytes, model_bytes
from shared.artifacts.presets import Preset, preset_bytes, preset_id
from shared.bus.bus import Bus, Outgoing
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.governance import ModelPromoted, PresetPromoted, Span
from shared.contracts.instruments import Instrument
from shared.contracts.market import BarClosed
from shared.contracts.operations import Progress
from shared.contracts.parameters import ParamDecision, decision_id
from shared.contracts.subjects import PROGRESS, Subject, subject_of
from shared.contracts.times import parse_time, to_ms
from shared.contracts.wire import Message, message_id, open_envelope, pack, unpack, wrap
from shared.regimes.hmm import RegimeModel, regime_model
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application
from shared.trading.strategies import BUILT_IN, load_strategy
from tests.houses import so_far

M = TypeVar("M", bound=Message)

START = parse_time("2024-01-01")
MINUTE = timedelta(minutes=1)
PATIENCE_S = 20.0

# The smallest strategy whose every order can be told in advance: long above a level.
ABOVE = '''
from typing import NamedTuple

from shared.trading.kernel import kernel
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long


class Params(NamedTuple):
    level: float = 100.0  # price
    stop: float = 10.0  # price units below entry


class State(NamedTuple):
    bars: int


@kernel
def start(p: Params) -> State:
    return State(0)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Long above a level."""
    if bar.close == FAULT:
        raise ZeroDivisionError("the strategy's own fault")
    return State(s.bars + 1), long(stop=p.stop) if bar.close > p.level else flat()


STRATEGY = strategy(
    "NAME", Params, start, step, bounds={"level": (1.0, 1e6), "stop": (0.1, 1e6)}, warmup=lambda p: 1
)
'''


def instrument(symbol: str = "BTC-USDT") -> Instrument:
    base, quote = symbol.split("-")
    return Instrument(
        symbol=symbol, base=base, quote=quote, tick=Decimal("0.01"), lot=Decimal("0.0001"), min_notional=Decimal(5)
    )


def bars(*closes: float, symbol: str = "BTC-USDT", history: int = 0, first: int = 0) -> list[BarClosed]:
    """One bar for each close, each opening at the close before it."""
    opens = [closes[0], *closes[:-1]]
    return [
        BarClosed(
            venue="sim",
            symbol=symbol,
            timeframe="1m",
            opened_at=START + (first + at) * MINUTE,
            closed_at=START + (first + at + 1) * MINUTE,
            open=open,
            high=max(open, close),
            low=min(open, close),
            close=close,
            volume=1.0,
            is_history=at < history,
        )
        for at, (open, close) in enumerate(zip(opens, closes, strict=True))
    ]


def paper(desk: Desk, instruments: Mapping[str, Instrument]) -> Venue:
    return PaperVenue("sim", instruments, desk.fill_at)


FAULTS = {"above": 104.5}  # at this close the strategy of this name raises; others go on


class House:
    """What is around one engine. `up` starts it, or starts it again on what it kept."""

    lot = Decimal("0.0001")

    def __init__(
        self, folder: Path, strategies: Sequence[str] = ("above",), symbols: Sequence[str] = ("BTC-USDT",)
    ) -> None:
        self.folder, self.strategies, self.symbols = folder, tuple(strategies), tuple(symbols)
        self.server = MemoryServer()
        self.voice = MemoryBus(self.server)
        self.host: Host[EngineSettings] | None = None
        self.progress: list[Progress] = []  # of this life
        self._spoken = asyncio.Event()
        self.server.more.append(self._spoken)
        for name in set(self.strategies) - set(BUILT_IN):
            (folder / f"{name}.py").write_text(
                ABOVE.replace("NAME", name).replace("FAULT", repr(FAULTS.get(name, -1.0))), encoding="utf-8"
            )
        self._commands = itertools.count()

    async def up(
        self, make_venue: MakeVenue = paper, rules: Rules | None = None, bus: Bus | None = None, **settings: Any
    ) -> Host[EngineSettings]:
        """Start the engine at this venue. `rules` tells what can be traded there; without, `instrument` does."""
        values: dict[str, Any] = {
            "data_dir": self.folder,
            "strategies": self.strategies,
            "symbols": self.symbols,
            "cash": Decimal(1000 * len(self.strategies) * len(self.symbols)),
            "max_order_pct": 100.0,
            "max_position_pct": 100.0,
            "reconcile_s": 600.0,
            "api_token": "a-token-of-this-test",
            **settings,
        }
        self.progress = []
        store = await Store.open(self.folder / "engine.sqlite", SERVICE.tables, SERVICE.synchronous)
        host = self.host = Host("engine", EngineSettings(**values), bus or MemoryBus(self.server), store, VenueClock())
        host.web = web_application(host)
        await host.bus.hear(PROGRESS.of(_nothing()), self._on_progress)
        instruments = {symbol: instrument(symbol) for symbol in self.symbols}

        async def written_here(symbols: Iterable[str]) -> dict[str, Instrument]:
            return {symbol: instruments[symbol] for symbol in symbols}

        async def serve(host: Host[EngineSettings]) -> None:
            await serve_at(host, rules or written_here, make_venue)

        await host.start(serve)
        return host

    async def down(self) -> None:
        if self.host is not None:
            host, self.host = self.host, None
            await host.stop()

    def _on_progress(self, _subject: str, payload: bytes) -> None:
        before = self.progress[-1] if self.progress else None
        self.progress.append(so_far(before, open_envelope(unpack(payload), Progress)))
        self._spoken.set()

    async def tell(self, *messages: Message) -> None:
        envelopes = [(message, wrap(message, "test")) for message in messages]
        await self.voice.publish([Outgoing(subject_of(m).of(m), pack(e), e.id) for m, e in envelopes])

    async def play(self, told: Sequence[BarClosed]) -> None:
        """Tell these bars, and wait until the engine has come to the last of each instrument and has told it all."""
        await self.tell(*told)
        last = {f"{bar.symbol}.{bar.timeframe}": to_ms(bar.opened_at) for bar in told}
        await self.until(lambda p: all(p.at.get(series, -1) >= ms for series, ms in last.items()) and not p.holding)

    async def take_in(self, message: Message) -> None:
        """Tell this, and wait until the engine has booked it."""
        await self.tell(message)
        await self.until(lambda progress: message_id(message) in progress.booked)

    async def until(self, holds: Callable[[Progress], bool], *, is_told: bool = True) -> None:
        """Wait for a word of progress like this, and until all that led to it is told.

        Fails when the engine fails, or stays silent.
        """
        assert self.host is not None
        listener = self.host.listener
        await self._wait(
            lambda: (
                bool(self.progress) and holds(self.progress[-1]) and (not is_told or listener.waiting_to_be_told == 0)
            )
        )

    async def until_said(self, subject: Subject[M], count: int = 1) -> list[M]:
        """Wait for so many messages of this kind."""
        await self._wait(lambda: len(self.said(subject)) >= count)
        return self.said(subject)

    async def _wait(self, holds: Callable[[], bool]) -> None:
        assert self.host is not None
        failed = asyncio.ensure_future(self.host.failed())
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds():
                    self._spoken.clear()
                    spoken = asyncio.ensure_future(self._spoken.wait())
                    await asyncio.wait({spoken, failed}, return_when=asyncio.FIRST_COMPLETED)
                    spoken.cancel()
                    if failed.done():
                        failed.result()
        finally:
            failed.cancel()

    def said(self, subject: Subject[M]) -> list[M]:
        """All that was said under this subject, oldest first."""
        return self.server.said(subject)

    async def rows(self, sql: str) -> list[tuple[Any, ...]]:
        assert self.host is not None
        return await self.host.store.rows(sql)

    async def get(self, path: str) -> Any:
        """Ask the engine's own routes."""
        assert self.host is not None and self.host.web is not None
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.host.web), base_url="http://engine") as client:
            return (await client.get(path)).raise_for_status().json()

    async def status(self) -> dict[str, Any]:
        return await self.get("/status")

    # what others would say

    def preset(self, strategy: str = "above", symbol: str = "BTC-USDT", **params: float) -> Preset:
        source = load_strategy(self.folder / f"{strategy}.py").source
        return Preset(
            strategy=strategy,
            source_hash=source,
            schema_version=1,
            params=params,
            symbol=symbol,
            timeframe="1m",
            origin="backtest",
        )

    def promotion(self, preset: Preset, at_bar: int = 0) -> PresetPromoted:
        return PresetPromoted(
            preset_id=preset_id(preset),
            preset=preset_bytes(preset),
            venue="sim",
            strategy=preset.strategy,
            symbol=preset.symbol,
            timeframe=preset.timeframe,
            evidence_id="e",
            promoted_at=START + at_bar * MINUTE,
        )

    def decision(self, preset: Preset, at_bar: int = 0) -> ParamDecision:
        at = START + at_bar * MINUTE
        return ParamDecision(
            decision_id=decision_id("sim", preset.strategy, preset.symbol, preset.timeframe, at),
            venue="sim",
            strategy=preset.strategy,
            symbol=preset.symbol,
            timeframe=preset.timeframe,
            preset_id=preset_id(preset),
            epoch=1,
            decided_on=at,
            decided_at=at + MINUTE,
            policy_version="p",
            context=(1.0,),
            context_schema="c",
            propensities={preset_id(preset): 1.0},
        )

    def command(self, kind: type[M], reason: str = "a test") -> M:
        number = next(self._commands)
        return kind(command_id=f"c{number}", account="main", actor="tester", reason=reason, at=START)


def _nothing() -> Progress:
    return Progress(service="engine", venue="sim", at={}, said_at=START)


UNIT = [[1.0 if i == j else 0.0 for j in range(4)] for i in range(4)]


def model(stays: float = 0.98) -> RegimeModel:
    """A model by hand: up, down and sideways, each of which stays with these odds."""
    moves = (1.0 - stays) / 2
    return regime_model(
        start=[1 / 3] * 3,
        transition=[[stays if i == j else moves for j in range(3)] for i in range(3)],
        means=[[0.8, 3.0, -6.2, 0.0], [-0.8, -3.0, -6.2, 0.0], [0.0, 0.0, -6.2, 0.0]],
        scales=[UNIT] * 3,
        labels=("BULL", "BEAR", "CHOP"),
        center=[0.0, 0.0, -6.2, 0.0],
        spread=[1.0] * 4,
    )


def model_promotion(of: RegimeModel, at_bar: int, symbol: str = "BTC-USDT") -> ModelPromoted:
    span = Span(first=START, last=START, bars=1, data_sha256="0" * 64)
    model_id = content_id(model_bytes(of))
    manifest = ModelManifest(
        model_id=model_id,
        venue="sim",
        symbol=symbol,
        timeframe="1m",
        feature_schema=of.feature_schema,
        labels=of.labels,
        trained_on=span,
        held_out=span,
        scores={},
        seed=0,
        starts=1,
        tag="by hand",
        is_synthetic=False,
        code_version="test",
        trained_at=START,
    )
    return ModelPromoted(
        model_id=model_id,
        venue="sim",
        symbol=symbol,
        timeframe="1m",
        manifest=manifest_bytes(manifest),
        evidence_id="e",
        promoted_at=START + at_bar * MINUTE,
    )


@asynccontextmanager
async def house_of(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategies: Sequence[str] = ("above",),
    symbols: Sequence[str] = ("BTC-USDT",),
) -> AsyncIterator[House]:
    """A house whose engine is stopped at the end."""
    monkeypatch.setenv("TRIMTAB_STRATEGIES", str(folder))
    made = House(folder, strategies, symbols)
    try:
        yield made
    finally:
        await made.down()
        await made.voice.close()
