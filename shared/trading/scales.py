"""The one place where Decimal and float become ledger integers, and back.

For BTC-USDT with tick 0.01 and lot 0.00001, a price of 27123.45 is 2712345 ticks, 0.5 BTC are 50000 lots, and one lot
at one tick is worth 1e-7 USDT: 10 units of 1e-8.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import NamedTuple

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.ledger import LIMIT

DECIMALS = 8  # of a ledger unit at least: what exchanges count balances in


class Rules(NamedTuple):
    """What execution must know, as numbers that compile. Made by `Scale.rules`."""

    ticks: float  # in 1.0 of price
    unit: int  # ledger units that one lot costs at one tick
    fee_ppm: int  # of the notional, in millionths (1 bps = 100)
    slippage: float  # fraction of the price, against the trader
    min_notional: int  # ledger units that an order must be worth
    max_lots: int  # that may be held
    shorts: bool  # whether lots can be owed
    top: float  # ticks of the highest price that can come; 0 when nobody knows, as in live trading


@dataclass(frozen=True)
class Scale:
    """How one instrument is counted."""

    tick: Decimal
    lot: Decimal
    decimals: int  # of a ledger unit, in quote currency
    unit: int  # ledger units that one lot costs at one tick

    @classmethod
    def of(cls, instrument: Instrument) -> Scale:
        """The scale in which every notional of this instrument is a whole number."""
        step = (instrument.tick * instrument.lot).normalize()
        decimals = max(DECIMALS, -int(step.as_tuple().exponent))
        return cls(instrument.tick, instrument.lot, decimals, int(step.scaleb(decimals)))

    def units(self, amount: Decimal) -> int:
        """An amount of quote currency in ledger units, half up."""
        return int(amount.scaleb(self.decimals).to_integral_value(ROUND_HALF_UP))

    def amount(self, units: int) -> Decimal:
        """Ledger units as an amount of quote currency."""
        return Decimal(units).scaleb(-self.decimals)

    def lots(self, quantity: Decimal) -> int:
        """Whole lots in a quantity of base currency, never more than there are."""
        return int((quantity / self.lot).to_integral_value(ROUND_FLOOR))

    def quantity(self, lots: int) -> Decimal:
        """Lots as a quantity of base currency."""
        return lots * self.lot

    def price(self, ticks: int) -> Decimal:
        """Ticks as a price."""
        return ticks * self.tick

    def rules(
        self, instrument: Instrument, costs: Costs, *, top: float = 0.0, max_quantity: Decimal | None = None
    ) -> Rules:
        """The rules of execution. `top` is the highest price of the series, in quote currency."""
        fee_ppm = round(costs.fee_bps * 100)
        if abs(fee_ppm - costs.fee_bps * 100) > 1e-6 or fee_ppm < 0:
            raise NeedsOperator(f"A fee must be >= 0 bps in steps of 0.01, was {costs.fee_bps}.")
        if not 0 <= costs.slippage_bps < 10_000:
            raise NeedsOperator(f"Slippage must be 0 <= bps < 10000, was {costs.slippage_bps}.")
        ticks = float(1 / self.tick)
        largest = int(LIMIT) // self.unit
        return Rules(
            ticks=ticks,
            unit=self.unit,
            fee_ppm=fee_ppm,
            slippage=costs.slippage_bps / 10_000,
            min_notional=self.units(instrument.min_notional),
            max_lots=largest if max_quantity is None else min(largest, self.lots(max_quantity)),
            shorts=instrument.kind == "perpetual",
            top=top * ticks,
        )
