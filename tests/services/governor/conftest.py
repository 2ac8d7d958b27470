"""A running governor and the house around it: applicants, workers who give evidence, and who listens to verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from pydantic import SecretStr

from services.governor.service import SERVICE
from services.governor.settings import GovernorSettings
from shared.bus.bus import Bus, Delivery, Outgoing
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.governance import ModelPromoted, PresetDemoted, PresetPromoted, PresetRefused, StageChanged
from shared.contracts.jobs import EvidenceOrdered
from shared.contracts.operations import Progress
from shared.contracts.subjects import BT, GOV, subject_of
from shared.contracts.wire import Message, open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store
from shared.runtime.web import web_application
from tests.houses import so_far

M = TypeVar("M", bound=Message)

TOKEN = "a-token-of-this-test"
PATIENCE_S = 20.0
SAID: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (EvidenceOrdered, ModelPromoted, PresetPromoted, PresetDemoted, PresetRefused, StageChanged)
}


class Around:
    """What the governor hears and is heard by, on any bus."""

    def __init__(self, voice: Bus) -> None:
        self.voice = voice
        self.said: list[Message] = []  # by the governor, each stream in its order
        self.progress: Progress | None = None
        self._known: set[str] = set()
        self._heard = asyncio.Event()

    async def begin(self) -> None:
        await self.voice.hear("progress.governor", self._on_progress)
        for stream in (GOV, BT):
            await self.voice.consume("around", stream, stream.filters, self._take, lambda: None)

    async def tell(self, *messages: Message) -> None:
        """Say these, each by its subject."""
        wrapped = [(message, wrap(message, "test")) for message in messages]
        await self.voice.publish([Outgoing(subject_of(m).of(m), pack(e), e.id) for m, e in wrapped])

    def all(self, kind: type[M]) -> list[M]:
        """Everything of this kind that was said."""
        return [message for message in self.said if isinstance(message, kind)]

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():
                self._heard.clear()
                await self._heard.wait()

    async def until_said(self, kind: type[M], count: int = 1) -> list[M]:
        await self.until(lambda: len(self.all(kind)) >= count)
        return self.all(kind)

    async def until_judged(self, count: int = 1) -> list[StageChanged]:
        """The first lines of the record; returns when so many verdicts are among them."""
        await self.until(lambda: len(self.verdicts) >= count)
        return self.all(StageChanged)

    @property
    def verdicts(self) -> list[StageChanged]:
        """The lines that moved somebody; that a holdout was opened moves nobody."""
        return [line for line in self.all(StageChanged) if line.after != "candidate"]

    def _on_progress(self, _subject: str, payload: bytes) -> None:
        self.progress = so_far(self.progress, open_envelope(unpack(payload), Progress))
        self._heard.set()

    async def _take(self, batch: list[Delivery]) -> None:
        for delivery in batch:
            envelope = unpack(delivery.payload)
            if envelope.type in SAID and envelope.id not in self._known:
                self._known.add(envelope.id)
                self.said.append(open_envelope(envelope, SAID[envelope.type]))
        self._heard.set()


class House(Around):
    """The same, and the service itself in this process on the memory bus."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder, MemoryServer()
        super().__init__(MemoryBus(self.server))
        self.host: Host[GovernorSettings] | None = None

    async def up(self, **settings: Any) -> Host[GovernorSettings]:
        chosen = GovernorSettings(data_dir=self.folder, api_token=SecretStr(TOKEN), **{"profile": "demo", **settings})
        store = await Store.open(self.folder / "governor.sqlite", SERVICE.tables, "NORMAL")
        host: Host[GovernorSettings] = Host("governor", chosen, MemoryBus(self.server), store, VenueClock())
        host.web = web_application(host)
        self.host = host
        await host.start(SERVICE.serve)
        return host

    async def down(self) -> None:
        if self.host is not None:
            await self.host.stop()
            self.host = None

    def client(self, token: str = TOKEN) -> httpx.AsyncClient:
        assert self.host is not None and self.host.web is not None
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.host.web), base_url="http://g", headers=headers)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    await made.begin()
    try:
        yield made
    finally:
        await made.down()
        await made.voice.close()
