"""kill -9 at any moment: no order and no fill is lost, doubled or unknown, and the books are the venue's account."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from services.engine.orders import Order
from services.venue_sim.exchange import Order as VenueOrder
from services.venue_sim.exchange import Trade
from services.venue_sim.local import LocalVenue, local_venue
from services.venue_sim.settings import VenueSettings
from shared.bus.bus import Outgoing
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.execution import TradeFill
from shared.contracts.instruments import to_binance
from shared.contracts.market import BarClosed
from shared.contracts.operations import Progress
from shared.contracts.subjects import BAR_CLOSED
from shared.contracts.times import from_ms, to_ms
from shared.contracts.wire import open_envelope, pack, unpack, wrap
from tests.pure.engine.house import MINUTE

pytestmark = pytest.mark.timeout(100)

SYMBOLS = ("BTC-USDT", "ETH-USDT")
KILLS = 3  # a slice: 1,000 in the long campaign
BARS_A_LIFE = 4
ENGINE = """
import sys
from services.engine.service import SERVICE
from shared.runtime.process import run
sys.exit(run(SERVICE, SERVICE.settings.load()))
"""
# In and out on every bar: an order of each instrument is always under way.
RESTLESS = '''
from typing import NamedTuple

from shared.trading.kernel import kernel
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long


class Params(NamedTuple):
    share: float = 0.5


class State(NamedTuple):
    bars: int


@kernel
def start(p: Params) -> State:
    return State(0)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Long on every other bar."""
    return State(s.bars + 1), long(p.share) if s.bars % 2 else flat()


