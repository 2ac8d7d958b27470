"""What the market did, as the ingester says it: closed bars in strict order, and the bars that never existed."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal, NamedTuple

from shared.contracts.times import from_ms, timeframe_length, to_ms
from shared.contracts.wire import Message, require, require_token


class BarClosed(Message, frozen=True, kw_only=True):
    """One closed candle. Published once, when it closes, and never revised.

    `is_history` marks what was there before the ingester began to follow the market: services warm up and train on
    it, nobody trades on it.
    """

    venue: str  # "sim", "binance"
    symbol: str  # "BTC-USDT"
    timeframe: str  # "1h"
    opened_at: datetime  # UTC
    closed_at: datetime  # UTC; the first instant at which this bar may be known
    open: float  # prices in quote currency
    high: float
    low: float
    close: float
    volume: float  # base currency
    is_history: bool = False

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.symbol, self.timeframe)
        length = timeframe_length(self.timeframe)
        require(self.closed_at - self.opened_at == length, self, "closed_at = opened_at + timeframe")
        require(self.low > 0 and math.isfinite(self.high), self, "0 < low and a finite high")
        require(
            self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high,
            self,
            "low <= open, close <= high",
        )
        require(0 <= self.volume < math.inf, self, "0 <= volume < inf")

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}.{to_ms(self.opened_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.closed_at


class BarName(NamedTuple):
    """Which bar a message id names."""

    symbol: str
    timeframe: str
    opened_at: datetime


def bar_named(message_id: str) -> BarName | None:
    """The bar of `BarClosed:sim.BTC-USDT.1m.1700000000000`; None for the ids of other messages."""
    kind, _, key = message_id.partition(":")
    parts = key.split(".")
    if kind != BarClosed.__name__ or len(parts) != 4 or not parts[3].isdecimal():
        return None
    return BarName(parts[1], parts[2], from_ms(int(parts[3])))


class GapFound(Message, frozen=True, kw_only=True):
    """Bars that the venue does not have though it was asked twice: absent, not filled in. The watermark passes them."""

    venue: str
    symbol: str
    timeframe: str
    first_opened_at: datetime  # of the first absent bar
    last_opened_at: datetime  # of the last absent bar
    bars: int
    reason: Literal["absent", "undecodable"]
    is_history: bool = False

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.symbol, self.timeframe)
        length = timeframe_length(self.timeframe)
        require(
            self.bars >= 1 and self.first_opened_at + (self.bars - 1) * length == self.last_opened_at,
            self,
            "bars = those from first_opened_at to last_opened_at, at least 1",
        )

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}.{to_ms(self.first_opened_at)}.{self.bars}"

    @property
    def happened_at(self) -> datetime:
        return self.last_opened_at + timeframe_length(self.timeframe)


class ChunkRegistered(Message, frozen=True, kw_only=True):
    """A part of history was stored once, under the hash of its content."""

    venue: str
    symbol: str
    timeframe: str
    first_opened_at: datetime
    last_opened_at: datetime
    bars: int
    sha256: str

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.symbol, self.timeframe)
        require(self.bars >= 1 and len(self.sha256) == 64, self, "bars >= 1 and a SHA-256 in hex")

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}.{self.sha256}"

    @property
    def happened_at(self) -> datetime:
        return self.last_opened_at + timeframe_length(self.timeframe)


class QualityFlagged(Message, frozen=True, kw_only=True):
    """Something in the data is suspicious. It is told, never silently repaired."""

    venue: str
    symbol: str
    timeframe: str
    opened_at: datetime
    defect: Literal["gap", "invalid_bar", "jump", "stale", "duplicate"]
    detail: str

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}.{self.defect}.{to_ms(self.opened_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.opened_at


class UniverseUpdated(Message, frozen=True, kw_only=True):
    """The symbols that are followed from now on, and which setting named them."""

    venue: str
    symbols: tuple[str, ...]
    source: Literal["scanner", "kind_symbols", "strategy_symbols", "trade_symbols", "default"]
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.venue, *self.symbols)

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.source}.{to_ms(self.at)}"

    @property
    def happened_at(self) -> datetime:
        return self.at
