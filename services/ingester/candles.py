"""A candle as a venue says it, and whether it can be believed. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from shared.contracts.market import BarClosed
from shared.contracts.times import from_ms, timeframe_length


class SeriesName(NamedTuple):
    """What a bar belongs to."""

    venue: str
    symbol: str
    timeframe: str


class Candle(NamedTuple):
    """One closed candle: prices in quote currency, volume in base currency."""

    opened_at: int  # ms since 1970 UTC
    open: float
    high: float
    low: float
    close: float
    volume: float


def closed_rows(rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
    """Those of an answer that are closed: a row is closed when a later one is in the same answer.

    No clock is asked: against a market of another year every clock is wrong.
    """
    return rows[:-1]


def from_row(row: Sequence[Any]) -> Candle | None:
    """A REST row (opened ms, open, high, low, close, volume); None when it cannot be believed."""
    try:
        return _believed(Candle(int(row[0]), *(float(value) for value in row[1:6])))
    except (TypeError, ValueError, IndexError):
        return None


def from_frame(k: Mapping[str, Any]) -> Candle | None:
    """The `k` of a closed kline frame; None when it cannot be believed."""
    try:
        return _believed(Candle(int(k["t"]), *(float(k[name]) for name in ("o", "h", "l", "c", "v"))))
    except (TypeError, ValueError, KeyError):
        return None


def _believed(candle: Candle) -> Candle | None:
    finite = all(map(math.isfinite, candle[1:]))
    whole = candle.low <= min(candle.open, candle.close) <= max(candle.open, candle.close) <= candle.high
    return candle if finite and whole and candle.low > 0 and candle.volume >= 0 else None


def bar_closed(series: SeriesName, candle: Candle, *, is_history: bool) -> BarClosed:
    """What is told of it."""
    opened_at = from_ms(candle.opened_at)
    return BarClosed(
        venue=series.venue,
        symbol=series.symbol,
        timeframe=series.timeframe,
        opened_at=opened_at,
        closed_at=opened_at + timeframe_length(series.timeframe),
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
        is_history=is_history,
    )
