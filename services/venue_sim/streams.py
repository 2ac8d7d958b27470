"""Open websockets and what each is to be told. One queue and one sending task a socket: a slow reader holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState

QUEUE = 10_000  # frames a reader may lag behind before it is hung up on, as Binance does
TOO_SLOW = 1008  # policy violation
GOING_AWAY = 1001


class Socket:
    """One accepted websocket."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._frames: asyncio.Queue[bytes | int] = asyncio.Queue()
        self.streams: set[str] = set()

    def tell(self, message: dict[str, Any]) -> None:
        """Queue a message for this reader."""
        self.tell_bytes(msgspec.json.encode(message))

    def tell_bytes(self, frame: bytes) -> None:
        if self._frames.qsize() >= QUEUE:
            self.hang_up(TOO_SLOW)
        else:
            self._frames.put_nowait(frame)

    def hang_up(self, code: int = GOING_AWAY) -> None:
        """Close once what was told before is sent."""
        self._frames.put_nowait(code)

    async def send_for_ever(self) -> None:
        """Send what is told until the reader is gone or is hung up on."""
        while True:
            frame = await self._frames.get()
            if self._websocket.application_state is not WebSocketState.CONNECTED:
                return
            try:
                if isinstance(frame, int):
                    await self._websocket.close(frame)
                    return
                await self._websocket.send_text(frame.decode())
            except (WebSocketDisconnect, RuntimeError):
                return  # the reader left between two frames; whoever reads from it ends the connection


class Sockets:
    """All readers of one kind of stream."""

    def __init__(self) -> None:
        self._open: set[Socket] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def subscriptions(self) -> int:
        """How many streams are read, each counted for each reader."""
        return sum(len(socket.streams) for socket in self._open)

    def add(self, socket: Socket) -> None:
        self._open.add(socket)

    def remove(self, socket: Socket) -> None:
        self._open.discard(socket)

    def tell(self, stream: str, message: dict[str, Any]) -> None:
        """Tell everyone who subscribed to this stream."""
        self.tell_if(message, (socket for socket in self._open if stream in socket.streams))

    def tell_all(self, message: dict[str, Any]) -> None:
        self.tell_if(message, self._open)

    def tell_if(self, message: dict[str, Any], readers: Iterable[Socket]) -> None:
        frame: bytes | None = None
        for socket in readers:
            frame = frame or msgspec.json.encode(message)
            socket.tell_bytes(frame)

    def hang_up(self) -> None:
        """Close every connection of this kind."""
        for socket in self._open:
            socket.hang_up()
