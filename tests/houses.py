"""What the houses of the services' tests have in common: one service on the memory bus, and who waits for its words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import msgspec

from shared.bus.memory import MemoryServer
from shared.contracts.operations import Progress
from shared.contracts.subjects import Subject
from shared.contracts.wire import Message
from shared.runtime.service import Host

M = TypeVar("M", bound=Message)


def so_far(before: Progress | None, said: Progress) -> Progress:
    """A service's last word, with all that it has booked and told in this life: between two beats it says what is new."""
    if before is None:
        return said
    booked, told = dict.fromkeys((*before.booked, *said.booked)), dict.fromkeys((*before.told, *said.told))
    return msgspec.structs.replace(said, booked=tuple(booked), told=tuple(told))


class Around:
    """The bus around a service, and what was said there so far."""

    PATIENCE_S: ClassVar[float] = 20.0

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.host: Host[Any] | None = None
        self._heard = asyncio.Event()

    def said(self, subject: Subject[M]) -> list[M]:
        """All that was said under this subject, oldest first."""
        return self.server.said(subject)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this is true; asked after each message. Fails when the service fails, or nothing comes."""
        assert self.host is not None
        failed = asyncio.ensure_future(self.host.failed())
        self.server.more.append(self._heard)
        try:
            async with asyncio.timeout(self.PATIENCE_S):
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

    async def until_said(self, subject: Subject[M], count: int = 1) -> list[M]:
        """Wait for so many messages of this kind."""
        await self.until(lambda: len(self.said(subject)) >= count)
        return self.said(subject)
