"""From a bar on NATS to a decision, and from there to a durable intent: ratios in one run, recorded, never failing.

pytest tests/benchmarks/test_engine_speed.py -s
"""

from __future__ import annotations

import asyncio
import sqlite3
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
from shared.trading.values import Bar
from tests.pure.engine.house import bars, house_of

BARS = 300
CHUNK = 20
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


class PlainCommits:
    """One row, durable, by SQLite alone."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        for pragma in ("journal_mode=wal", "synchronous=FULL"):
            self._db.execute(f"pragma {pragma}")
        self._db.execute("create table rows (content blob)")
        self._took: list[float] = []

    async def take(self, count: int, pause_s: float) -> None:
        """So many, with this pause before each: a core and a disk that rested are slower."""
        for _ in range(count):
            await asyncio.sleep(pause_s)
            began = time.perf_counter()
            self._db.execute("begin immediate")
            self._db.execute("insert into rows values (?)", (b"x" * 300,))
            self._db.execute("commit")
            self._took.append(time.perf_counter() - began)

    @property
    def p50(self) -> float:
        return statistics.median(self._took)


async def test_a_bar_is_decided_within_a_few_request_replies(
    nats_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Stopwatch(monkeypatch)
    told: list[float] = []
    async with house_of(tmp_path, monkeypatch) as house:
        bus = await NatsBus.connect(nats_server.url, "engine")
        await bus.ensure_streams()
        await house.up(bus=bus, daily_loss_pct=99.0, drawdown_pct=99.0, loss_streak=10_000, orders_per_minute=10_000)
        market = bars(*[99.0 if at % 4 < 2 else 101.0 for at in range(BARS)])  # an order on every other bar
        commit, hurried = PlainCommits(tmp_path / "rhythm.sqlite"), PlainCommits(tmp_path / "hurried.sqlite")
        for chunk in (
            market[at : at + CHUNK] for at in range(0, BARS, CHUNK)
        ):  # in turns, because the disk is not ours alone
            began = time.perf_counter()
            for bar in chunk:
                envelope = wrap(bar, "test")
                told.append(time.perf_counter())
                await bus.publish([Outgoing(BAR_CLOSED.of(bar), pack(envelope), envelope.id)])
                await house.until(
                    lambda progress, bar=bar: progress.at.get("BTC-USDT.1m") == bar_ms(bar), is_told=False
                )
            await commit.take(CHUNK, pause_s=(time.perf_counter() - began) / CHUNK)
            await hurried.take(CHUNK, pause_s=0.0)
        request_reply = await _request_reply(nats_server.url)
    to_decided = [decided - said for said, decided in zip(told, watch.decided, strict=True)]
    decided, durable = statistics.median(to_decided), statistics.median(watch.durable)
    print(
        f"\nbar on NATS -> decided: p50 {decided * 1e6:.0f} µs = {decided / request_reply:.2f} request-replies of "
        f"{request_reply * 1e6:.0f} µs (goal {DECIDED_GOAL})"
        f"\ndecided -> intent durable: p50 {durable * 1e6:.0f} µs = {durable / commit.p50:.2f} FULL commits of "
        f"{commit.p50 * 1e6:.0f} µs (goal {DURABLE_GOAL}), or {durable / hurried.p50:.2f} of {hurried.p50 * 1e6:.0f} µs, one right "
        f"after the other; {len(watch.durable)} orders"
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
