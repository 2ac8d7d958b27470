"""Bars of the past, as the ingester hands them out over HTTP, and the hash that names them."""

from __future__ import annotations

import asyncio
import hashlib
import math
from array import array
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from services.ml_service.baskets import BASKET, index_of
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Span
from shared.contracts.times import from_ms
from shared.regimes.features import Candle
from shared.runtime.ingester import IngesterClient


@dataclass(frozen=True)
class History:
    """Closed bars, ascending."""

    opened_at_ms: list[int]
    bars: list[Candle]

    def __len__(self) -> int:
        return len(self.bars)

    def part(self, first: int, last: int) -> History:
        """Those from the place `first` to before `last`."""
        return History(self.opened_at_ms[first:last], self.bars[first:last])


class Ingester:
    """The bars that the ingester holds, as this service reads them; those of a basket are made of its members'."""

    def __init__(self, address: str, basket: tuple[str, ...] = ()) -> None:
        self._client, self._basket = IngesterClient(address), basket
        self.close = self._client.close

    async def history(self, symbol: str, timeframe: str, first: datetime, last: datetime) -> History:
        """The bars that opened in [first, last]. Raises TryAgain when it does not answer, BadMessage on nonsense."""
        if symbol == BASKET:
            parts = [await self.history(member, timeframe, first, last) for member in self._basket]
            bars = dict(zip(self._basket, (zip(one.opened_at_ms, one.bars, strict=True) for one in parts), strict=True))
            index = list(index_of(bars))
            return History([ms for ms, _ in index], [bar for _, bar in index])
        return await asyncio.to_thread(parse_history, await self._client.bars(symbol, timeframe, first, last))

    async def chunks(self, symbol: str, timeframe: str, first: datetime, last: datetime) -> tuple[Span, ...]:
        """The parts that the ingester keeps of these bars, by hash. Raises as `history` does."""
        members = self._basket if symbol == BASKET else (symbol,)
        parts = [await self._client.chunks(member, timeframe, first, last) for member in members]
        return tuple(span for part in parts for span in part)


def parse_history(body: bytes) -> History:
    """Columns `timestamp` (ms), `open`, `high`, `low`, `close`, `volume` of an Arrow file.

    Raises BadMessage unless times ascend, prices are above 0 and within their bar's range, volumes 0 or more.
    """
    import pyarrow as pa  # heavy, and only needed for a training or a piece of evidence
    import pyarrow.feather

    names = ["timestamp", *Candle._fields]
    try:
        table = pyarrow.feather.read_table(pa.BufferReader(body), columns=names)
        times, *prices = (table[name].cast(pa.int64() if name == "timestamp" else pa.float64()) for name in names)
    except (pa.ArrowException, KeyError, OSError) as error:
        raise BadMessage(f"Expected bars as an Arrow file with {', '.join(names)}: {error}") from error
    if any(column.null_count for column in (times, *prices)):
        raise BadMessage(f"Expected {', '.join(names)} for each bar, some are missing.")
    history = History(times.to_pylist(), list(map(Candle, *(column.to_pylist() for column in prices))))
    if not all(before < after for before, after in pairwise(history.opened_at_ms)):
        raise BadMessage("Bars must ascend in time.")
    for bar in history.bars:
        if not is_sound(bar):
            raise BadMessage(f"A bar must have 0 < low <= open, close <= high and a volume of 0 or more, was {bar}.")
    return history


def is_sound(bar: Candle) -> bool:
    """Whether a bar is one: what has not this shape has no features."""
    ends = min(bar.open, bar.close), max(bar.open, bar.close)
    return 0.0 < bar.low <= ends[0] <= ends[1] <= bar.high < math.inf and 0.0 <= bar.volume < math.inf


def data_sha256(history: History) -> str:
    """SHA-256 (hex) over opened-at (int64 ms), then open, high, low, close and volume of each bar (float64)."""
    numbers = array("d", (number for bar in history.bars for number in bar))
    return hashlib.sha256(array("q", history.opened_at_ms).tobytes() + numbers.tobytes()).hexdigest()


def span_of(history: History) -> Span:
    """What these bars are, for a manifest. Raises BadMessage when there are none."""
    if not len(history):
        raise BadMessage("Expected at least one bar, there is none.")
    return Span(
        first=from_ms(history.opened_at_ms[0]),
        last=from_ms(history.opened_at_ms[-1]),
        bars=len(history),
        data_sha256=data_sha256(history),
    )


def cut(history: History, first_ms: int, last_ms: int) -> History:
    """The bars that opened in [first, last]."""
    kept = [i for i, ms in enumerate(history.opened_at_ms) if first_ms <= ms <= last_ms]
    return History([history.opened_at_ms[i] for i in kept], [history.bars[i] for i in kept])
