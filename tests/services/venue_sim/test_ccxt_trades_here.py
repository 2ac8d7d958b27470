"""Real ccxt, REST and websockets, trades on the simulated venue from end to end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from ccxt.base import errors

from services.venue_sim.local import LocalVenue, local_venue
from services.venue_sim.settings import VenueSettings
from shared.runtime.ccxt_binance import make_binance

STEPPED: dict[str, Any] = {
    "speed": "max",
    "lockstep": ("engine",),
    "history_bars": 120,
    "symbols": ("BTC-USDT", "ETH-USDT"),
}


@pytest.fixture
async def venue() -> AsyncIterator[LocalVenue]:
    """A venue that takes its next step when the test speaks for the engine."""
    async with local_venue(VenueSettings(**STEPPED)) as venue:
        yield venue


@pytest.fixture
async def exchange(venue: LocalVenue) -> AsyncIterator[Any]:
    async with asyncio.timeout(20):
        ccxt = make_binance(base_url=venue.url, api_key="sim", secret="sim", is_local=True)
        try:
            await ccxt.load_markets()
            yield ccxt
        finally:
            await ccxt.close()
        assert (await status(venue))["unknown_paths"] == {}  # ccxt asks for nothing that we do not have


async def status(venue: LocalVenue) -> dict[str, Any]:
    async with httpx.AsyncClient(verify=False) as client:
        return (await client.get(f"{venue.url}/sim/status")).json()


async def until(venue: LocalVenue, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask until this is true; the fixture's time-out ends what never becomes true."""
    async with asyncio.timeout(10):
        while not holds(now := await status(venue)):  # noqa: ASYNC110  # asked over HTTP, which has no event
            await asyncio.sleep(0.005)
        return now


async def step(venue: LocalVenue, booked: tuple[str, ...] = ()) -> None:
    """Say that the engine has come to the last bar told: the market takes one step."""
    now = (await status(venue))["market_time_ms"]
    at = {f"{symbol}.1m": now - 60_000 for symbol in ("BTC-USDT", "ETH-USDT")}
    await venue.say_progress("engine", at, booked)


async def test_ccxt_reads_the_market(venue: LocalVenue, exchange: Any) -> None:
    market = exchange.market("BTC/USDT")
    assert market["spot"] and market["precision"] == {"amount": 1e-5, "price": 0.01, "base": 1e-8, "quote": 1e-8}
    bars = await exchange.fetch_ohlcv("BTC/USDT", "1m", limit=1000)
    assert len(bars) == 121  # 120 bars of history and the open one
    assert bars[-1][5] == 0 and len(set(bars[-1][1:5])) == 1  # of which only the open is known
    ticker = await exchange.fetch_ticker("BTC/USDT")
    book = await exchange.fetch_bids_asks(["BTC/USDT"])
    assert ticker["last"] == bars[-1][1]
    assert book["BTC/USDT"]["bid"] < ticker["last"] < book["BTC/USDT"]["ask"]
    assert abs(await exchange.fetch_time() - exchange.milliseconds()) < 5_000  # the wall's clock, not the market's
    assert bars[-1][0] < exchange.milliseconds() - 86_400_000


async def test_a_market_order_is_answered_filled_with_its_fee(venue: LocalVenue, exchange: Any) -> None:
    order = await exchange.create_order("BTC/USDT", "market", "buy", 0.01, None, {"newClientOrderId": "intent-1"})
    opened = (await exchange.fetch_ticker("BTC/USDT"))["last"]
    assert (order["status"], order["filled"], order["clientOrderId"]) == ("closed", 0.01, "intent-1")
    assert 0 < order["average"] / opened - 1.0005 < 1e-6  # 5 bps, rounded up to the tick
    assert order["fee"] == {"currency": "BTC", "cost": 0.00001}
    [trade] = await exchange.fetch_my_trades("BTC/USDT")
    assert (trade["order"], trade["price"], trade["fee"]["cost"]) == (order["id"], order["average"], 0.00001)
    balance = await exchange.fetch_balance()
    assert balance["BTC"]["free"] == 0.00999
    assert balance["USDT"]["free"] == pytest.approx(10_000 - order["average"] * 0.01, abs=1e-8)


async def test_an_order_is_found_again_by_our_own_id(venue: LocalVenue, exchange: Any) -> None:
    await exchange.create_order("BTC/USDT", "market", "buy", 0.01, None, {"newClientOrderId": "intent-1"})
    found = await exchange.fetch_order(None, "BTC/USDT", {"origClientOrderId": "intent-1"})
    assert found["status"] == "closed"
    with pytest.raises(errors.OrderNotFound):
        await exchange.fetch_order(None, "BTC/USDT", {"origClientOrderId": "intent-2"})


