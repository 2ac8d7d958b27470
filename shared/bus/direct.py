"""nats-py's connection, straight: what is read is heard at once, and what is said is written at once.

Between its socket and who hears nats-py puts a queue and a task for each subscription, and between who speaks and the
socket another one. A bar passes a dozen of these. It is a fifth to a third of what a service does with a message.
"""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

AT_ONCE_BYTES = 65_536  # written without waiting for the socket
Ear = Callable[[str, str, bytes, bytes], None]  # subject, reply, head and payload of a message


class DirectClient(Client):
    """It overrides two of nats-py's inner methods, which is one reason why pyproject.toml holds its version."""

    def __init__(self) -> None:
        super().__init__()
        self._ears: dict[int, Ear] = {}  # by the number of the subscription
        self._will_write = False

    async def listen(self, subject: str, ear: Ear) -> Subscription:
        """Subscribe; `ear` is called as soon as a message is read, and must not wait."""
        subscription = await self.subscribe(subject, cb=_nobody)
        self._ears[subscription._id] = ear  # pyright: ignore[reportPrivateUsage]
        return subscription

    async def deafen(self, subscription: Subscription) -> None:
        """End what `listen` began."""
        self._ears.pop(subscription._id, None)  # pyright: ignore[reportPrivateUsage]
        await subscription.unsubscribe()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # None where it says bytes
        ear = self._ears.get(sid)
        if ear is None:
            await super()._process_msg(sid, subject, reply, data, headers)  # pyright: ignore[reportArgumentType]
        else:
            ear(subject.decode(), reply.decode(), headers or b"", data)

    async def _flush_pending(self, force_flush: bool = False) -> Any:
        if force_flush or not self.is_connected or self._pending_data_size > AT_ONCE_BYTES:
            return await super()._flush_pending(force_flush)
        if not self._will_write:
            self._will_write = True
            asyncio.get_running_loop().call_soon(self._write)
        return None

    def _write(self) -> None:
        """All that was said in this turn of the loop, at once. What cannot be written waits for the reconnect."""
        self._will_write = False
        if self._transport is not None and self.is_connected and self._pending:
            self._transport.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0


async def _nobody(_message: Msg) -> None:
    """Never called: the ear has it."""
