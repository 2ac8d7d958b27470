"""Each service has a NATS user that can say what the table lets it say, hear what it lets it hear, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.bus.bus import Delivery, Outgoing
from shared.bus.nats import NatsBus
from shared.bus.server import LAUNCHER, Server, Users
from shared.contracts.errors import NeedsOperator, TryAgain
from shared.contracts.subjects import SERVICES, STREAMS, subject_of
from shared.contracts.wire import message_id, pack, unpack, wrap
from tests.pure.contracts.samples import SAMPLES


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[tuple[Server, Users]]:
    users = Users.load_or_draw(tmp_path / "users.json")
    server = Server(tmp_path / "nats", users)
    await server.start()
    launcher = await NatsBus.connect(server.url, LAUNCHER, LAUNCHER, users.passwords[LAUNCHER])
    await launcher.ensure_streams()
    await launcher.close()
    yield server, users
    server.stop()


async def test_every_service_can_say_and_hear_all_that_the_table_gives_it(house: tuple[Server, Users]) -> None:
    server, users = house
    buses = {name: await NatsBus.connect(server.url, name, name, users.passwords[name]) for name in SERVICES}
    wanted = {name: {message_id(s) for s in SAMPLES if name in subject_of(s).heard_by} for name in SERVICES}
    heard: dict[str, set[str]] = {name: set() for name in SERVICES}
    more = asyncio.Event()
    for name, bus in buses.items():

        async def take(batch: list[Delivery], name: str = name) -> None:
            heard[name] |= {unpack(delivery.payload).id for delivery in batch}
            more.set()

        def hear(_subject: str, payload: bytes, name: str = name) -> None:
            heard[name].add(unpack(payload).id)
            more.set()

        mine = [subject_of(s) for s in SAMPLES if name in subject_of(s).heard_by]
        for stream in STREAMS:
            if filters := [subject.wildcard for subject in mine if subject.stream == stream]:
                await bus.consume(name, stream, filters, take, lambda: None)
        for subject in mine:
            if subject.stream is None:
                await bus.hear(subject.wildcard, hear)
        await bus.put_artifact(f"of_{name}", b"blob")
        assert await buses["engine"].get_artifact(f"of_{name}") == b"blob"
    for sample in SAMPLES:
        subject = subject_of(sample)
        for name in subject.spoken_by:
            payload = pack(wrap(sample, name))
            if subject.stream is None:
                await buses[name].say(subject.of(sample), payload)
            else:
                await buses[name].publish([Outgoing(subject.of(sample), payload, message_id(sample))])

    async with asyncio.timeout(20):
        while any(wanted[name] - heard[name] for name in SERVICES):
            more.clear()
            await more.wait()
    assert heard == wanted
    for bus in buses.values():
        await bus.close()


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "engine"])
async def test_nobody_but_the_engine_gets_an_order_onto_the_bus(house: tuple[Server, Users], name: str) -> None:
    server, users = house
    order = next(s for s in SAMPLES if type(s).__name__ == "OrderSubmitted")
    bus = await NatsBus.connect(server.url, name, name, users.passwords[name])

    with pytest.raises(TryAgain, match="was not acknowledged"):
        await bus.publish([Outgoing(subject_of(order).of(order), pack(wrap(order, name)), "1")])

    await bus.close()


async def test_a_wrong_password_is_a_matter_for_a_person(house: tuple[Server, Users]) -> None:
    with pytest.raises(NeedsOperator, match="refused the user engine"):
        await NatsBus.connect(house[0].url, "engine", "engine", "guess")


async def test_a_dead_server_is_named_with_its_address_and_without_its_password() -> None:
    with pytest.raises(TryAgain, match=r"No NATS at nats://127\.0\.0\.1:9: .*Is it running\?") as told:
        await NatsBus.connect("nats://anna:secret@127.0.0.1:9", "engine")

    assert "secret" not in str(told.value)
