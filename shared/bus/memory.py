"""A bus inside one process, for tests and closed-loop backtests. It keeps every promise of `NatsBus` but survival."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, TypeVar

from shared.bus.bus import ARTIFACT_BYTES, Deaf, Delivery, Linger, Outgoing, Since, Take
from shared.contracts.errors import BadMessage
from shared.contracts.subjects import STREAMS, Stream, Subject
from shared.contracts.wire import Message, open_envelope, unpack

M = TypeVar("M", bound=Message)

BATCH = 256
TICK = timedelta(microseconds=1)


class _Ear(NamedTuple):
    words: list[str]
    take: Callable[[str, bytes], None]


class MemoryServer:
    """What several buses of one process share: streams as lists, blobs, and ears. Its time is a counter."""

    def __init__(self) -> None:
        self.streams: dict[str, list[Delivery]] = {stream.name: [] for stream in STREAMS}
        self.seen: dict[str, set[str]] = {stream.name: set() for stream in STREAMS}
        self.stream_of = {root: stream.name for stream in STREAMS for root in stream.roots}
        self.artifacts: dict[str, bytes] = {}
        self.ears: list[_Ear] = []
        self.more: list[asyncio.Event] = []
        self.now = datetime(1970, 1, 1, tzinfo=UTC)

    def said(self, subject: Subject[M]) -> list[M]:
        """All that was said under this subject, oldest first. Only what a stream keeps is remembered."""
        if subject.stream is None:
            return []
        envelopes = [unpack(delivery.payload) for delivery in self.streams[subject.stream.name]]
        return [open_envelope(one, subject.message) for one in envelopes if one.type == subject.message.__name__]


class MemoryBus:
    """One service's connection to a `MemoryServer`; without one it makes its own."""

    def __init__(self, server: MemoryServer | None = None) -> None:
        self.server = server or MemoryServer()
        self._tasks: list[asyncio.Task[None]] = []
        self._ears: list[_Ear] = []
        self._failure: asyncio.Future[None] | None = None
        self._is_closed = False
        self._is_stopping = False

    @property
    def is_connected(self) -> bool:
        return not self._is_closed

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        server = self.server
        for subject, payload, message_id in batch:
            name = server.stream_of.get(subject.split(".", 1)[0])
            if name is None:
                known = ", ".join(server.streams)
                raise BadMessage(f"Expected a subject of one of the streams {known}, was {subject!r}.")
            if message_id in server.seen[name]:
                continue
            server.seen[name].add(message_id)
            server.now += TICK
            server.streams[name].append(Delivery(subject, payload, server.now))
        for event in server.more:
            event.set()

    async def consume(
        self, name: str, stream: Stream, filters: Sequence[str], take: Take, since: Since, linger: Linger | None = None
    ) -> None:
        event = asyncio.Event()
        self.server.more.append(event)
        words = [f.split(".") for f in filters]
        self._tasks.append(asyncio.create_task(self._deliver(stream.name, words, take, since(), event), name=name))

    async def _deliver(
        self, stream: str, filters: list[list[str]], take: Take, since: datetime | None, more: asyncio.Event
    ) -> None:
        messages, at = self.server.streams[stream], 0
        try:
            while not self._is_stopping:
                more.clear()
                batch: list[Delivery] = []
                while at < len(messages) and len(batch) < BATCH:
                    message = messages[at]
                    at += 1
                    fresh = since is None or message.stored_at >= since
                    if fresh and any(matches(f, message.subject) for f in filters):
                        batch.append(message)
                if batch:
                    await take(batch)
                    await asyncio.sleep(0)  # the others' turn: taking may never have waited
                elif at == len(messages):
                    await more.wait()
        except Exception as error:  # noqa: BLE001  # handed to whoever awaits `failed`
            failure = self._failed()
            if not failure.done():
                failure.set_exception(error)

    def hurry(self) -> None:
        """Nothing gathers here: a process that takes turns with itself gains nothing by it."""

    async def say(self, subject: str, payload: bytes) -> None:
        for ear in list(self.server.ears):
            if matches(ear.words, subject):
                ear.take(subject, payload)

    async def hear(self, subject_filter: str, take: Callable[[str, bytes], None]) -> Deaf:
        ear = _Ear(subject_filter.split("."), take)
        self._ears.append(ear)
        self.server.ears.append(ear)

        async def stop() -> None:
            self._ears = [other for other in self._ears if other is not ear]
            self.server.ears = [other for other in self.server.ears if other is not ear]

        return stop

    async def put_artifact(self, name: str, content: bytes) -> None:
        if len(content) > ARTIFACT_BYTES:
            raise BadMessage(f"An artifact must be at most {ARTIFACT_BYTES:,} bytes, {name} was {len(content):,}.")
        self.server.artifacts[name] = content

    async def get_artifact(self, name: str) -> bytes | None:
        return self.server.artifacts.get(name)

    def _failed(self) -> asyncio.Future[None]:
        if self._failure is None:
            self._failure = asyncio.get_running_loop().create_future()
        return self._failure

    async def failed(self) -> None:
        await asyncio.shield(self._failed())

    async def stop_delivery(self, timeout_s: float) -> None:
        self._is_stopping = True
        for event in self.server.more:
            event.set()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def close(self) -> None:
        self._is_closed = True
        self.server.ears = [ear for ear in self.server.ears if ear not in self._ears]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._failure is not None and self._failure.done():
            self._failure.exception()  # whoever wanted it has seen it


def matches(words: list[str], subject: str) -> bool:
    """Whether a subject matches a filter's words: `*` is one word, a last `>` one or more."""
    spoken = subject.split(".")
    for at, word in enumerate(words):
        if word == ">":
            return len(spoken) > at
        if at >= len(spoken) or (word != "*" and word != spoken[at]):
            return False
    return len(spoken) == len(words)
