"""The engine trades through real ccxt on the simulated venue: its books and the venue's account are the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.engine.ccxt_venue import CcxtVenue
from services.engine.venue import Ticket
from services.venue_sim.local import LocalVenue, local_venue
from services.venue_sim.settings import VenueSettings
from shared.bus.memory import MemoryBus
from shared.contracts import subjects
from shared.contracts.instruments import to_binance
from shared.contracts.market import BarClosed
from shared.contracts.times import from_ms, to_ms
from tests.pure.engine.house import MINUTE, House, house_of
from tests.services.engine.line import Line, line_to

pytestmark = pytest.mark.timeout(60)

SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
HISTORY = 150
LIVELY = 11  # a seed whose first hour has many trades


class Trading:
    """A house whose engine trades at a venue, and what feeds it: the venue's own candles, bar by bar."""

    def __init__(self, house: House, market: LocalVenue, line: Line) -> None:
        self.house, self.market, self.line = house, market, line
        self._client = httpx.AsyncClient(base_url=market.url, verify=False)
        self._last: dict[str, int] = dict.fromkeys(SYMBOLS, -1)
        self.venues: list[CcxtVenue] = []

    async def up(self, **settings: Any) -> None:
        venue = CcxtVenue(
            "sim", base_url=self.line.url, api_key="sim", secret="sim", recv_window_ms=1000, is_local=True
        )
        self.venues.append(venue)
        await self.house.up(lambda desk, instruments: venue, venue.instruments, cash=Decimal(10_000), **settings)

    async def play(self, steps: int) -> None:
        """So many bars of every instrument. The venue steps when the engine has come to them: it hears its progress."""
        for _ in range(steps):
            closed = await asyncio.gather(*map(self._closed, SYMBOLS))
            await self.house.play([bar for bars in closed for bar in bars])

    async def _closed(self, symbol: str) -> list[BarClosed]:
        """The candles of this instrument that closed since the last time, once there is one."""
        while True:
            params: dict[str, Any] = {"symbol": to_binance(symbol), "interval": "1m", "limit": 1000}
            if self._last[symbol] >= 0:
                params["startTime"] = self._last[symbol] + 1
            rows = (await self._client.get("/api/v3/klines", params=params)).raise_for_status().json()[:-1]
            if rows:
                is_history = self._last[symbol] < 0
                self._last[symbol] = rows[-1][0]
                return [_bar(symbol, row, is_history) for row in rows]
            await asyncio.sleep(0.002)  # the venue has not stepped yet; over HTTP there is no event

    async def account(self) -> dict[str, Decimal]:
        balances = await self.venues[-1].balances()
        assert balances is not None
        return balances

    async def close(self) -> None:
        await self._client.aclose()


def _bar(symbol: str, row: list[Any], is_history: bool) -> BarClosed:
    opened_at = from_ms(row[0])
    prices = dict(zip(("open", "high", "low", "close", "volume"), map(float, row[1:6]), strict=True))
    return BarClosed(
        venue="sim",
        symbol=symbol,
        timeframe="1m",
        opened_at=opened_at,
        closed_at=opened_at + MINUTE,
        is_history=is_history,
        **prices,
    )


@asynccontextmanager
async def trading_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trading]:
    async with house_of(folder, monkeypatch, ("momentum", "trend_follow"), SYMBOLS) as house:
        settings = VenueSettings(speed="max", lockstep=("engine",), history_bars=HISTORY, symbols=SYMBOLS, seed=LIVELY)
        async with (
            local_venue(settings, bus=MemoryBus(house.server)) as market,
            line_to(market.url) as line,
        ):
            trading = Trading(house, market, line)
            try:
                yield trading
            finally:
                await house.down()
                await trading.close()


@pytest.fixture
async def trading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Trading]:
    async with trading_in(tmp_path, monkeypatch) as made:
        yield made


async def test_the_books_are_the_venues_account_to_the_last_unit(trading: Trading) -> None:
    await trading.up()

    await trading.play(60)

    house = trading.house
    status, sleeves, account = await house.status(), await house.get("/sleeves"), await trading.account()
    assert (status["bars_decided"], status["bars_missed"], status["bars_doubled"]) == (3 * 59, 0, 0)
    assert status["orders"] == status["fills"] > 3
    assert account["USDT"] == sum(Decimal(sleeve["cash"]) for sleeve in sleeves)
    for symbol in SYMBOLS:
        ours = sum(Decimal(s["quantity"]) + Decimal(s["dust"]) for s in sleeves if f".{symbol}." in s["sleeve"])
        assert account[symbol.split("-")[0]] == ours
    # And each fill is of the instant at which its signal was given: the open after the bar that closed.
    signals = {(s.strategy, s.symbol, s.closed_at) for s in house.said(subjects.SIGNAL)}
    assert {(f.strategy, f.symbol, f.at) for f in house.said(subjects.TRADE_FILL)} == signals


@pytest.mark.parametrize("cut", ["request", "answer"])
async def test_an_order_whose_answer_was_lost_on_the_line_is_there_once(trading: Trading, cut: Any) -> None:
    await trading.up()
    await trading.play(2)

    trading.line.cut = cut
    while trading.line.cut:
        await trading.play(1)
    await trading.play(5)

    orders = await trading.house.rows("select state, count(*) from orders group by state order by state")
    lost = dict(orders).pop("lost", 0)
    assert lost == (1 if cut == "request" else 0)
    assert set(dict(orders)) <= {"filled", "lost"}
    account, sleeves = await trading.account(), await trading.house.get("/sleeves")
    assert account["USDT"] == sum(Decimal(sleeve["cash"]) for sleeve in sleeves)


async def test_a_restart_goes_on_with_the_same_positions_and_the_venue_agrees(trading: Trading) -> None:
    await trading.up()
    await trading.play(25)
    before = await trading.house.get("/sleeves")
    states = await trading.house.rows("select sleeve, state from sleeves")

    await trading.house.down()
    await trading.up()

    assert await trading.house.get("/sleeves") == before
    assert await trading.house.rows("select sleeve, state from sleeves") == states
    await trading.play(10)
    account, sleeves = await trading.account(), await trading.house.get("/sleeves")
    assert account["USDT"] == sum(Decimal(sleeve["cash"]) for sleeve in sleeves)
    assert (await trading.house.get("/journal/verify"))["sound"]


async def test_what_others_do_with_the_account_stops_entries_until_a_person_looks(trading: Trading) -> None:
    await trading.up(reconcile_s=0.05)
    await trading.play(1)

    intruder = CcxtVenue(
        "sim", base_url=trading.market.url, api_key="sim", secret="sim", recv_window_ms=1000, is_local=True
    )
    try:
        await intruder.submit(Ticket(order_id="not-ours", symbol="BTC-USDT", side="buy", quantity=Decimal("0.01")))
    finally:
        await intruder.close()

    (trip,) = await trading.house.until_said(subjects.BREAKER_TRIPPED)
    assert (trip.breaker, trip.after) == ("ledger_mismatch", "paused")
    assert "BTC" in trip.reason and to_ms(trip.at) > 0
