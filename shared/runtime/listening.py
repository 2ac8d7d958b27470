"""From the bus to a handler and back, once: inbox, effects and outbox in one transaction, then the ack.

What cannot be read is parked in `dlq.<stream>` with its reason. A handler that raises `BadMessage` has its message
parked too; `TryAgain` is tried again in place, so that order holds; any other error ends the service, and a start
goes on from what was committed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog

from shared.bus.bus import Bus, Delivery, Linger, Outgoing
from shared.bus.memory import matches
from shared.contracts import subjects
from shared.contracts.errors import BadMessage, TryAgain
from shared.contracts.operations import Parked
from shared.contracts.subjects import Stream, Subject
from shared.contracts.times import from_ms, to_ms
from shared.contracts.wire import Envelope, Message, message_id, open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.logs import correlation
from shared.runtime.store import Statement, Store, forget_heard, heard, keep_fact, position, to_tell

M = TypeVar("M", bound=Message)
Handler = Callable[[Any, "Effects"], Awaitable[None]]

MARGIN = timedelta(seconds=2)  # a stream is taken again from this much before its position; the inbox knows the rest
RETRY_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
RECENT_IDS = 100_000  # of the inbox, kept in memory: 15 MB at the most
UNWRITTEN = 256  # rows on messages that led to nothing, which are written with what comes next, at most
ROUND = 256  # messages that the pump publishes together
OUTBOX_KEPT = 20_000  # rows that were told and are kept, to tell a lost stream tail again
OUTBOX_FULL = 1000  # rows waiting above which progress is held back

log = structlog.get_logger("trimtab.listening")


class Effects:
    """What handling a batch of messages leads to. Kept in one transaction; told after it."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._statements: list[Statement] = []
        self._after: list[Callable[[], None]] = []
        self._told: list[Outgoing] = []
        self.is_nothing = True  # but for having heard
        self.must_last = False  # a handled message asks for the disk
        self.can_come_again = False  # the one that is being handled does not
        self.cause: Envelope | None = None  # the message that is being handled

    def execute(self, sql: str, *values: Any) -> None:
        """Write this with everything else."""
        self.add(Statement(sql, values))

    def keep_fact(self, name: str, value: bytes) -> None:
        """Keep a small value by name (see `Store.fact`)."""
        self.add(keep_fact(name, value))

    def publish(self, subject: Subject[M], message: M) -> Envelope:
        """Tell this after the commit, exactly once. Returns what is told."""
        envelope = wrap(message, self._listener.service, self.cause)
        outgoing = Outgoing(subject.of(message), pack(envelope), envelope.id)
        self._told.append(outgoing)
        self.add(to_tell(outgoing))
        return envelope

    def afterwards(self, call: Callable[[], None]) -> None:
        """Call this when the commit is done: to tell progress, to wake someone."""
        self._after.append(call)

    def comes_again(self) -> None:
        """The message that is being handled may be heard again: the same follows from it, under the same ids (ADR 6).

        Its commit need not wait for the disk: a power cut takes it back with all that it led to and the stream's
        position. If nothing was written for it, it is not committed by itself at all.
        """
        self.can_come_again = True

    async def flush(self) -> None:
        """Commit what there is so far, the message that is being handled included: it will not come again.

        For intents that must be durable before something leaves the house; a start must look after them.
        """
        self.must_last = True
        await self._listener.commit(self)

    def take(self) -> tuple[list[Statement], list[Outgoing], list[Callable[[], None]]]:
        """Hand over what has gathered, and begin empty."""
        taken = self._statements, self._told, self._after
        self._statements, self._told, self._after = [], [], []
        return taken

    def add(self, *statements: Statement) -> None:
        """Statements made elsewhere."""
        self._statements.extend(statements)
        self.is_nothing &= not statements

    def note(self, statement: Statement) -> None:
        """What was heard, or how far: of no use to anybody without an effect."""
        self._statements.append(statement)


