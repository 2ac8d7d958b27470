"""A simulated market: three regimes, an edge planted in two of them. Pure: a seed is the whole market.

BULL and BEAR drift and carry momentum, so that breakouts and averages earn more there than they cost; CHOP is pulled
back to where it began, so that the same rules pay fees for nothing. Which regime comes next leans against the distance
from the start price, so a market may run for ever without leaving its scale.

Each bar is a path of twelve uniform steps. Only + - * / touch a price, and it is rounded to the tick before it is
carried on: no libm, so every machine walks the same path.
"""

from __future__ import annotations

import random
from array import array
from datetime import UTC, datetime
from decimal import Decimal
from enum import IntEnum
from typing import NamedTuple

from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import Instrument, split_symbol
from shared.contracts.times import timeframe_ms, to_ms

STARTS_AT = datetime(2025, 1, 1, tzinfo=UTC)  # market time has nothing to do with ours; any fixed instant would do
STEPS = 12  # uniform steps in a bar: their sum has variance 1 when each is drawn from [-0.5, 0.5)


class Candle(NamedTuple):
    """One bar of one instrument, prices in quote currency, volume in base currency."""

    opened_at: int  # ms since 1970 UTC, market time
    open: float
    high: float
    low: float
    close: float
    volume: float


class Climate(IntEnum):
    """The regime that really holds. Nobody outside is told: ml_service must find it."""

    BULL = 0
    BEAR = 1
    CHOP = 2


class Law(NamedTuple):
    """How prices move in one climate, as fractions of the price a bar."""

    drift: float
    volatility: float  # standard deviation of a bar's return
    momentum: float  # share of the last bar's surprise that comes again
    pull: float  # share of the distance from where the climate began that is taken back


LAWS = {
    Climate.BULL: Law(drift=0.0004, volatility=0.001, momentum=0.15, pull=0.0),
    Climate.BEAR: Law(drift=-0.0004, volatility=0.0018, momentum=0.15, pull=0.0),
    Climate.CHOP: Law(drift=0.0, volatility=0.0005, momentum=-0.10, pull=0.05),
}
SHORTEST_CLIMATE = 40  # bars; below that no rule could enter and leave at a profit
CLIMATE_ENDS = 1 / 60  # chance a bar after that: 100 bars on average, so that a minute of bars shows a change


class Listing(NamedTuple):
    """Where a simulated instrument begins, and in which steps it trades: Binance's own for these pairs."""

    price: float
    volume: float  # base units a bar, on average
    tick: str
    lot: str


LISTINGS = {
    "BTC-USDT": Listing(60_000.0, 12.0, "0.01", "0.00001"),
    "ETH-USDT": Listing(3_000.0, 180.0, "0.01", "0.0001"),
    "SOL-USDT": Listing(150.0, 2_500.0, "0.01", "0.001"),
    "BNB-USDT": Listing(600.0, 90.0, "0.01", "0.001"),
    "LTC-USDT": Listing(90.0, 800.0, "0.01", "0.001"),
    "XRP-USDT": Listing(0.6, 500_000.0, "0.0001", "0.1"),
}
MIN_NOTIONAL = Decimal(5)  # quote units, Binance's for USDT pairs


class SimulatedSeries:
    """The bars of one simulated instrument, made when they are first asked for and kept (40 bytes a bar)."""

    def __init__(self, symbol: str, seed: int, timeframe: str = "1m") -> None:
        """Raises NeedsOperator for a symbol that is not listed."""
        if symbol not in LISTINGS:
            raise NeedsOperator(f"The simulated market lists {', '.join(LISTINGS)}; {symbol!r} is not among them.")
        self._listing = listing = LISTINGS[symbol]
        base, quote = split_symbol(symbol)
        self.instrument = Instrument(
            symbol=symbol,
            base=base,
            quote=quote,
            tick=Decimal(listing.tick),
            lot=Decimal(listing.lot),
            min_notional=MIN_NOTIONAL,
        )
        self.identity = f"simulated/{symbol}/{timeframe}/{seed}"
        self.first_opened_at = to_ms(STARTS_AT)
        self._length = timeframe_ms(timeframe)
        self._chance = random.Random(self.identity)  # its own stream: more instruments change nothing
        self._values = array("d")  # open, high, low, close, volume of each bar, one after the other
        self._climates = array("b")
        self._ticks_per_unit = int(1 / Decimal(listing.tick))
        self._close = listing.price
        self._surprise = 0.0
        self._climate = Climate.CHOP
        self._climate_began = (0, listing.price)  # bar, price

    def candle(self, index: int) -> Candle:
        """The bar at this place, the first is 0. This market never ends."""
        while len(self._climates) <= index:
            self._grow()
        return Candle(self.first_opened_at + index * self._length, *self._values[5 * index : 5 * index + 5])

    def index_at(self, opened_at: int) -> int:
        """The place of the first bar that opened at this instant (ms) or later."""
        return max(0, -((self.first_opened_at - opened_at) // self._length))

    def climate(self, index: int) -> Climate:
        """What really held during this bar, for whoever wants to know whether it was found."""
        self.candle(index)
        return Climate(self._climates[index])

    def _grow(self) -> None:
        self._turn()
        law, chance = LAWS[self._climate], self._chance.random
        distance = self._close / self._climate_began[1] - 1.0
        expected = law.drift + law.momentum * self._surprise - law.pull * distance
        price = high = low = self._close
        for _ in range(STEPS):
            price *= 1.0 + expected / STEPS + law.volatility * (chance() - 0.5)
            high, low = max(high, price), min(low, price)
        opened, closed = self._close, self._rounded(price)
        move = closed / opened - 1.0
        volume = round(self._listing.volume * (0.5 + chance()) * (1.0 + abs(move) / law.volatility), 3)
        self._values.extend((opened, self._rounded(high), self._rounded(low), closed, volume))
        self._climates.append(self._climate)
        self._surprise = move - law.drift
        self._close = closed

    def _turn(self) -> None:
        """Perhaps another climate begins with the next bar."""
        bar, chance = len(self._climates), self._chance.random
        if bar - self._climate_began[0] < SHORTEST_CLIMATE or chance() >= CLIMATE_ENDS:
            return
        lean = max(-0.9, min(0.9, 2.0 * (self._close / self._listing.price - 1.0)))  # above the start: rather down
        odds = {Climate.BULL: 1.0 - lean, Climate.BEAR: 1.0 + lean, Climate.CHOP: 1.0}
        del odds[self._climate]
        draw = chance() * (odds_sum := sum(odds.values()))
        first, second = odds
        self._climate = first if draw < odds[first] and odds_sum > 0 else second
        self._climate_began = (bar, self._close)
        self._surprise = 0.0

    def _rounded(self, price: float) -> float:
        return int(price * self._ticks_per_unit + 0.5) / self._ticks_per_unit
