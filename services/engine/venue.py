"""What the engine asks of a place where orders go. Siblings: `PaperVenue`, `CcxtVenue`. Nothing else of ours knows which.

A venue says yes (`Report`), no (`OrderRefused`: for good, it changed nothing), or nothing that one could rely on
(`OutcomeUnknown`): then the order may have been taken, and it is asked for by its id, never sent again blindly.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol

import msgspec

from shared.contracts.errors import TrimtabError
from shared.contracts.execution import Side
from shared.contracts.instruments import Instrument

OrderStatus = Literal["open", "filled", "canceled", "expired", "rejected"]


class OrderRefused(TrimtabError):
    """The venue will not have this order; nothing was done."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code, self.reason = code, reason


class OutcomeUnknown(TrimtabError):
    """The venue's answer was lost: the order may be there, or not."""


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """A market order as it is sent."""

    order_id: str  # ours: the client order id
    symbol: str
    side: Side
    quantity: Decimal  # base units


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """A trade at the venue. Its key is (venue, symbol, trade_id), whichever way it came."""

    symbol: str
    trade_id: str  # the venue's, as text: REST says "17", the stream says 17
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str
    at: datetime  # venue time


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue says of an order. `executions` need not be all of them: `executed` is the check."""

    order_id: str
    venue_order_id: str
    status: OrderStatus
    executed: Decimal  # base units, in all
    executions: tuple[Execution, ...] = ()
    reason: str = ""


class Venue(Protocol):
    """One account at one venue."""

    @property
    def name(self) -> str:
        """As in messages: `sim`, `binance`."""
        ...

    @property
    def settle_s(self) -> float:
        """An order that the venue does not know this long after it was sent will never be known."""
        ...

    async def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        """The rules of those of these symbols that the venue knows. Raises TryAgain while it cannot be reached."""
        ...

    async def submit(self, ticket: Ticket) -> Report:
        """Send it, once. Raises OrderRefused or OutcomeUnknown."""
        ...

    async def query(self, ticket: Ticket) -> Report | None:
        """What became of it, by our id; None when the venue knows no such order. Raises TryAgain."""
        ...

    async def executions(self, ticket: Ticket, venue_order_id: str) -> tuple[Execution, ...]:
        """All trades of an order. Raises TryAgain."""
        ...

    async def balances(self) -> dict[str, Decimal] | None:
        """Asset -> quantity, resting orders included; None where the venue keeps no account. Raises TryAgain."""
        ...

    def opened(self, symbol: str, price: float, at: datetime) -> Sequence[Report]:
        """A bar has opened at `price`. What follows from it here; nothing where the venue tells it by itself."""
        ...

    async def next_reports(self) -> Sequence[Report]:
        """Wait for what the venue tells unasked. Raises TryAgain when its stream begins anew: then ask for open orders."""
        ...

    def take_up(self, tickets: Iterable[Ticket]) -> None:
        """These orders were open when we stopped."""
        ...

    async def close(self) -> None: ...
