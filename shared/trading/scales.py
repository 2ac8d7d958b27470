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
    min_fee: int  # ledger units, of each fill
    slippage: float  # fraction of the price, against the trader; half the spread is in it
    min_notional: int  # ledger units that an order must be worth
    max_lots: int  # that may be held
    size: int  # lots that are held whenever the exposure is not 0; 0: the exposure's share of the equity
    exposure: float  # 0..1, times that of every target
    shorts: bool  # whether lots can be owed
    rests: bool  # whether orders may rest at the venue: only `matching` plays that
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
        self,
        instrument: Instrument,
        costs: Costs,
        *,
        top: float = 0.0,
        max_quantity: Decimal | None = None,
        size: Decimal | None = None,
        exposure: float = 1.0,
        shorts: bool = True,
        rests: bool = False,
    ) -> Rules:
        """The rules of execution. `top` is the highest price of the series, in quote currency.

        `max_quantity` and `size` are base units. Raises NeedsOperator for terms that cannot be counted.
        """
        if not 0 <= exposure <= 1:
            raise NeedsOperator(f"The exposure that scales a strategy's own must be in 0..1, was {exposure}.")
        lots = 0 if size is None else self.lots(size)
        if size is not None and (lots == 0 or self.quantity(lots) != size):
            raise NeedsOperator(
                f"A size on {instrument.symbol} must be a multiple of its lot {self.lot} above 0, was {size}."
            )
        ticks = float(1 / self.tick)
        largest = int(LIMIT) // self.unit
        return Rules(
            ticks=ticks,
            unit=self.unit,
            fee_ppm=ppm(costs.fee_bps),
            min_fee=self.units(costs.min_fee),
            slippage=(costs.slippage_bps + costs.spread_bps / 2) / 10_000,
            min_notional=self.units(instrument.min_notional),
            max_lots=largest if max_quantity is None else min(largest, self.lots(max_quantity)),
            size=lots,
            exposure=exposure,
            shorts=shorts and can_be_short(instrument, costs),
            rests=rests,
            top=top * ticks,
        )


def ppm(bps: float) -> int:
    """A fee in millionths of the notional."""
    told = round(bps * 100)
    if abs(told - bps * 100) > 1e-6:
        raise NeedsOperator(f"A fee must be >= 0 bps in steps of 0.01, was {bps}.")
    return told


def can_be_short(instrument: Instrument, costs: Costs) -> bool:
    """Whether lots can be owed: perpetuals always, shares when somebody lends them, spot never."""
    return instrument.kind == "perpetual" or (instrument.kind == "share" and costs.borrow_bps_year is not None)
