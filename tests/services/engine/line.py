"""A line between ccxt and the venue that can be cut: before a request has arrived, or after, when its answer is on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Literal
from urllib.parse import urlsplit

Cut = Literal["", "request", "answer"]


class Line:
    """Forwards bytes. `cut` is what happens to the next new order; afterwards the line is whole again."""

    def __init__(self, venue_url: str) -> None:
        parts = urlsplit(venue_url)
        self._venue = (parts.hostname or "", parts.port or 0)
        self.url = ""
        self.cut: Cut = ""
        self.orders = 0  # that ccxt tried to send
        self._tasks: set[asyncio.Task[None]] = set()

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._venue)
        answers = asyncio.ensure_future(_pump(there, writer))
        self._tasks.add(answers)
        try:
            while chunk := await reader.read(65536):
                if chunk.startswith(b"POST /api/v3/order"):
                    self.orders += 1
                    cut, self.cut = self.cut, ""
                    if cut == "request":
                        break
                    if cut == "answer":
                        answers.cancel()
                        back.write(chunk)
                        await there.read(1)  # the venue has answered; nobody hears it
                        break
                back.write(chunk)
                await back.drain()
        finally:
            answers.cancel()
            self._tasks.discard(answers)
            writer.close()
            back.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def line_to(venue_url: str) -> AsyncIterator[Line]:
    """A whole line, until the end of the block."""
    line = Line(venue_url)
    server = await asyncio.start_server(line.take, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        server.close()
        await server.wait_closed()