class Listener:
    """Everything that one service hears and says."""

    def __init__(self, service: str, bus: Bus, store: Store, clock: VenueClock) -> None:
        self.service = service
        self._bus, self._store, self._clock = bus, store, clock
        self._turn = asyncio.Lock()  # handlers of one service never run at the same time
        self._positions: dict[str, datetime] = {}
        self._more = asyncio.Event()
        self._told_up_to = 0
        self._to_tell: list[Outgoing] = []  # written to the outbox, not acknowledged yet
        self._drained = asyncio.Event()
        self._batches = 0
        self._recent: dict[str, None] = {}  # a dict keeps the order
        self._unwritten: list[Statement] = []  # that something was heard which led to nothing
        self._inbox_is_in_memory = True
        self.counters: dict[str, int] = defaultdict(int)

    async def recover(self) -> None:
        """Read back how far we had come: stream positions and the outbox."""
        self._positions = await self._store.positions()
        self._recent = dict.fromkeys(await self._store.inbox(RECENT_IDS + 1))
        self._let_go()
        told = await self._store.fact("outbox.told")
        self._told_up_to = 0 if told is None else int(told)
        self._to_tell = await self._store.outbox_after(self._told_up_to)
        now = await self._store.fact("clock.now")
        if now is not None:
            self._clock.saw(from_ms(int(now)))
        self._more.set()

    @property
    def waiting_to_be_told(self) -> int:
        """Rows of the outbox that were not acknowledged yet."""
        return len(self._to_tell)

    async def listen(self, handlers: Mapping[Subject[Any], Handler], linger: Linger | None = None) -> None:
        """Hear these subjects from where we left off, each stream in its order."""
        by_stream: dict[Stream, list[tuple[Subject[Any], Handler]]] = defaultdict(list)
        for subject, handler in handlers.items():
            if subject.stream is None:
                raise ValueError(f"{subject.template} is on core NATS: hear it, do not listen to it.")
            by_stream[subject.stream].append((subject, handler))
        for stream, heard_here in by_stream.items():
            await self._bus.consume(
                self.service,
                stream,
                [subject.wildcard for subject, _ in heard_here],
                self._taker(stream, heard_here),
                lambda stream=stream: self._since(stream),
                linger,
            )

    def _since(self, stream: Stream) -> datetime | None:
        known = self._positions.get(stream.name)
        return None if known is None else known - MARGIN

    def _taker(
        self, stream: Stream, heard_here: list[tuple[Subject[Any], Handler]]
    ) -> Callable[[list[Delivery]], Awaitable[None]]:
        routes = [(subject.wildcard.split("."), subject, handler) for subject, handler in heard_here]
        by_subject: dict[str, tuple[Subject[Any], Handler]] = {}

        def route(spoken: str) -> tuple[Subject[Any], Handler] | None:
            found = by_subject.get(spoken)
            if found is None:
                for words, subject, handler in routes:
                    if matches(words, spoken):
                        found = by_subject[spoken] = subject, handler
                        break
            return found

        async def take(batch: list[Delivery]) -> None:
            async with self._turn:
                await self._handle(stream, batch, route)

        return take

    async def _handle(
        self,
        stream: Stream,
        batch: list[Delivery],
        route: Callable[[str], tuple[Subject[Any], Handler] | None],
    ) -> None:
        effects = Effects(self)
        opened: list[tuple[Delivery, Envelope]] = []
        for delivery in batch:
            try:
                opened.append((delivery, unpack(delivery.payload)))
            except BadMessage as error:
                self._park(effects, stream, delivery, error)
        known = await self._heard_before([envelope.id for _, envelope in opened])
        for delivery, envelope in opened:
            found = route(delivery.subject)
            self._clock.saw(from_ms(envelope.at // 1_000_000))
            if found is None or envelope.id in known:
                self.counters["duplicates"] += 1
                continue
            known.add(envelope.id)
            self._recent[envelope.id] = None
            effects.cause, effects.can_come_again = envelope, False
            effects.note(heard(envelope.id, delivery.stored_at))
            subject, handler = found
            try:
                message = open_envelope(envelope, subject.message)
                if subject.of(message) != delivery.subject:
                    raise BadMessage(f"Expected {subject.of(message)}, came on {delivery.subject}.")
                story = correlation.set(envelope.correlation)
                try:
                    await self._patiently(handler, message, effects)
                finally:
                    correlation.reset(story)
                effects.must_last |= not effects.can_come_again
                self.counters["handled"] += 1
            except BadMessage as error:
                self._park(effects, stream, delivery, error)
        effects.cause = None
        self._let_go()
        self._positions[stream.name] = batch[-1].stored_at
        effects.note(position(stream.name, batch[-1].stored_at))
        self._batches += 1
        if self._batches % 500 == 0:
            effects.add(forget_heard(min(self._positions.values())))
        await self.commit(effects)

    async def _heard_before(self, ids: list[str]) -> set[str]:
        """Those of these that were heard before. The file is asked only for what memory may have let go."""
        known = {one for one in ids if one in self._recent}
        if self._inbox_is_in_memory:
            return known
        return known | await self._store.heard([one for one in ids if one not in known])

    def _let_go(self) -> None:
        while len(self._recent) > RECENT_IDS:
            del self._recent[next(iter(self._recent))]
            self._inbox_is_in_memory = False

    async def _patiently(self, handler: Handler, message: Message, effects: Effects) -> None:
        for attempt in range(1_000_000):
            try:
                await handler(message, effects)
                return
            except TryAgain as error:
                pause = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                log.warning("handler.retry", message=message_id(message), attempt=attempt + 1, error=str(error))
                await asyncio.sleep(pause)

    def _park(self, effects: Effects, stream: Stream, delivery: Delivery, error: BadMessage) -> None:
        self.counters["parked"] += 1
        log.warning("message.parked", subject=delivery.subject, reason=str(error))
        effects.publish(
            subjects.PARKED,
            Parked(
                stream=stream.name,
                subject=delivery.subject,
                heard_by=self.service,
                reason=str(error)[:2000],
                payload=delivery.payload[:100_000],
                payload_sha256=hashlib.sha256(delivery.payload).hexdigest(),
                at=self._clock.now(),
            ),
        )

    async def commit(self, effects: Effects) -> None:
        """One transaction; then what waits for it is called, and the pump is woken.

        What may come again and led to nothing is written with what comes next: a crash has it heard again.
        """
        statements, told, after = effects.take()
        self._unwritten += statements
        if effects.must_last or not effects.is_nothing or len(self._unwritten) >= UNWRITTEN:
            await self._store.commit(self._unwritten, must_last=effects.must_last)
            self._unwritten = []
        effects.is_nothing, effects.must_last = True, False
        if told:
            self._to_tell += told
            self._more.set()
        for call in after:
            call()

    async def act(self, work: Callable[[Effects], Awaitable[None]]) -> None:
        """Do something that no message caused (a route, a finished training) by the same rules, in its turn."""
        async with self._turn:
            effects = Effects(self)
            await work(effects)
            effects.must_last = True
            await self.commit(effects)

    async def pump(self) -> None:
        """Publish the outbox, in order, in rounds; for ever. A round that was not acknowledged is published again."""
        marked = self._told_up_to
        while True:
            await self._more.wait()
            self._more.clear()
            while self._to_tell:
                some = self._to_tell[:ROUND]
                try:
                    await self._bus.publish(some)
                except TryAgain as error:
                    self.counters["publish_retries"] += 1
                    log.info("outbox.retry", rows=len(some), error=str(error))
                    await asyncio.sleep(0.05)
                    continue
                del self._to_tell[: len(some)]
                self._told_up_to += len(some)
                if self._told_up_to - marked >= 4 * ROUND:
                    marked = self._told_up_to
                    await self._mark()
            self._drained.set()

    async def _mark(self) -> None:
        """Remember how far the outbox was told. Lost by a crash, it only means telling some of it again."""
        await self._store.commit(
            [
                keep_fact("outbox.told", str(self._told_up_to).encode()),
                Statement("delete from outbox where seq < ?", (self._told_up_to - OUTBOX_KEPT,)),
            ],
            must_last=False,
        )

    def wake(self) -> None:
        """The bus is back: publish at once what waits."""
        self._more.set()

    async def drain(self, timeout_s: float) -> None:
        """Wait until the outbox is told, at most this long, and remember how far."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.waiting_to_be_told > 0:
                    self._drained.clear()
                    self._more.set()
                    await self._drained.wait()
        except TimeoutError:
            log.warning("outbox.left", rows=self.waiting_to_be_told)
        async with self._turn:
            await self._store.commit(
                [
                    *self._unwritten,
                    keep_fact("outbox.told", str(self._told_up_to).encode()),
                    keep_fact("clock.now", str(to_ms(self._clock.now())).encode()),
                ]
            )
