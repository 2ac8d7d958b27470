"""What a bus can do. Two siblings do it: `NatsBus` between processes, `MemoryBus` inside one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from shared.contracts.subjects import Stream

ARTIFACT_BYTES = 512 * 1024  # one key-value entry; larger blobs are refused


class Outgoing(NamedTuple):
    """One message on its way out. The same `message_id` within the stream's window is stored once."""

    subject: str
    payload: bytes
    message_id: str


class Delivery(NamedTuple):
    """One message as it came in. `stored_at` is the stream's own time of it: never decreasing within a stream."""

    subject: str
    payload: bytes
    stored_at: datetime


Take = Callable[[list[Delivery]], Awaitable[None]]
Since = Callable[[], datetime | None]
Linger = Callable[[], float]  # seconds
Deaf = Callable[[], Awaitable[None]]  # ends what `hear` began


class Bus(Protocol):
    """Durable messages in streams, loose ones beside them, and small blobs by name."""

    @property
    def is_connected(self) -> bool:
        """Whether messages can flow at this moment."""
        ...

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        """Store all of these, in order. Returns when each is acknowledged; raises TryAgain when one was not in time,
        and then all may be published again: those that were stored are not stored twice."""
        ...

    async def consume(
        self, name: str, stream: Stream, filters: Sequence[str], take: Take, since: Since, linger: Linger | None = None
    ) -> None:
        """Deliver the stream's messages that match, in order, in batches of at most 256, to `take`, from now on.

        At each start and after each reconnect delivery begins anew at `since()` (None: at the stream's beginning), so
        the order holds whatever was under way; who takes must know what it has already taken. Who is in no hurry lets
        the next batch gather for `linger()` seconds, asked after each. What `take` raises ends the bus: see `failed`.
        """
        ...

    def hurry(self) -> None:
        """Whatever gathers now is delivered at once, and so is the first message that comes then."""
        ...

    async def say(self, subject: str, payload: bytes) -> None:
        """Say it to whoever listens now. May be lost."""
        ...

    async def hear(self, subject_filter: str, take: Callable[[str, bytes], None]) -> Deaf:
        """Call `take(subject, payload)` for what is said from now on, until what is returned is called."""
        ...

    async def put_artifact(self, name: str, content: bytes) -> None:
        """Keep a blob of at most `ARTIFACT_BYTES` under this name."""
        ...

    async def get_artifact(self, name: str) -> bytes | None:
        """The blob kept under this name, or None."""
        ...

    async def failed(self) -> None:
        """Returns never; raises what ended a consumption or the connection for good. The service watches it."""
        ...

    async def stop_delivery(self, timeout_s: float) -> None:
        """Let the batches that are under way finish, for at most this long, and deliver no more."""
        ...

    async def close(self) -> None:
        """Leave."""
        ...
