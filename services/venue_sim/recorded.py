"""Recorded bars from files, one instrument a file. What is wrong with a file is said, not mended.

Bars that the exchange never made are absent here too: nothing is filled in.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np

from services.venue_sim.market import MIN_NOTIONAL, Candle
from shared.artifacts.bar_files import read_table
from shared.artifacts.bar_tables import MOST_DECIMALS, bars_of, place, price_decimals
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.instruments import Instrument, check_symbol, split_symbol, symbol_of_file, timeframe_of_file
from shared.contracts.times import TIMEFRAMES, timeframe_ms
from shared.trading.columns import Columns


class RecordedSeries:
    """The bars of one file, in memory."""

    def __init__(self, symbol: str, timeframe: str, bars: Columns) -> None:
        self.timeframe = timeframe
        self.instrument = instrument_of(symbol, bars)
        self._bars = bars
        self.identity = f"recorded/{symbol}/{timeframe}/{bars.sha256()}"

    def __len__(self) -> int:
        return len(self._bars)

    @property
    def first_opened_at(self) -> int:
        return int(self._bars.opened_at_ms[0])

    def candle(self, index: int) -> Candle | None:
        """The bar at this place, the first is 0; None after the end."""
        if index >= len(self):
            return None
        return Candle(*(column[index].item() for column in self._bars.all()))

    def index_at(self, opened_at: int) -> int:
        """The place of the first bar that opened at this instant (ms) or later."""
        return int(np.searchsorted(self._bars.opened_at_ms, opened_at))


def read_series(path: Path, symbol: str = "", timeframe: str = "") -> RecordedSeries:
    """One file's bars. Symbol and timeframe come from its name when they are not given.

    Raises NeedsOperator that names the file, the row (the first one of bars is 1) and what was expected.
    """
    try:
        symbol = check_symbol(symbol) if symbol else symbol_of_file(path.stem)
    except BadMessage as error:
        raise NeedsOperator(f"{path.name}: {error}") from error
    bars = bars_of(read_table(path), path.name)
    timeframe = timeframe or timeframe_of_file(path.stem) or _spacing(path, bars)
    length = timeframe_ms(timeframe)
    off = bars.opened_at_ms % length != 0
    if off.any():  # a venue's clock ticks on the grid
        raise NeedsOperator(
            f"{path.name}, {place(bars.opened_at_ms, int(np.argmax(off)))}: expected times on the grid of {length // 1000} s."
        )
    return RecordedSeries(symbol, timeframe, bars)


def instrument_of(symbol: str, bars: Columns) -> Instrument:
    """The steps that these prices were made in: the fewest decimals that hold all of them, at most eight.

    The lot takes what is left of eight decimals, at most five, so that price x quantity is exact.
    """
    decimals = price_decimals(bars.open, bars.high, bars.low, bars.close)
    if decimals is None:
        decimals = MOST_DECIMALS
    base, quote = split_symbol(symbol)
    return Instrument(
        symbol=symbol,
        base=base,
        quote=quote,
        tick=Decimal(1).scaleb(-decimals),
        lot=Decimal(1).scaleb(-min(5, MOST_DECIMALS - decimals)),
        min_notional=MIN_NOTIONAL if quote.endswith(("USDT", "USDC", "USD")) else Decimal("0.0001"),
    )


def _spacing(path: Path, bars: Columns) -> str:
    """The timeframe by the smallest distance of two bars."""
    distances = np.diff(bars.opened_at_ms)
    smallest = int(distances.min()) if len(distances) else 0
    for timeframe in TIMEFRAMES:
        if timeframe_ms(timeframe) == smallest:
            return timeframe
    raise NeedsOperator(f"{path.name}: cannot tell the timeframe. Name the file like BTCUSDT_1h{path.suffix}.")
