"""Longer bars from shorter ones, and bars from trades: first, highest, lowest and last price, and the sum of quantities."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from shared.artifacts.bar_tables import checked, numbers_of, place, times_of
from shared.contracts.errors import NeedsOperator
from shared.contracts.times import timeframe_ms
from shared.trading.columns import Columns, Floats, Integers

if TYPE_CHECKING:
    import pyarrow as pa

QUANTITIES = ("amount", "quantity", "qty", "size", "volume")  # what a file of trades calls how much


def bars_of_trades(table: pa.Table, timeframe: str, source: str) -> Columns:
    """Bars of trades: first, highest, lowest and last price, and the sum of quantities.

    The last bar is left out: no later trade says that it closed.
    """
    quantity = next((name for name in QUANTITIES if name in table.column_names), "")
    if not quantity:
        raise NeedsOperator(f"{source}: expected trades with a price and one of {', '.join(QUANTITIES)}.")
    times, price = times_of(table, source), numbers_of(table, "price", source)
    amount = numbers_of(table, quantity, source)
    if not len(times):
        raise NeedsOperator(f"{source}: expected trades, found none.")
    faults = {
        "a finite price above 0": ~(price > 0) | ~np.isfinite(price),
        f"a finite {quantity} >= 0": ~(amount >= 0) | ~np.isfinite(amount),
        "trades in the order of time": np.diff(times, prepend=times[0]) < 0,
    }
    for expected, fault in faults.items():
        if fault.any():
            i = int(np.argmax(fault))
            raise NeedsOperator(
                f"{source}, {place(times, i)}: expected {expected}, was price={price[i]} {quantity}={amount[i]}."
            )
    bars = grouped(times, price, price, price, price, amount, timeframe_ms(timeframe))
    if len(bars) < 2:
        raise NeedsOperator(f"{source}: {len(times)} trades do not fill one bar of {timeframe}.")
    return checked(bars.part(0, len(bars) - 1), source)


def grouped(
    times: Integers, open: Floats, high: Floats, low: Floats, close: Floats, volume: Floats, length: int
) -> Columns:
    """Rows of one bar of `length` ms each made into one. A bar without rows is absent."""
    bar = times // length
    begins = np.flatnonzero(np.diff(bar, prepend=bar[0] - 1))
    ends = np.append(begins[1:], len(bar)) - 1
    return Columns(
        bar[begins] * length,
        open[begins],
        np.maximum.reduceat(high, begins),
        np.minimum.reduceat(low, begins),
        close[ends],
        np.add.reduceat(volume, begins),
    )
