"""Bars of the past, as the ingester hands them out over HTTP, and the hash that names them."""

from __future__ import annotations

import asyncio
import hashlib
import math
import struct
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from shared.contracts.errors import BadMessage
from shared.contracts.governance import Span
from shared.contracts.times import from_ms
from shared.runtime.ingester import IngesterClient


@dataclass(frozen=True)
class History:
    """Closed bars, ascending. Only what the regime model reads of them."""

    opened_at_ms: list[int]
    closes: list[float]

    def __len__(self) -> int:
        return len(self.closes)


class Ingester:
    """The bars that the ingester holds, as this service reads them."""

    def __init__(self, address: str) -> None:
        self._client = IngesterClient(address)
        self.close = self._client.close

    async def history(self, symbol: str, timeframe: str, first: datetime, last: datetime) -> History:
        """The bars that opened in [first, last]. Raises TryAgain when it does not answer, BadMessage on nonsense."""
        return await asyncio.to_thread(parse_history, await self._client.bars(symbol, timeframe, first, last))


def parse_history(body: bytes) -> History:
    """Columns `timestamp` (ms) and `close` of an Arrow file. Raises BadMessage unless times ascend and prices are > 0."""
    import pyarrow as pa  # heavy, and only needed for a training or a piece of evidence
    import pyarrow.feather

    try:
        table = pyarrow.feather.read_table(pa.BufferReader(body), columns=["timestamp", "close"])
        times, closes = table["timestamp"].cast(pa.int64()), table["close"].cast(pa.float64())
    except (pa.ArrowException, KeyError, OSError) as error:
        raise BadMessage(f"Expected bars as an Arrow file with timestamp and close: {error}") from error
    if times.null_count or closes.null_count:
        raise BadMessage("Expected a time and a close for each bar, some are missing.")
    history = History(times.to_pylist(), closes.to_pylist())
    ascends = all(before < after for before, after in pairwise(history.opened_at_ms))
    if not ascends or not all(0.0 < close < math.inf for close in history.closes):
        raise BadMessage("Bars must ascend in time and have closes that are finite and above 0.")
    return history


def data_sha256(history: History) -> str:
    """SHA-256 (hex) over opened-at (int64 ms) and closes (float64), little-endian: all that a regime model reads."""
    times = struct.pack(f"<{len(history)}q", *history.opened_at_ms)
    return hashlib.sha256(times + struct.pack(f"<{len(history)}d", *history.closes)).hexdigest()


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
    return History([history.opened_at_ms[i] for i in kept], [history.closes[i] for i in kept])