async def test_a_limit_order_rests_is_listed_and_is_taken_back(venue: LocalVenue, exchange: Any) -> None:
    order = await exchange.create_order("ETH/USDT", "limit", "buy", 1.0, 1000.0)
    assert order["status"] == "open"
    assert [each["id"] for each in await exchange.fetch_open_orders("ETH/USDT")] == [order["id"]]
    assert (await exchange.fetch_balance())["USDT"] == {"free": 9000.0, "used": 1000.0, "total": 10_000.0}
    assert (await exchange.cancel_order(order["id"], "ETH/USDT"))["status"] == "canceled"
    assert await exchange.fetch_open_orders("ETH/USDT") == []
    assert (await exchange.fetch_orders("ETH/USDT"))[0]["status"] == "canceled"
    assert (await exchange.fetch_balance())["USDT"]["free"] == 10_000.0


async def test_what_binance_refuses_is_refused_as_ccxt_knows_it(venue: LocalVenue, exchange: Any) -> None:
    with pytest.raises(errors.InsufficientFunds):
        await exchange.create_order("BTC/USDT", "market", "buy", 1)
    with pytest.raises(errors.BadRequest, match="NOTIONAL"):
        await exchange.create_order("BTC/USDT", "market", "buy", 0.00002)
    with pytest.raises(errors.OrderNotFound):
        await exchange.cancel_order("99", "BTC/USDT")
    with pytest.raises(errors.BadSymbol):
        await exchange.publicGetKlines({"symbol": "NOPEUSDT", "interval": "1m"})
    with pytest.raises(errors.BadRequest, match="-1120"):
        await exchange.publicGetKlines({"symbol": "BTCUSDT", "interval": "7m"})
    exchange.secret = "guessed"
    with pytest.raises(errors.AuthenticationError, match="-1022"):
        await exchange.fetch_balance()
    exchange.secret, exchange.nonce = "sim", lambda: exchange.milliseconds() - 60_000
    with pytest.raises(errors.InvalidNonce):
        await exchange.fetch_balance()
    assert (await status(venue))["refusals"].keys() == {"-2010", "-1013", "-2011", "-1121", "-1120", "-1022", "-1021"}


async def test_a_closed_candle_is_told_by_the_stream_and_the_next_one_has_just_opened(
    venue: LocalVenue, exchange: Any
) -> None:
    before = await exchange.fetch_ohlcv("BTC/USDT", "1m", limit=2)
    watching = asyncio.ensure_future(exchange.watch_ohlcv("BTC/USDT", "1m"))
    await until(venue, lambda now: now["subscriptions"] == 1)
    await step(venue)
    [bar] = await watching
    after = await exchange.fetch_ohlcv("BTC/USDT", "1m", limit=2)
    assert bar == after[0] and bar[:2] == before[1][:2]  # the bar that was open, now whole
    assert after[1][0] == bar[0] + 60_000 and after[1][1] == bar[4]


async def test_a_market_order_is_told_by_the_user_stream_too(venue: LocalVenue, exchange: Any) -> None:
    watching = asyncio.ensure_future(exchange.watch_my_trades("BTC/USDT"))
    await until(venue, lambda now: now["user_streams"] == 1)
    order = await exchange.create_order("BTC/USDT", "market", "buy", 0.01)
    [told] = await watching
    [asked] = await exchange.fetch_my_trades("BTC/USDT")
    assert (told["id"], told["order"], told["price"], told["amount"]) == (
        asked["id"],
        order["id"],
        asked["price"],
        asked["amount"],
    )


async def test_a_fill_inside_a_bar_is_booked_before_its_candle_is_told(venue: LocalVenue, exchange: Any) -> None:
    opened = (await exchange.fetch_ticker("BTC/USDT"))["last"]
    orders = asyncio.ensure_future(exchange.watch_orders("BTC/USDT"))
    await until(venue, lambda now: now["user_streams"] == 1)
    order = await exchange.create_order("BTC/USDT", "limit", "buy", 0.01, round(opened - 0.01, 2))
    assert [each["status"] for each in await orders] == ["open"]

    orders = asyncio.ensure_future(exchange.watch_orders("BTC/USDT"))
    while not is_unbooked(now := await status(venue)):  # a step for each bar that does not trade through the price
        await step(venue)
        told = now["bars"]
        now = await until(venue, lambda now, told=told: now["bars"] != told or is_unbooked(now))
    [filled] = await orders
    assert (filled["id"], filled["status"], filled["average"]) == (order["id"], "closed", order["price"])
    trade_id = filled["trades"][0]["id"]
    assert now["waiting_for"] == [f"engine (has not booked trade {trade_id})"]

    await step(venue, booked=(trade_id,))
    after = await until(venue, lambda after: after["bars"] != now["bars"])
    assert after["bars"]["BTC-USDT"] == now["bars"]["BTC-USDT"] + 1


def is_unbooked(now: dict[str, Any]) -> bool:
    return any("has not booked trade" in each for each in now["waiting_for"])


async def test_a_path_that_we_do_not_have_is_counted(venue: LocalVenue) -> None:
    async with httpx.AsyncClient(base_url=venue.url, verify=False) as client:
        for _ in range(2):
            assert (await client.get("/api/v3/depth", params={"symbol": "BTCUSDT"})).status_code == 404
    assert (await status(venue))["unknown_paths"] == {"GET /api/v3/depth": 2}
