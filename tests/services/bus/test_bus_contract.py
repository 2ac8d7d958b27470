"""What every bus promises. One suite, two siblings."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.bus.bus import ARTIFACT_BYTES, Bus, Delivery, Outgoing
from shared.bus.memory import MemoryBus, MemoryServer
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.errors import BadMessage, TryAgain
from shared.contracts.market import BarClosed
from shared.contracts.operations import Parked
from shared.contracts.subjects import BAR_CLOSED, GAP_FOUND, MD, OPS, PARKED
from shared.contracts.wire import message_id, open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.listening import Effects, Listener
from shared.runtime.logs import correlation
from shared.runtime.store import Store

START = datetime(2024, 1, 1, tzinfo=UTC)


def bar(number: int, symbol: str = "BTC-USDT") -> BarClosed:
    opened_at = START + number * timedelta(minutes=1)
    return BarClosed(
        venue="sim",
        symbol=symbol,
        timeframe="1m",
        opened_at=opened_at,
        closed_at=opened_at + timedelta(minutes=1),
        open=100.0,
        high=101.0,
        low=99.0,
        close=100.0 + number % 2,
        volume=1.0,
    )


def outgoing(message: BarClosed) -> Outgoing:
    return Outgoing(BAR_CLOSED.of(message), pack(wrap(message, "ingester")), message_id(message))


async def publish(bus: Bus, batch: list[Outgoing]) -> None:
    """As who uses a bus does: what was not acknowledged in time is published again, and is not stored twice."""
    while True:
        try:
            await bus.publish(batch)
            return
        except TryAgain:
            continue


Connect = Callable[[], Awaitable[Bus]]


@pytest.fixture(params=["memory", "nats"])
async def connect(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Connect]:
    """Makes connections to one server."""
    made: list[Bus] = []
    if request.param == "memory":
        memory = MemoryServer()

        async def connect_memory() -> Bus:
            made.append(MemoryBus(memory))
            return made[-1]

        yield connect_memory
    else:
        server = Server(tmp_path / "nats")
        await server.start()

        async def connect_nats() -> Bus:
            nats = await NatsBus.connect(server.url, "test")
            await nats.ensure_streams()
            made.append(nats)
            return nats

        yield connect_nats
    for bus in made:
        await bus.close()
    if request.param == "nats":
        server.stop()


@pytest.fixture
async def bus(connect: Connect) -> Bus:
    return await connect()


class Ear:
    """Keeps what it was given and tells when there is enough."""

    def __init__(self) -> None:
        self.heard: list[Delivery] = []
        self._more = asyncio.Event()

    async def take(self, batch: list[Delivery]) -> None:
        self.heard += batch
        self._more.set()

    async def until(self, count: int) -> list[Delivery]:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self._more.clear()
                await self._more.wait()
        return self.heard


async def test_messages_come_in_the_order_in_which_they_were_published(bus: Bus) -> None:
    ear = Ear()
    await publish(bus, [outgoing(bar(n)) for n in range(300)])
    await bus.consume("engine", MD, [BAR_CLOSED.wildcard], ear.take, lambda: None)
    await publish(bus, [outgoing(bar(n)) for n in range(300, 700)])

    heard = await ear.until(700)

    assert [unpack(d.payload).id for d in heard] == [message_id(bar(n)) for n in range(700)]
    assert all(a.stored_at <= b.stored_at for a, b in itertools.pairwise(heard))


async def test_who_lets_batches_gather_misses_nothing_and_hears_what_comes_alone_at_once(bus: Bus) -> None:
    ear = Ear()
    await publish(bus, [outgoing(bar(n)) for n in range(300)])  # more than a batch
    await bus.consume("ops_api", MD, [BAR_CLOSED.wildcard], ear.take, lambda: None, lambda: 0.05)
    await ear.until(300)
    for n in range(300, 340):
        await publish(bus, [outgoing(bar(n))])

    heard = await ear.until(340)

    assert [unpack(d.payload).id for d in heard] == [message_id(bar(n)) for n in range(340)]


async def test_who_is_waited_for_lets_nothing_gather(bus: Bus) -> None:
    ear = Ear()
    await bus.consume("param_controller", MD, [BAR_CLOSED.wildcard], ear.take, lambda: None, lambda: 3600.0)
    await publish(bus, [outgoing(bar(0))])
    await ear.until(1)  # from here on it would gather for an hour

    bus.hurry()
    await publish(bus, [outgoing(bar(1))])

    assert [unpack(d.payload).id for d in await ear.until(2)] == [message_id(bar(0)), message_id(bar(1))]


async def test_who_stops_hearing_is_told_no_more(bus: Bus) -> None:
    first: asyncio.Queue[bytes] = asyncio.Queue()
    second: asyncio.Queue[bytes] = asyncio.Queue()
    stop = await bus.hear("progress.engine", lambda _, payload: first.put_nowait(payload))
    await bus.hear("progress.engine", lambda _, payload: second.put_nowait(payload))
    await bus.say("progress.engine", b"bar 7")
    async with asyncio.timeout(5):
        assert [await first.get(), await second.get()] == [b"bar 7", b"bar 7"]

        await stop()
        await bus.say("progress.engine", b"bar 8")

        assert await second.get() == b"bar 8"
    assert first.empty()


async def test_publishing_nothing_is_no_error(bus: Bus) -> None:
    await bus.publish([])


async def test_the_same_message_id_is_stored_once(bus: Bus) -> None:
    ear = Ear()
    await publish(bus, [outgoing(bar(1)), outgoing(bar(1))])
    await publish(bus, [outgoing(bar(1)), outgoing(bar(2))])
    await bus.consume("engine", MD, [BAR_CLOSED.wildcard], ear.take, lambda: None)

    heard = await ear.until(2)

    assert [unpack(d.payload).id for d in heard] == [message_id(bar(1)), message_id(bar(2))]


async def test_a_listener_hears_only_what_it_asked_for(bus: Bus) -> None:
    ear = Ear()
    await bus.consume("engine", MD, ["md.bar.sim.ETH-USDT.*"], ear.take, lambda: None)
    await publish(bus, [outgoing(bar(1)), outgoing(bar(1, "ETH-USDT")), outgoing(bar(2)), outgoing(bar(2, "ETH-USDT"))])

    heard = await ear.until(2)

    assert {d.subject for d in heard} == {"md.bar.sim.ETH-USDT.1m"}


async def test_two_services_hear_the_same_message_independently(bus: Bus) -> None:
    engine, ml_service = Ear(), Ear()
    await bus.consume("engine", MD, [BAR_CLOSED.wildcard], engine.take, lambda: None)
    await bus.consume("ml_service", MD, [BAR_CLOSED.wildcard], ml_service.take, lambda: None)
    await publish(bus, [outgoing(bar(1))])

    assert len(await engine.until(1)) == len(await ml_service.until(1)) == 1


async def test_delivery_can_begin_at_a_moment_in_the_stream(bus: Bus) -> None:
    first, second = Ear(), Ear()
    await bus.consume("engine", MD, [BAR_CLOSED.wildcard], first.take, lambda: None)
    await publish(bus, [outgoing(bar(1))])
    await first.until(1)
    await asyncio.sleep(0.01)  # stream time moves on; there is no event for that
    await publish(bus, [outgoing(bar(2)), outgoing(bar(3))])
    since = (await first.until(3))[1].stored_at

    await bus.consume("ml_service", MD, [BAR_CLOSED.wildcard], second.take, lambda: since)

    heard = await second.until(2)
    assert message_id(bar(1)) not in [unpack(d.payload).id for d in heard]


async def test_what_is_said_is_heard_by_who_listens_now(bus: Bus) -> None:
    heard: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
    await bus.hear("progress.*", lambda subject, payload: heard.put_nowait((subject, payload)))

    await bus.say("progress.engine", b"bar 7")

    assert await asyncio.wait_for(heard.get(), 5) == ("progress.engine", b"bar 7")


async def test_an_artifact_is_kept_whole_and_a_missing_one_is_none(bus: Bus) -> None:
    content = bytes(range(256)) * 2048

    await bus.put_artifact("a" * 64, content)

    assert len(content) == ARTIFACT_BYTES
    assert await bus.get_artifact("a" * 64) == content
    assert await bus.get_artifact("b" * 64) is None


async def test_an_artifact_above_the_limit_is_refused_with_its_size(bus: Bus) -> None:
    with pytest.raises(BadMessage, match="at most 524,288 bytes"):
        await bus.put_artifact("a", b"x" * (ARTIFACT_BYTES + 1))


async def test_what_a_listener_raises_is_told_to_who_watches_the_bus(bus: Bus) -> None:
    async def take(batch: list[Delivery]) -> None:
        raise RuntimeError("the listener broke")

    await bus.consume("engine", MD, [BAR_CLOSED.wildcard], take, lambda: None)
    await publish(bus, [outgoing(bar(1))])

    with pytest.raises(RuntimeError, match="the listener broke"):
        await asyncio.wait_for(bus.failed(), 5)


async def listener_on(bus: Bus, service: str, store: Store) -> tuple[Listener, asyncio.Task[None]]:
    listener = Listener(service, bus, store, VenueClock())
    await listener.recover()
    return listener, asyncio.create_task(listener.pump())


async def test_a_message_that_comes_twice_has_its_effect_once(bus: Bus) -> None:
    store = await Store.open(None, ["create table seen (opened_at text)"])
    listener, pump = await listener_on(bus, "engine", store)
    done = asyncio.Event()

    async def on_bar(message: BarClosed, effects: Effects) -> None:
        effects.execute("insert into seen values (?)", message.opened_at.isoformat())
        if message == bar(2):
            effects.afterwards(done.set)

    await listener.listen({BAR_CLOSED: on_bar})
    first = outgoing(bar(1))
    await publish(bus, [first])
    await publish(bus, [Outgoing(first.subject, first.payload, "another id on the stream"), outgoing(bar(2))])
    await asyncio.wait_for(done.wait(), 5)

    assert await store.rows("select opened_at from seen") == [(bar(n).opened_at.isoformat(),) for n in (1, 2)]
    assert listener.counters["duplicates"] == 1
    pump.cancel()
    await store.close()


async def test_effects_that_were_kept_are_told_even_if_the_bus_was_away_when_they_were_made(bus: Bus) -> None:
    store = await Store.open(None)
    writer = Listener("ingester", bus, store, VenueClock())
    await writer.recover()

    async def work(effects: Effects) -> None:
        effects.publish(BAR_CLOSED, bar(1))

    await writer.act(work)  # nobody pumps: as if the process had died here
    ear = Ear()
    await bus.consume("engine", MD, [BAR_CLOSED.wildcard], ear.take, lambda: None)
    _, pump = await listener_on(bus, "ingester", store)

    assert open_envelope(unpack((await ear.until(1))[0].payload), BarClosed) == bar(1)
    pump.cancel()
    await store.close()


async def test_what_cannot_be_read_is_parked_with_its_reason_and_the_next_message_goes_on(bus: Bus) -> None:
    store = await Store.open(None)
    listener, pump = await listener_on(bus, "engine", store)
    ear, got = Ear(), asyncio.Event()

    async def on_bar(message: BarClosed, effects: Effects) -> None:
        effects.afterwards(got.set)

    await listener.listen({BAR_CLOSED: on_bar, GAP_FOUND: on_bar})
    await bus.consume("ops_api", OPS, [PARKED.wildcard], ear.take, lambda: None)
    await publish(bus, [Outgoing("md.bar.sim.BTC-USDT.1m", b"\xc1 not a message", "1"), outgoing(bar(1))])

    parked = open_envelope(unpack((await ear.until(1))[0].payload), Parked)
    await asyncio.wait_for(got.wait(), 5)
    assert parked.payload == b"\xc1 not a message"
    assert "Expected an envelope" in parked.reason
    pump.cancel()
    await store.close()


async def test_a_start_goes_on_behind_the_last_message_that_was_committed(connect: Connect, tmp_path: Path) -> None:
    heard: list[int] = []
    reached: dict[int, asyncio.Event] = {3: asyncio.Event(), 6: asyncio.Event()}

    async def on_bar(message: BarClosed, effects: Effects) -> None:
        number = (message.opened_at - START) // timedelta(minutes=1)
        heard.append(number)
        if number in reached:
            effects.afterwards(reached[number].set)

    for last, fresh in ((3, range(1, 4)), (6, range(4, 7))):
        bus, store = await connect(), await Store.open(tmp_path / "engine.sqlite")
        listener, pump = await listener_on(bus, "engine", store)
        await publish(bus, [outgoing(bar(n)) for n in fresh])
        await listener.listen({BAR_CLOSED: on_bar})
        await asyncio.wait_for(reached[last].wait(), 10)
        pump.cancel()
        await bus.close()
        await store.close()

    assert sorted(heard) == heard == sorted(set(heard)) == [1, 2, 3, 4, 5, 6]


async def test_what_a_handler_logs_names_the_message_that_began_the_story(bus: Bus) -> None:
    store = await Store.open(None)
    listener, pump = await listener_on(bus, "engine", store)
    named: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def on_bar(message: BarClosed, effects: Effects) -> None:
        named.set_result(correlation.get())

    await listener.listen({BAR_CLOSED: on_bar})
    await publish(bus, [outgoing(bar(1))])

    assert await asyncio.wait_for(named, 5) == message_id(bar(1))
    pump.cancel()
    await store.close()
