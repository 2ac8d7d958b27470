"""From a bar on NATS to a decision, and from there to a durable intent: ratios in one run, recorded, never failing.

pytest tests/benchmarks/test_engine_speed.py -s
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from services.engine.desk import Decided, Desk, Series
from services.engine.executor import Executor
from services.engine.orders import Order
from shared.bus.bus import Outgoing
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.subjects import BAR_CLOSED
from shared.contracts.wire import pack, wrap
from shared.regimes.reader import Reading
from shared.runtime.listening import Effects
from shared.runtime.store import Statement, Store
from shared.trading.values import Bar
from tests.pure.engine.house import bars, house_of

BARS = 300
DECIDED_GOAL = 2.5  # times a request-reply of nats-py
DURABLE_GOAL = 1.5  # times a FULL commit of one row


class Stopwatch:
    """Notes when the engine has decided, and when it may send."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.decided: list[float] = []
        self.durable: list[float] = []
        decide, send = Desk.decide, Executor.send

        def timed_decide(desk: Desk, series: Series, bar: Bar, reading: Reading, is_history: bool) -> Iterator[Decided]:
            yield from list(decide(desk, series, bar, reading, is_history))
            self.decided.append(time.perf_counter())

        async def timed_send(executor: Executor, orders: Iterable[Order], effects: Effects) -> None:
            self.durable.append(time.perf_counter() - self.decided[-1])
            await send(executor, orders, effects)

        monkeypatch.setattr(Desk, "decide", timed_decide)
        monkeypatch.setattr(Executor, "send", timed_send)


async def test_a_bar_is_decided_within_a_few_request_replies(
    nats_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Stopwatch(monkeypatch)
    told: list[float] = []
    async with house_of(tmp_path, monkeypatch) as house:
        bus = await NatsBus.connect(nats_server.url, "engine")
        await bus.ensure_streams()
        await house.up(bus=bus, daily_loss_pct=99.0, drawdown_pct=99.0, loss_streak=10_000, orders_per_minute=10_000)
        for bar in bars(*[99.0 if at % 4 < 2 else 101.0 for at in range(BARS)]):  # an order on every other bar
            envelope = wrap(bar, "test")
            told.append(time.perf_counter())
            await bus.publish([Outgoing(BAR_CLOSED.of(bar), pack(envelope), envelope.id)])
            await house.until(lambda progress, bar=bar: progress.at.get("BTC-USDT.1m") == bar_ms(bar), is_told=False)
        request_reply = await _request_reply(nats_server.url)
        commit = await _full_commit(tmp_path / "row.sqlite")
    to_decided = [decided - said for said, decided in zip(told, watch.decided, strict=True)]
    decided, durable = statistics.median(to_decided), statistics.median(watch.durable)
    print(
        f"\nbar on NATS -> decided: p50 {decided * 1e6:.0f} µs = {decided / request_reply:.2f} request-replies of "
        f"{request_reply * 1e6:.0f} µs (goal {DECIDED_GOAL})"
        f"\ndecided -> intent durable: p50 {durable * 1e6:.0f} µs = {durable / commit:.2f} FULL commits of "
        f"{commit * 1e6:.0f} µs (goal {DURABLE_GOAL}), {len(watch.durable)} orders"
    )
    assert len(watch.decided) == BARS and len(watch.durable) > BARS / 4


def bar_ms(bar: Any) -> int:
    return int(bar.opened_at.timestamp() * 1000)


async def _request_reply(url: str) -> float:
    """p50 of asking and being answered, between two connections."""
    asking, answering = Client(), Client()
    await asking.connect(url)
    await answering.connect(url)

    async def answer(message: Msg) -> None:
        await message.respond(message.data)

    await answering.subscribe("echo", cb=answer)
    await answering.flush()
    took: list[float] = []
    for _ in range(BARS):
        began = time.perf_counter()
        await asking.request("echo", b"x" * 300)
        took.append(time.perf_counter() - began)
    await asking.close()
    await answering.close()
    return statistics.median(took)


async def _full_commit(path: Path) -> float:
    """p50 of one row, durable."""
    store = await Store.open(path, ("create table rows (content blob)",), "FULL")
    took: list[float] = []
    for _ in range(BARS):
        await asyncio.sleep(0)
        began = time.perf_counter()
        await store.commit([Statement("insert into rows values (?)", (b"x" * 300,))])
        took.append(time.perf_counter() - began)
    await store.close()
    return statistics.median(took)
