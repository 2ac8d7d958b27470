"""The live pulse: what has changed, told a few times a second whatever the market does.

It says *that* something changed, not what: one small frame, made once for all who look. A page fetches the parts that
it shows, so there is one way to ask, and a slow page misses frames, never data.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

PULSE_S = 0.25  # at most four frames a second
REST_S = 1.0  # and one each second when nothing happens: health may have changed


class Pulse:
    """Frames for whoever looks on."""

    def __init__(self, state: Callable[[], Any]) -> None:
        self._state = state
        self._versions: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._lookers: set[Looker] = set()
        self.frames = 0

    def stale(self, part: str) -> None:
        """This part of the page is no longer what it was."""
        self._versions[part] += 1
        self._changed.set()

    @asynccontextmanager
    async def looker(self) -> AsyncIterator[Looker]:
        """One that looks on until it leaves. Its first frame comes at once."""
        one = Looker()
        one.show(self._frame())
        self._lookers.add(one)
        try:
            yield one
        finally:
            self._lookers.discard(one)

    async def beat_for_ever(self) -> None:
        """Show a frame after a change, and no sooner than `PULSE_S` after the last."""
        while True:
            try:
                async with asyncio.timeout(REST_S):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()
            if self._lookers:
                frame = self._frame()
                for one in self._lookers:
                    one.show(frame)
            await asyncio.sleep(PULSE_S)

    def _frame(self) -> bytes:
        self.frames += 1
        body = msgspec.json.encode({"versions": self._versions, "status": self._state()})
        return b"event: pulse\ndata: " + body + b"\n\n"


class Looker:
    """Holds the newest frame only."""

    def __init__(self) -> None:
        self._frame = b""
        self._there = asyncio.Event()

    def show(self, frame: bytes) -> None:
        self._frame = frame
        self._there.set()

    async def frame(self) -> bytes:
        """The next frame that was not taken yet."""
        await self._there.wait()
        self._there.clear()
        return self._frame
