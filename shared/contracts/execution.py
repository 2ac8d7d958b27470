"""What was wanted, ordered, filled and earned. Money is Decimal here, a string on the wire."""

from __future__ import annotations

import math
from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec

from shared.contracts.times import to_ms
from shared.contracts.wire import Message, require, require_token

Side = Literal["buy", "sell"]
OrderKind = Literal["market", "limit"]


class Signal(Message, frozen=True, kw_only=True):
    """A sleeve wants another exposure than it had. What becomes of it is told by the order's events."""

    venue: str
    strategy: str
    symbol: str
    timeframe: str
    opened_at: datetime  # of the bar at whose close this was decided
    closed_at: datetime
    exposure: float  # wanted fraction of the sleeve's equity, -1..1
    exit_reason: str  # "signal", "stop", "take_profit", "trail", "max_bars", "command"; "" for an entry
    preset_id: str
    model_id: str
    decision_id: str
    regime: str

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.strategy, self.symbol, self.timeframe)
        require(-1.0 <= self.exposure <= 1.0, self, "-1 <= exposure <= 1")

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.strategy}.{self.symbol}.{self.timeframe}.{to_ms(self.opened_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.closed_at


class OrderEvent(Message, frozen=True, kw_only=True):
    """What all order events share. `order_id` is our client order id, made from what the order is for."""

    order_id: str
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    at: datetime  # venue time

    def __post_init__(self) -> None:
        require_token(self, self.order_id, self.venue, self.strategy, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return self.order_id

    @property
    def happened_at(self) -> datetime:
        return self.at


class OrderSubmitted(OrderEvent, frozen=True, kw_only=True):
    """The intent: stored before anything was sent."""

    side: Side
    kind: OrderKind
    quantity: Decimal  # base units
    price: Decimal | None  # of a limit order
    reason: str
    preset_id: str
    model_id: str
    decision_id: str

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.quantity > 0 and self.quantity.is_finite(), self, "quantity > 0")
        require(self.price is None or (self.price > 0 and self.price.is_finite()), self, "price > 0")


class OrderAccepted(OrderEvent, frozen=True, kw_only=True):
    """The venue has it."""

    venue_order_id: str


class OrderRejected(OrderEvent, frozen=True, kw_only=True):
    """The venue, or our risk gate, refused it, for good."""

    refused_by: Literal["venue", "risk"]
    code: str  # the venue's error code, or the rail's name
    reason: str


class OrderCanceled(OrderEvent, frozen=True, kw_only=True):
    """Taken back before it was (wholly) filled."""

    reason: str


class OrderExpired(OrderEvent, frozen=True, kw_only=True):
    """The venue let it lapse."""

    reason: str


class TradeFill(Message, frozen=True, kw_only=True):
    """One execution. Its key is the venue's trade id, the same from REST and from the stream."""

    venue: str
    strategy: str
    symbol: str
    timeframe: str
    trade_id: str  # the venue's, as text
    order_id: str
    side: Side
    quantity: Decimal  # base units, > 0
    price: Decimal
    fee: Decimal
    fee_asset: str
    at: datetime  # venue time

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.strategy, self.symbol, self.timeframe)
        for value in (self.quantity, self.price):
            require(value.is_finite() and value > 0, self, "quantity > 0 and price > 0")
        require(self.fee.is_finite(), self, "a finite fee")

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.trade_id}"

    @property
    def happened_at(self) -> datetime:
        return self.at


class TradeClosed(Message, frozen=True, kw_only=True):
    """From flat to flat: what a trade earned, net of costs, and what it was risked for."""

    trade_id: str  # ours: the order id that opened it
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    side: Literal["long", "short"]
    opened_at: datetime  # of the first fill
    closed_at: datetime  # of the last
    bars_held: int
    quantity: Decimal  # largest size held, base units
    entry_price: Decimal  # mean, by quantity
    exit_price: Decimal
    fees: Decimal  # settlement currency
    pnl: Decimal  # net of fees, settlement currency
    risk: Decimal  # settlement currency that the stop put at stake at entry; 1 x ATR14 where there was no stop
    result_r: float  # pnl / risk
    exit_reason: str
    preset_id: str
    model_id: str
    decision_id: str
    regime: str  # at entry

    def __post_init__(self) -> None:
        require_token(self, self.trade_id, self.venue, self.strategy, self.symbol, self.timeframe)
        require(self.closed_at >= self.opened_at, self, "closed_at >= opened_at")
        require(self.quantity > 0 and math.isfinite(self.result_r), self, "quantity > 0 and a finite result_r")

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.trade_id}"

    @property
    def happened_at(self) -> datetime:
        return self.closed_at


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """What a sleeve holds. `quantity` is signed."""

    strategy: str
    symbol: str
    timeframe: str
    quantity: Decimal
    entry_price: Decimal
    mark_price: float
    unrealized: Decimal
    preset_id: str


class PortfolioSnapshot(Message, frozen=True, kw_only=True):
    """The account at the close of a bar: cash + inventory = equity."""

    account: str
    at: datetime
    cash: Decimal
    equity: Decimal
    fees: Decimal  # since the beginning
    positions: tuple[Position, ...]

    def __post_init__(self) -> None:
        require_token(self, self.account)

    @property
    def key(self) -> str:
        return f"{self.account}.{to_ms(self.at)}"

    @property
    def happened_at(self) -> datetime:
        return self.at
