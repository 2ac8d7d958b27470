"""Fills come by answer, by stream and by question, in any order and more than once: each is booked once."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal

import pytest

from services.engine.desk import Desk
from services.engine.paper_venue import PaperVenue
from services.engine.venue import Execution, OrderStatus, Report, Ticket, Venue
from shared.contracts import subjects
from shared.contracts.errors import TryAgain
from shared.contracts.instruments import Instrument
from tests.pure.engine.house import MINUTE, START, House, bars

PARTS = ("1.5", "0.25", "3", "0.0001")
OPENED = START + 2 * MINUTE


class Telling(PaperVenue):
    """A venue that accepts, and fills later, in its own words."""

    sent: list[Ticket]
    words: asyncio.Queue[Report | TryAgain]
    trades: tuple[Execution, ...] = ()

    async def submit(self, ticket: Ticket) -> Report:
        self.sent.append(ticket)
        return report(ticket, "open")

    async def query(self, ticket: Ticket) -> Report | None:
        return report(ticket, "canceled" if self.trades else "open", *self.trades)

    async def executions(self, ticket: Ticket, venue_order_id: str) -> tuple[Execution, ...]:
        return self.trades

    def opened(self, symbol: str, price: float, at: datetime) -> Sequence[Report]:
        return ()

    async def next_reports(self) -> Sequence[Report]:
        word = await self.words.get()
        if isinstance(word, TryAgain):
            raise word
        return (word,)


def trade(number: int, quantity: str) -> Execution:
    return Execution(
        symbol="BTC-USDT",
        trade_id=str(number),
        side="buy",
        quantity=Decimal(quantity),
        price=Decimal(101),
        fee=Decimal("0.1"),
        fee_asset="USDT",
        at=OPENED,
    )


TRADES = tuple(trade(number, quantity) for number, quantity in enumerate(PARTS))
WHOLE = sum((each.quantity for each in TRADES), Decimal(0))


def report(ticket: Ticket, status: OrderStatus, *trades: Execution, executed: Decimal = Decimal(0)) -> Report:
    total = executed or sum((each.quantity for each in trades), Decimal(0))
    return Report(
        order_id=ticket.order_id, venue_order_id="v1", status=status, executed=total, executions=tuple(trades)
    )


async def telling(house: House) -> Telling:
    """An engine whose first order is accepted and not filled yet."""
    made: list[Telling] = []

    def make(desk: Desk, instruments: Mapping[str, Instrument]) -> Venue:
        venue = Telling("sim", instruments, desk.fill_at)
        venue.sent, venue.words = [], asyncio.Queue()
        made.append(venue)
        return venue

    await house.up(make)
    await house.play(bars(99, 101))
    return made[0]


async def held(house: House) -> Decimal:
    (sleeve,) = await house.get("/sleeves")
    return Decimal(sleeve["quantity"])


@pytest.mark.parametrize("seed", range(8))
async def test_each_trade_is_booked_once_in_whatever_order_and_however_often_it_comes(house: House, seed: int) -> None:
    venue, chance = await telling(house), random.Random(seed)
    (ticket,) = venue.sent
    told = [report(ticket, "open", each) for each in TRADES * 2]
    chance.shuffle(told)

    for word in told:
        venue.words.put_nowait(word)
    venue.words.put_nowait(report(ticket, "canceled", executed=WHOLE))
    await house.until_said(subjects.ORDER_CANCELED)

    fills = house.said(subjects.TRADE_FILL)
    assert sorted(fill.trade_id for fill in fills) == ["0", "1", "2", "3"]
    assert await held(house) == WHOLE


async def test_trades_that_the_stream_lost_are_asked_for_when_the_sum_does_not_fit(house: House) -> None:
    venue = await telling(house)
    venue.trades = TRADES

    venue.words.put_nowait(report(venue.sent[0], "open", TRADES[2]))
    venue.words.put_nowait(report(venue.sent[0], "canceled", executed=WHOLE))  # but one of four was told
    await house.until_said(subjects.ORDER_CANCELED)

    assert await held(house) == WHOLE


async def test_a_stream_that_begins_anew_asks_for_what_it_missed(house: House) -> None:
    venue = await telling(house)
    venue.trades = TRADES

    venue.words.put_nowait(TryAgain("the user stream begins"))
    await house.until_said(subjects.ORDER_CANCELED)

    assert await held(house) == WHOLE


async def test_a_trade_that_comes_after_its_order_is_done_is_booked_with_an_alert(house: House) -> None:
    venue = await telling(house)
    (ticket,) = venue.sent
    venue.words.put_nowait(report(ticket, "canceled", TRADES[0]))
    await house.until_said(subjects.ORDER_CANCELED)

    venue.words.put_nowait(report(ticket, "canceled", TRADES[1]))
    venue.words.put_nowait(report(ticket, "canceled", TRADES[1], TRADES[0]))
    (alert,) = await house.until_said(subjects.ALERT)

    assert alert.name == "late-fill"
    assert await held(house) == TRADES[0].quantity + TRADES[1].quantity


async def test_a_trade_of_an_order_that_is_not_ours_moves_no_position(house: House) -> None:
    venue = await telling(house)
    foreign = Ticket(order_id="somebody-elses", symbol="BTC-USDT", side="buy", quantity=Decimal(1))

    venue.words.put_nowait(report(foreign, "filled", TRADES[0]))
    (alert,) = await house.until_said(subjects.ALERT)

    assert alert.name == "foreign-fill" and "somebody-elses" in alert.text
    assert await held(house) == 0
