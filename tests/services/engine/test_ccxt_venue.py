"""Real ccxt between the engine's adapter and the simulated venue, with a line that can be cut."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from services.engine.breakers import Standing
from services.engine.ccxt_venue import CcxtVenue
from services.engine.desk import Desk
from services.engine.settings import EngineSettings
from services.engine.venue import OrderRefused, OutcomeUnknown, Ticket
from services.engine.venues import connect
from services.venue_sim.local import LocalVenue, local_venue
from services.venue_sim.settings import VenueSettings
from shared.contracts.errors import TryAgain
from tests.services.engine.line import Line, line_to

pytestmark = pytest.mark.timeout(20)


@pytest.fixture
async def market() -> AsyncIterator[LocalVenue]:
    """A market that stands still: an order fills at the open of the bar that is now open."""
    async with local_venue(VenueSettings(speed="max", lockstep=("engine",), history_bars=50)) as local:
        yield local


@pytest.fixture
async def line(market: LocalVenue) -> AsyncIterator[Line]:
    async with line_to(market.url) as line:
        yield line


@pytest.fixture
async def venue(line: Line) -> AsyncIterator[CcxtVenue]:
    made = CcxtVenue("sim", base_url=line.url, api_key="sim", secret="sim", recv_window_ms=1000, is_local=True)
    try:
        await made.instruments(["BTC-USDT"])
        yield made
    finally:
        await made.close()


def ticket(order_id: str = "t1", quantity: str = "0.01", symbol: str = "BTC-USDT", side: str = "buy") -> Ticket:
    return Ticket(order_id=order_id, symbol=symbol, side=side, quantity=Decimal(quantity))  # type: ignore[arg-type]


async def test_the_rules_of_trading_are_the_venues_own_filters(venue: CcxtVenue) -> None:
    found = await venue.instruments(["BTC-USDT", "NOPE-USDT"])

    assert list(found) == ["BTC-USDT"]
    btc = found["BTC-USDT"]
    assert (btc.tick, btc.lot, btc.base, btc.quote) == (Decimal("0.01"), Decimal("0.00001"), "BTC", "USDT")
    assert btc.min_notional > 0


async def test_a_market_order_is_answered_with_its_trades_and_their_fees(venue: CcxtVenue) -> None:
    report = await venue.submit(ticket())

    assert (report.status, report.executed) == ("filled", Decimal("0.01"))
    (trade,) = report.executions
    assert (trade.side, trade.quantity, trade.fee, trade.fee_asset) == (
        "buy",
        Decimal("0.01"),
        Decimal("0.00001"),
        "BTC",
    )
    assert await venue.balances() is not None


async def test_one_trade_is_the_same_by_answer_by_question_and_by_stream(venue: CcxtVenue) -> None:
    with pytest.raises(TryAgain, match="the user stream begins"):
        await venue.next_reports()

    answered = await venue.submit(ticket())
    asked = await venue.query(ticket())
    (told,) = await venue.next_reports()

    assert asked is not None
    assert answered.executions == asked.executions == told.executions
    assert answered.order_id == asked.order_id == told.order_id == "t1"


async def test_an_order_that_the_venue_does_not_know_is_none(venue: CcxtVenue) -> None:
    assert await venue.query(ticket("never-sent")) is None


@pytest.mark.parametrize(
    ("order", "code"),
    [
        (ticket(quantity="0.00001"), "-1013"),  # below the minimum notional: ccxt does not check it
        (ticket(quantity="0.000001"), "InvalidOrder"),  # below one lot: ccxt refuses it itself
        (ticket(quantity="100"), "InsufficientFunds"),  # more than the account can pay
        (ticket(side="sell"), "InsufficientFunds"),  # nothing there to sell
    ],
)
async def test_a_refusal_is_for_good_and_names_the_venues_code(venue: CcxtVenue, order: Ticket, code: str) -> None:
    with pytest.raises(OrderRefused) as refused:
        await venue.submit(order)

    assert refused.value.code == code
    assert await venue.query(order) is None


async def test_an_answer_that_is_lost_says_that_nobody_knows_and_the_order_can_be_asked_for(
    venue: CcxtVenue, line: Line
) -> None:
    line.cut = "answer"

    with pytest.raises(OutcomeUnknown):
        await venue.submit(ticket())

    found = await venue.query(ticket())
    assert found is not None and found.status == "filled"
    assert line.orders == 1  # ccxt did not send it again either


async def test_a_request_that_never_arrives_says_that_nobody_knows(venue: CcxtVenue, line: Line) -> None:
    line.cut = "request"

    with pytest.raises(OutcomeUnknown):
        await venue.submit(ticket())

    assert await venue.query(ticket()) is None


async def test_questions_to_a_venue_that_is_away_are_to_be_asked_again() -> None:
    away = CcxtVenue(
        "sim", base_url="http://127.0.0.1:9", api_key="sim", secret="sim", recv_window_ms=1000, is_local=True
    )
    try:
        with pytest.raises(TryAgain, match="sim"):
            await away.instruments(["BTC-USDT"])
    finally:
        await away.close()


async def test_paper_on_a_real_exchange_needs_no_key_and_sends_it_no_order(market: LocalVenue, line: Line) -> None:
    settings = EngineSettings(venue="binance", venue_url=line.url, symbols="BTC-USDT")

    rules, make_venue = connect(settings)
    found = await rules(settings.symbols)
    desk = Desk(settings.limits, (), (), Standing(equity=settings.cash))
    paper = make_venue(desk, found)
    report = await paper.submit(ticket())
    await paper.close()

    assert (paper.name, report.status) == ("binance", "open")
    assert found["BTC-USDT"].lot == Decimal("0.00001")
    assert line.orders == 0