STRATEGY = strategy("restless", Params, start, step, bounds={"share": (0.1, 1.0)}, warmup=lambda p: 1)
'''


class Process:
    """The engine as a process of its own, and what it says of its progress."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self._process: asyncio.subprocess.Process | None = None
        self._at: dict[str, int] = {}
        self._spoke = asyncio.Event()

    def on_progress(self, _subject: str, payload: bytes) -> None:
        self._at = open_envelope(unpack(payload), Progress).at
        self._spoke.set()

    async def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", ENGINE, env=self._environment, stdout=out, stderr=out
            )

    async def end(self, how: signal.Signals) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(how)
            await self._process.wait()

    async def until_at(self, opened_ms: int) -> None:
        """Wait until it has come to this bar of every instrument."""
        assert self._process is not None
        ended = asyncio.ensure_future(self._process.wait())
        try:
            async with asyncio.timeout(30):
                while any(self._at.get(f"{symbol}.1m", -1) < opened_ms for symbol in SYMBOLS):
                    self._spoke.clear()
                    spoke = asyncio.ensure_future(self._spoke.wait())
                    await asyncio.wait({spoke, ended}, return_when=asyncio.FIRST_COMPLETED)
                    spoke.cancel()
                    assert not ended.done(), self._log.read_text()[-3000:]
        finally:
            ended.cancel()


@asynccontextmanager
async def engine_process(folder: Path, nats_url: str, venue_url: str) -> AsyncIterator[Process]:
    (folder / "strategies").mkdir()
    (folder / "strategies" / "restless.py").write_text(RESTLESS, encoding="utf-8")
    own = {key: value for key, value in os.environ.items() if not key.startswith("TRIMTAB_")}
    process = Process(
        {
            **own,
            "TRIMTAB_DATA_DIR": str(folder),
            "TRIMTAB_NATS_URL": nats_url,
            "TRIMTAB_VENUE": "sim",
            "TRIMTAB_VENUE_URL": venue_url,
            "TRIMTAB_PORT_BASE": "0",
            "TRIMTAB_STRATEGIES": str(folder / "strategies"),
            "TRIMTAB_ENGINE_STRATEGIES": "restless",
            "TRIMTAB_ENGINE_SYMBOLS": ",".join(SYMBOLS),
            "TRIMTAB_ENGINE_RECV_WINDOW_MS": "1000",
            "TRIMTAB_ENGINE_DAILY_LOSS_PCT": "99",
            "TRIMTAB_ENGINE_LOSS_STREAK": "1000",
            "TRIMTAB_ENGINE_ORDERS_PER_MINUTE": "1000",
        },
        folder / "engine.log",
    )
    await process.start()
    try:
        yield process
    finally:
        await process.end(signal.SIGKILL)


async def closed_candles(client: httpx.AsyncClient, since_ms: int) -> list[BarClosed]:
    """The newest closed candle of each instrument after `since_ms`, once there is one."""
    found: list[BarClosed] = []
    for symbol in SYMBOLS:
        params: dict[str, Any] = {"symbol": to_binance(symbol), "interval": "1m", "startTime": since_ms + 1}
        # The venue steps in a task of its own, and over HTTP there is no event to wait for.
        while not (rows := (await client.get("/api/v3/klines", params=params)).raise_for_status().json()[:-1]):  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        at = from_ms(rows[-1][0])
        prices = dict(zip(("open", "high", "low", "close", "volume"), map(float, rows[-1][1:6]), strict=True))
        found.append(
            BarClosed(venue="sim", symbol=symbol, timeframe="1m", opened_at=at, closed_at=at + MINUTE, **prices)
        )
    return found


async def test_kill_nine_at_any_moment_loses_and_doubles_nothing(nats_server: Server, tmp_path: Path) -> None:
    chance = random.Random(5)
    settings = VenueSettings(speed="max", lockstep=("engine",), history_bars=30, symbols=SYMBOLS)
    bus = await NatsBus.connect(nats_server.url, "test")
    await bus.ensure_streams()
    async with (
        local_venue(settings) as market,
        httpx.AsyncClient(base_url=market.url, verify=False) as client,
        engine_process(tmp_path, nats_server.url, market.url) as engine,
    ):
        await bus.hear("progress.engine", engine.on_progress)
        last_ms = 0
        for life in range(KILLS + 1):
            for bar in range(BARS_A_LIFE):
                bars = await closed_candles(client, last_ms)
                last_ms = to_ms(bars[0].opened_at)
                envelopes = [(bar, wrap(bar, "test")) for bar in bars]
                await bus.publish([Outgoing(BAR_CLOSED.of(bar), pack(e), e.id) for bar, e in envelopes])
                if bar == BARS_A_LIFE - 1 and life < KILLS:
                    await asyncio.sleep(
                        chance.uniform(0.0, 0.03)
                    )  # anywhere between hearing a bar and having sent for it
                    await engine.end(signal.SIGKILL)
                    await engine.start()
                await engine.until_at(last_ms)
                await market.say_progress("engine", {f"{symbol}.1m": last_ms for symbol in SYMBOLS})
        await engine.end(signal.SIGTERM)
        await compare(market, tmp_path / "engine.sqlite", bars_told=(KILLS + 1) * BARS_A_LIFE)
    await bus.close()


async def compare(market: LocalVenue, path: Path, bars_told: int) -> None:
    """The engine's rows against the venue's."""
    store = market.host.store
    venue_orders = [
        msgspec.json.decode(row[0], type=VenueOrder) for row in await store.rows("select content from orders")
    ]
    venue_trades = [msgspec.json.decode(row[0], type=Trade) for row in await store.rows("select content from trades")]
    with closing(sqlite3.connect(path)) as ours:
        orders = [msgspec.msgpack.decode(c, type=Order) for (c,) in ours.execute("select content from orders")]
        fills = [msgspec.msgpack.decode(c, type=TradeFill) for (c,) in ours.execute("select content from fills")]
        decided = ours.execute(
            "select series, count(*), count(distinct opened_ms) from bars group by series"
        ).fetchall()
    assert decided == [(f"{symbol}.1m", bars_told, bars_told) for symbol in SYMBOLS]
    sent = {order.order_id: order for order in orders if order.state != "lost"}
    assert {order.client_id for order in venue_orders} == sent.keys() and len(venue_orders) == len(sent)
    assert {order.state for order in sent.values()} == {"filled"}
    assert len(sent) >= bars_told
    # One order a sleeve and bar, whatever happened on the way.
    assert len({(order.sleeve, order.decided_ms) for order in sent.values()}) == len(sent)
    assert sorted((t.symbol, str(t.id), t.quantity, t.price, t.fee) for t in venue_trades) == sorted(
        (f.symbol, f.trade_id, f.quantity, f.price, f.fee) for f in fills
    )
    spent = sum((f.quantity * f.price * (1 if f.side == "buy" else -1) for f in fills), Decimal(0))
    fees = sum((f.fee for f in fills if f.fee_asset == "USDT"), Decimal(0))
    (free, locked) = (await store.rows("select free, locked from balances where asset = 'USDT'"))[0]
    assert Decimal(free) + Decimal(locked) == 10_000 - spent - fees
