"""Fills without an exchange: what was ordered on the close of a bar is filled at the open of the next.

Price, quantity and fee come from the sleeve's own `paper_fill`, which is the function that the backtest compiles; so
paper and backtest have the same bits. It holds no account: the ledger of the sleeves is all there is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal

from services.engine.venue import Execution, OrderRefused, Report, Ticket
from shared.contracts.instruments import Instrument
from shared.trading.orders import PaperFill

Close = Callable[[], Awaitable[None]]
FillAt = Callable[[Ticket, float], PaperFill | None]


class PaperVenue:
    """Orders rest here from one bar to the next."""

    settle_s = 0.0  # what it does not know now it will never know

    def __init__(
        self, name: str, instruments: Mapping[str, Instrument], fill_at: FillAt, close: Close | None = None
    ) -> None:
        """`close` ends what told the instruments' rules, where something did."""
        self.name = name
        self._close = close
        self._instruments = dict(instruments)
        self._fill_at = fill_at
        self._open: dict[str, Ticket] = {}
        self._done: dict[str, Report] = {}  # of this life, so that a question after a fill has its answer

    async def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        return {symbol: self._instruments[symbol] for symbol in symbols if symbol in self._instruments}

    async def submit(self, ticket: Ticket) -> Report:
        instrument = self._instruments.get(ticket.symbol)
        if instrument is None:
            raise OrderRefused("unknown_symbol", f"{ticket.symbol} is not traded here")
        if ticket.quantity <= 0 or ticket.quantity % instrument.lot != 0:
            raise OrderRefused("lot", f"a quantity must be a multiple of {instrument.lot}, was {ticket.quantity}")
        self._open[ticket.order_id] = ticket
        return _report(ticket, "open")

    async def query(self, ticket: Ticket) -> Report | None:
        if ticket.order_id in self._open:
            return _report(ticket, "open")
        return self._done.get(ticket.order_id)

    async def executions(self, ticket: Ticket, venue_order_id: str) -> tuple[Execution, ...]:
        done = self._done.get(ticket.order_id)
        return done.executions if done is not None else ()

    async def balances(self) -> dict[str, Decimal] | None:
        return None

    def opened(self, symbol: str, price: float, at: datetime) -> Sequence[Report]:
        reports = [self._filled(ticket, price, at) for ticket in self._open.values() if ticket.symbol == symbol]
        for report in reports:
            del self._open[report.order_id]
        self._done = {report.order_id: report for report in reports}
        return reports

    async def next_reports(self) -> Sequence[Report]:
        await asyncio.get_running_loop().create_future()  # it never says anything unasked
        return ()

    def take_up(self, tickets: Iterable[Ticket]) -> None:
        self._open.update({ticket.order_id: ticket for ticket in tickets})

    async def close(self) -> None:
        if self._close is not None:
            await self._close()

    def _filled(self, ticket: Ticket, price: float, at: datetime) -> Report:
        fill = self._fill_at(ticket, price)
        if fill is None:
            return _report(ticket, "expired", reason="the cash pays for nothing of it at this open")
        execution = Execution(
            symbol=ticket.symbol,
            trade_id=ticket.order_id,  # one fill an order, so its id names it
            side=fill.side,
            quantity=fill.quantity,
            price=fill.price,
            fee=fill.fee,
            fee_asset=fill.fee_asset,
            at=at,
        )
        if fill.quantity < ticket.quantity:
            return _report(ticket, "expired", execution, "the cash pays for no more at this open")
        return _report(ticket, "filled", execution)


def _report(ticket: Ticket, status: str, execution: Execution | None = None, reason: str = "") -> Report:
    return Report(
        order_id=ticket.order_id,
        venue_order_id=f"paper-{ticket.order_id}",
        status=status,  # pyright: ignore[reportArgumentType]  # one of the literals above
        executed=Decimal(0) if execution is None else execution.quantity,
        executions=() if execution is None else (execution,),
        reason=reason,
    )
