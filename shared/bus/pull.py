"""One service's place in one stream.

Two things are done differently from nats-py's own subscriptions, both for order and speed:

- A consumer is made anew at each start and reconnect, from the time of the last message that was taken, and nothing is
  acknowledged. Otherwise what was lost with a connection comes back only after its ack time-out, behind newer messages.
- One long pull is kept open, answered into a queue. `fetch` asks twice a batch and costs 0.28 of the speed. Who lets
  batches gather asks for all that is there, now and then: one burst is one wake-up, of the server as well.
"""

# pyright: reportUnknownMemberType=false

from __future__ import annotations

import asyncio
import json
import logging
from datetime import datetime, timedelta

import nats.errors
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError

from shared.bus.bus import Delivery, Linger, Since, Take
from shared.bus.direct import DirectClient, Ear
from shared.contracts.times import EPOCH

log = logging.getLogger("trimtab.bus")

BATCH = 256
PULL_EXPIRES_S = 5.0
HEARTBEAT_S = 1.0
MISSED_S = 2.5 * HEARTBEAT_S  # silence after which the pull is asked again
ROUNDING = timedelta(microseconds=2)  # the stream counts in nanoseconds
VERSION, STATUS = b"NATS/1.0 ", slice(9, 12)  # how the head of a status begins, and where its number stands


class Pull:
    """One long pull on one consumer, answered into a queue, begun anew on reconnect and when the server falls silent."""

    def __init__(
        self,
        client: DirectClient,
        streams: JetStreamContext,
        name: str,
        stream: str,
        filters: list[str],
        take: Take,
        since: Since,
        linger: Linger | None,
    ) -> None:
        self._linger = linger
        self._hurried = asyncio.Event()
        self._client, self._streams = client, streams
        self._name, self._stream, self._filters = name, stream, filters
        self._take, self._since = take, since
        self._queue: list[Delivery] = []
        self._asking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._anew = True
        self._finishing = False
        self._inbox = ""  # a new one each time we begin: what the old one still carries is not ours any more
        self._asked = 0
        self._left = 0
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> asyncio.Task[None]:
        self._task = asyncio.create_task(self._run(), name=f"consume {self._stream}")
        return self._task

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def finish(self, timeout_s: float) -> None:
        """Let the batch that is under way be taken, and deliver no more."""
        self._finishing = True
        self._wake.set()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)

    def begin_anew(self) -> None:
        """Delivery starts over from what was taken last."""
        self._anew = True
        self._wake.set()

    async def _run(self) -> None:
        while not self._finishing:
            if self._anew:
                await self._begin()
                continue
            batch = await self._next()
            if batch:
                await self._take(batch)
                await asyncio.sleep(0)  # the others' turn: taking may never have waited
                if self._linger is not None:
                    await self._gather(self._linger())

    def hurry(self) -> None:
        """Who waits for what is taken here should not wait for a batch to gather."""
        self._hurried.set()

    async def _gather(self, linger_s: float) -> None:
        """Let the next batch gather for so long, unless somebody hurries us; then ask for it."""
        if linger_s > 0.0:
            try:
                async with asyncio.timeout(linger_s):
                    await self._hurried.wait()
            except TimeoutError:
                pass
        self._hurried.clear()
        if not self._anew:
            await self._ask()

    async def _next(self) -> list[Delivery]:
        """What is queued, at least one message; empty when delivery begins anew."""
        try:
            async with asyncio.timeout(MISSED_S):
                await self._wake.wait()
        except TimeoutError:
            if self._client.is_connected:  # else the reconnect begins anew
                self._anew = True
            return []
        if self._anew or self._finishing:
            return []
        batch, self._queue = self._queue[:BATCH], self._queue[BATCH:]
        if not self._queue:
            self._wake.clear()
        return batch

    async def _begin(self) -> None:
        """Make the consumer from where we are, and ask."""
        self._wake.clear()
        try:
            if self._subscription is not None:
                await self._client.deafen(self._subscription)
                self._subscription = None
            try:
                await self._streams.delete_consumer(self._stream, self._name)
            except NotFoundError:
                pass
            since = self._since()
            await self._streams.add_consumer(
                self._stream,
                ConsumerConfig(
                    durable_name=self._name,
                    filter_subjects=self._filters,
                    deliver_policy=DeliverPolicy.ALL if since is None else DeliverPolicy.BY_START_TIME,
                    opt_start_time=None if since is None else since - ROUNDING,
                    ack_policy=AckPolicy.NONE,  # our own position is the record, see ADR 4 ...
                    mem_storage=True,  # ... and the server need not write a file of its own about it
                ),
            )
            self._queue = []
            self._inbox = self._client.new_inbox()
            self._subscription = await self._client.listen(f"{self._inbox}.*", self._listener(self._inbox))
            await self._ask()
        except (nats.errors.Error, APIError, TimeoutError) as error:
            log.warning("nats: consumer %s on %s is not there yet: %s", self._name, self._stream, error)
            try:  # a reconnect wakes us at once
                async with asyncio.timeout(0.2):
                    await self._wake.wait()
            except TimeoutError:
                pass
        else:
            self._anew = False

    async def _ask(self) -> None:
        self._left = BATCH
        self._asked += 1
        request = {"batch": BATCH, "expires": int(PULL_EXPIRES_S * 1e9), "idle_heartbeat": int(HEARTBEAT_S * 1e9)}
        if self._linger is not None:  # all that is there, else the first that comes; then this pull is over
            request["no_wait"] = True
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        await self._client.publish(subject, json.dumps(request).encode(), f"{self._inbox}.{self._asked}")

    def _listener(self, inbox: str) -> Ear:
        def on_message(subject: str, reply: str, head: bytes, data: bytes) -> None:
            if inbox != self._inbox:
                return
            status = head[STATUS] if head.startswith(VERSION) else b""
            if not status.isdigit():
                self._queue.append(Delivery(subject, data, _stored_at(reply)))
                self._left -= 1
                if self._linger is None or self._left <= 0:
                    self._wake.set()
                if self._linger is None and self._left <= 0:  # a used-up pull sends no status: count
                    self._ask_beside()
            elif status == b"100":
                if not self._queue and not self._anew:
                    self._wake.set()  # a heartbeat: the server is there
            elif status == b"409" and b"Consumer Deleted" in head:
                self.begin_anew()
            elif subject == f"{inbox}.{self._asked}":  # 404, 408, 409: this pull is over
                if self._linger is not None and self._queue:
                    self._wake.set()  # what had gathered; asked again some time after it is taken
                else:
                    self._ask_beside()

        return on_message

    def _ask_beside(self) -> None:
        self._asking = asyncio.create_task(self._ask())


def _stored_at(reply: str) -> datetime:
    """The stream's time of a message: `$JS.ACK.<stream>.<consumer>.<delivered>.<seq>.<consumer seq>.<ns>.<pending>`,
    behind a domain and an account with some servers, and before a token of theirs."""
    words = reply.split(".")
    nanoseconds = int(words[7] if len(words) == 9 else words[9])
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)
