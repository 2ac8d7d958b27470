"""What the Trader says: the change of position that it wants, what came of a bar, and how paper fills."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from shared.contracts.execution import Side, TradeClosed, TradeFill


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A change of position that is wanted now, on the close of a bar, to be filled at the next open."""

    side: Side
    quantity: Decimal  # base units, whole lots
    lots: int  # the same, signed
    exposure: float  # that it leads to
    reason: str  # one of fills.REASONS
    is_entry: bool  # it begins a position, makes it larger, or turns it
    opened_at: datetime  # of the bar at whose close it was decided
    preset_id: str
    decision_id: str
    model_id: str
    regime: str


class Step(msgspec.Struct, frozen=True):
    """What came of one bar."""

    intent: Intent | None
    equity: Decimal  # marked on the close
    preset_id: str  # that was followed; "" when none was chosen


class PaperFill(msgspec.Struct, frozen=True):
    """How the simulated venue fills an intent: the same price, quantity and fee as in a backtest."""

    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    fee_asset: str


class OpenTrade(msgspec.Struct):
    """The record of a trade from its first fill on, until it is flat again. Money is in quote currency."""

    trade_id: str  # the order that opened it
    side: str
    opened_at: datetime
    preset_id: str
    decision_id: str
    model_id: str
    regime: str
    cash_before: Decimal
    dust_before: Decimal
    bars_held: int = 0
    largest: Decimal = Decimal(0)
    entered: Decimal = Decimal(0)  # quantity bought by a long, sold by a short
    entry_notional: Decimal = Decimal(0)
    left: Decimal = Decimal(0)
    exit_notional: Decimal = Decimal(0)
    fees: Decimal = Decimal(0)
    reason: str = ""  # of the last order

    def book(self, fill: TradeFill, fee: Decimal, held: Decimal) -> None:
        """Add one fill, its fee in quote currency, and what is held after it."""
        if (fill.side == "buy") == (self.side == "long"):
            self.entered += fill.quantity
            self.entry_notional += fill.quantity * fill.price
        else:
            self.left += fill.quantity
            self.exit_notional += fill.quantity * fill.price
        self.fees += fee
        self.largest = max(self.largest, abs(held))

    def closed(self, fill: TradeFill, cash: Decimal, dust: Decimal, risk: Decimal) -> TradeClosed:
        """The finished trade. What a fee in base currency left below a lot counts at the last price."""
        pnl = cash - self.cash_before + (dust - self.dust_before) * fill.price
        return TradeClosed(
            trade_id=self.trade_id,
            venue=fill.venue,
            strategy=fill.strategy,
            symbol=fill.symbol,
            timeframe=fill.timeframe,
            side="long" if self.side == "long" else "short",
            opened_at=self.opened_at,
            closed_at=fill.at,
            bars_held=self.bars_held,
            quantity=self.largest,
            entry_price=self.entry_notional / self.entered,
            exit_price=self.exit_notional / self.left if self.left else fill.price,
            fees=self.fees,
            pnl=pnl,
            risk=risk,
            result_r=float(pnl) / float(risk),
            exit_reason=self.reason,
            preset_id=self.preset_id,
            model_id=self.model_id,
            decision_id=self.decision_id,
            regime=self.regime,
        )
