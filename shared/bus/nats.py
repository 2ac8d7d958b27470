"""The bus between processes: a thin layer over nats-py. Streams in JetStream, blobs in its key-value store.

How streams are read is next door in pull.py, how nats-py is spoken to in direct.py.
"""

# pyright: reportUnknownMemberType=false
# nats-py annotates its arguments, not the options that it passes on.

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import nats
import nats.errors
from nats.js import JetStreamContext
from nats.js.api import (
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import KeyNotFoundError, NotFoundError
from nats.js.kv import KeyValue

from shared.bus.bus import ARTIFACT_BYTES, Deaf, Linger, Outgoing, Since, Take
from shared.bus.direct import DirectClient
from shared.bus.pull import Pull
from shared.contracts.errors import BadMessage, NeedsOperator, TryAgain
from shared.contracts.subjects import STREAMS, Stream

log = logging.getLogger("trimtab.bus")

PUBLISH_TIMEOUT_S = 0.4  # bounds the gap after a server's death: a publish that waits for its ack holds the pump
CONSUMER_TIMEOUT_S = 0.4  # the same, of a consumer that is asked for while JetStream still starts; asked again
DEDUPE_WINDOW_S = 600.0
LEAST_VERSION = (2, 10, 26)  # older ones lose streams on kill -9 (nats-server #6888)
BUCKET = "artifacts"


class NatsBus:
    """A connection that never gives up, and says honestly whether it is up."""

    def __init__(self, client: DirectClient) -> None:
        self._client = client
        self._streams: JetStreamContext = client.jetstream(timeout=5.0)
        self._quick: JetStreamContext = client.jetstream(timeout=CONSUMER_TIMEOUT_S)
        self._pulls: list[Pull] = []
        self._receipts = _Receipts(client)
        self._bucket: KeyValue | None = None
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closing = False
        self._on_reconnect: list[Callable[[], None]] = []

    @classmethod
    async def connect(cls, url: str, name: str, user: str = "", password: str = "") -> NatsBus:
        """Connect and check the server. Raises NeedsOperator when it is too old or refuses us, TryAgain when absent."""
        client = DirectClient()
        bus_box: list[NatsBus] = []

        refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

        async def on_error(error: Exception) -> None:
            if not bus_box and not refused.done():
                refused.set_result(error)
            elif bus_box:
                log.warning("nats: %s", str(error) or type(error).__name__)

        async def on_disconnect() -> None:
            if not (bus_box and bus_box[0]._closing):
                log.warning("nats: disconnected, reconnecting")

        async def on_reconnect() -> None:
            log.info("nats: reconnected")
            for bus in bus_box:
                bus._reconnected()

        async def on_close() -> None:
            for bus in bus_box:
                bus._closed()

        options: dict[str, Any] = {"user": user, "password": password} if user else {}
        connecting = asyncio.ensure_future(
            client.connect(
                url,
                name=name,
                connect_timeout=2,
                allow_reconnect=True,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.1,  # pyright: ignore[reportArgumentType]  # declared int, slept as it is
                ping_interval=20,
                error_cb=on_error,
                disconnected_cb=on_disconnect,
                reconnected_cb=on_reconnect,
                closed_cb=on_close,
                **options,
            )
        )
        # Left alone the first connect tries for ever as well; the first refusal tells us what to say.
        await asyncio.wait({connecting, refused}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done() or connecting.exception() is not None:
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            await client.close()
            error = refused.result() if refused.done() else connecting.exception()
            if "authorization" in str(error).lower():
                raise NeedsOperator(f"NATS at {_shown(url)} refused the user {user or '(none)'}: {error}.") from error
            raise TryAgain(f"No NATS at {_shown(url)}: {error or type(error).__name__}. Is it running?") from error
        version = client.connected_server_version
        if (version.major, version.minor, version.patch) < LEAST_VERSION:
            await client.close()
            raise NeedsOperator(
                f"nats-server must be at least {'.'.join(map(str, LEAST_VERSION))}, "
                f"was {version.major}.{version.minor}.{version.patch} at {_shown(url)}."
            )
        bus = cls(client)
        bus_box.append(bus)
        return bus

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected

    async def ensure_streams(self) -> None:
        """Make the streams and the artifact bucket that are missing. Done by who has the right: the launcher."""
        for stream in STREAMS:
            wanted = StreamConfig(
                name=stream.name,
                subjects=stream.filters,
                retention=RetentionPolicy.LIMITS,
                storage=StorageType.FILE,
                max_age=stream.max_age.total_seconds(),
                max_bytes=stream.max_bytes,
                duplicate_window=DEDUPE_WINDOW_S,
            )
            try:
                await self._streams.stream_info(stream.name)
            except NotFoundError:
                await self._streams.add_stream(wanted)
            else:
                await self._streams.update_stream(wanted)
        try:
            await self._streams.key_value(BUCKET)
        except NotFoundError:
            await self._streams.create_key_value(
                KeyValueConfig(bucket=BUCKET, history=1, max_value_size=ARTIFACT_BYTES, max_bytes=256 * 1024 * 1024)
            )

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        if batch:
            await self._receipts.publish(batch)

    async def consume(
        self, name: str, stream: Stream, filters: Sequence[str], take: Take, since: Since, linger: Linger | None = None
    ) -> None:
        pull = Pull(self._client, self._quick, name, stream.name, list(filters), take, since, linger)
        self._pulls.append(pull)
        pull.start().add_done_callback(self._pull_ended)

    def hurry(self) -> None:
        for pull in self._pulls:
            pull.hurry()

    def _pull_ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failure.done():
            return
        error = task.exception()
        if error is not None:
            self._failure.set_exception(error)

    def _reconnected(self) -> None:
        for pull in self._pulls:
            pull.begin_anew()
        for call in self._on_reconnect:
            call()

    def on_reconnect(self, call: Callable[[], None]) -> None:
        """Call this after each reconnect: what waits for an answer may ask again."""
        self._on_reconnect.append(call)

    def _closed(self) -> None:
        if not self._closing and not self._failure.done():
            self._failure.set_exception(TryAgain("The connection to NATS was closed for good."))

    async def say(self, subject: str, payload: bytes) -> None:
        if self._client.is_connected:  # else it would be buffered, and be late: what is said here may be lost
            await self._client.publish(subject, payload)

    async def hear(self, subject_filter: str, take: Callable[[str, bytes], None]) -> Deaf:
        subscription = await self._client.listen(
            subject_filter, lambda subject, _reply, _head, data: take(subject, data)
        )
        return lambda: self._client.deafen(subscription)

    async def put_artifact(self, name: str, content: bytes) -> None:
        if len(content) > ARTIFACT_BYTES:
            raise BadMessage(f"An artifact must be at most {ARTIFACT_BYTES:,} bytes, {name} was {len(content):,}.")
        try:
            await (await self._artifacts()).put(name, content)
        except (nats.errors.TimeoutError, nats.errors.Error) as error:
            raise TryAgain(f"The artifact {name} could not be kept: {error or type(error).__name__}") from error

    async def get_artifact(self, name: str) -> bytes | None:
        try:
            return (await (await self._artifacts()).get(name)).value
        except KeyNotFoundError:
            return None
        except nats.errors.Error as error:
            raise TryAgain(f"The artifact {name} could not be read: {error or type(error).__name__}") from error

    async def _artifacts(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._streams.key_value(BUCKET)
        return self._bucket

    async def failed(self) -> None:
        await asyncio.shield(self._failure)

    async def stop_delivery(self, timeout_s: float) -> None:
        await asyncio.gather(*(pull.finish(timeout_s) for pull in self._pulls))

    async def close(self) -> None:
        self._closing = True
        for pull in self._pulls:
            await pull.stop()
        if self._failure.done() and not self._failure.cancelled():
            self._failure.exception()  # whoever wanted it has seen it
        await self._client.close()


class _Receipts:
    """Publishes, and hears JetStream's word on each message, all on one subscription. No task and no timer a message."""

    def __init__(self, client: DirectClient) -> None:
        self._client = client
        self._inbox = ""
        self._numbers = itertools.count()
        self._awaited: dict[str, asyncio.Future[bytes]] = {}  # by the subject on which the word comes

    async def publish(self, batch: Sequence[Outgoing]) -> None:
        """See `Bus.publish`; at least one message."""
        if not self._inbox:
            self._inbox = self._client.new_inbox()
            await self._client.listen(f"{self._inbox}.*", self._on_receipt)
        loop = asyncio.get_running_loop()
        receipts = {f"{self._inbox}.{next(self._numbers)}": loop.create_future() for _ in batch}
        self._awaited |= receipts
        message = batch[0]
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                for subject, message in zip(receipts, batch, strict=True):
                    headers = {"Nats-Msg-Id": message.message_id}
                    await self._client.publish(message.subject, message.payload, subject, headers)
                for receipt, message in zip(receipts.values(), batch, strict=True):
                    _check_receipt(message, await receipt)
        except (nats.errors.Error, TimeoutError) as error:
            raise TryAgain(f"{message.subject} was not acknowledged: {error or type(error).__name__}") from error
        finally:
            for subject in receipts:
                self._awaited.pop(subject, None)

    def _on_receipt(self, subject: str, _reply: str, _head: bytes, data: bytes) -> None:
        receipt = self._awaited.get(subject)
        if receipt is not None and not receipt.done():
            receipt.set_result(data)


def _check_receipt(message: Outgoing, said: bytes) -> None:
    """Raise when it is none: no data where no stream takes the subject, or while JetStream is away."""
    if not said:
        raise TryAgain(f"{message.subject} was not acknowledged: no stream takes it now")
    error = json.loads(said).get("error") if b'"error"' in said else None
    if error is not None:
        raise BadMessage(f"{message.subject} was refused by JetStream: {error.get('description', error)}")


def _shown(url: str) -> str:
    """The address without a password that may stand in it."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rsplit('@', 1)[-1]}" if rest else url


async def connect_when_there(
    url: str, name: str, user: str = "", password: str = "", timeout_s: float = 30.0
) -> NatsBus:
    """Connect, asking again while nobody answers. Raises NeedsOperator after `timeout_s`."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            return await NatsBus.connect(url, name, user, password)
        except TryAgain as error:
            if asyncio.get_running_loop().time() > deadline:
                raise NeedsOperator(f"{error} Waited {timeout_s:.0f} s.") from error
            await asyncio.sleep(0.1)
