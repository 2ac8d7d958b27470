"""Bars as columns: what a backtest reads. Checked once here, so that the loop need not."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.contracts.errors import BadMessage
from shared.contracts.times import from_ms

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """Bars of one instrument, oldest first. All arrays have shape (n,), are contiguous and owned."""

    opened_at_ms: Integers
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    @classmethod
    def of(cls, opened_at_ms: Any, open: Any, high: Any, low: Any, close: Any, volume: Any) -> Columns:
        """Columns from whatever numpy takes. Raises BadMessage that names the first bar that is not one."""
        # A column that is read-only, strided or of another kind would be compiled for once more.
        owned = partial(np.require, requirements=["C", "W", "O"])
        made = cls(
            owned(opened_at_ms, np.int64),
            owned(open, np.float64),
            owned(high, np.float64),
            owned(low, np.float64),
            owned(close, np.float64),
            owned(volume, np.float64),
        )
        _check(made)
        return made

    def __len__(self) -> int:
        return len(self.close)

    @cached_property
    def top(self) -> float:
        """The highest price, for the test that positions stay countable."""
        return float(self.high.max())

    def between(self, first_ms: int, last_ms: int) -> Columns:
        """The bars that opened in [first, last]."""
        a, b = np.searchsorted(self.opened_at_ms, [first_ms, last_ms + 1])
        return self.part(int(a), int(b))

    def part(self, first: int, end: int) -> Columns:
        """Bars `first` up to, not including, `end`."""
        cut = slice(first, end)
        return Columns(
            self.opened_at_ms[cut], self.open[cut], self.high[cut], self.low[cut], self.close[cut], self.volume[cut]
        )

    def all(self) -> tuple[Integers, Floats, Floats, Floats, Floats, Floats]:
        """The six columns in their order."""
        return self.opened_at_ms, self.open, self.high, self.low, self.close, self.volume

    def sha256(self) -> str:
        """The hash of the columns' bytes (little-endian, one column after the other): names the data, not the file."""
        return _sha256(self.all())


@dataclass(frozen=True)
class MarketColumns:
    """Bars of several instruments on the times at which any of them has one. Tables have shape (n_bars, n), NaN where
    an instrument has no bar: before its listing, after its end, in a gap.
    """

    symbols: tuple[str, ...]  # (n,)
    opened_at_ms: Integers  # (n_bars,)
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats

    @classmethod
    def of(cls, bars: Mapping[str, Columns]) -> MarketColumns:
        """The bars of each symbol, put side by side in the order of the mapping."""
        times = np.unique(np.concatenate([each.opened_at_ms for each in bars.values()] or [np.zeros(0, np.int64)]))
        tables = np.full((5, len(times), len(bars)), math.nan)
        for k, each in enumerate(bars.values()):
            tables[:, np.searchsorted(times, each.opened_at_ms), k] = each.all()[1:]
        return cls(tuple(bars), times, *tables)

    def __len__(self) -> int:
        return len(self.opened_at_ms)

    @cached_property
    def tops(self) -> Floats:
        """The highest price of each instrument (n,), for the test that positions stay countable; 0.0 without a bar."""
        return np.fmax.reduce(self.high, axis=0, initial=0.0)

    def between(self, first_ms: int, last_ms: int) -> MarketColumns:
        """The bars that opened in [first, last]."""
        a, b = np.searchsorted(self.opened_at_ms, [first_ms, last_ms + 1])
        return self.part(int(a), int(b))

    def part(self, first: int, end: int) -> MarketColumns:
        """Bars `first` up to, not including, `end`."""
        cut = slice(first, end)
        tables = (table[cut] for table in self.all()[1:])
        return MarketColumns(self.symbols, self.opened_at_ms[cut], *tables)

    def all(self) -> tuple[Integers, Floats, Floats, Floats, Floats, Floats]:
        """The times and the five tables in their order."""
        return self.opened_at_ms, self.open, self.high, self.low, self.close, self.volume

    def sha256(self) -> str:
        """The hash of symbols, times and tables: names the data, not the files."""
        return _sha256(self.all(), ",".join(self.symbols))


def _sha256(columns: Iterable[NDArray[Any]], name: str = "") -> str:
    digest = hashlib.sha256(name.encode())
    for column in columns:
        digest.update(column.astype(column.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def fault(bars: Columns) -> tuple[int, str] | None:
    """The first bar that is none, and what was expected of it: (place, rule). None when all are bars."""
    with np.errstate(invalid="ignore"):  # a NaN is named by the first rule; what it compares to is no matter
        low, high = np.minimum(bars.open, bars.close), np.maximum(bars.open, bars.close)
        later = np.diff(bars.opened_at_ms, prepend=bars.opened_at_ms[:1] - 1)
        rules = {
            "a finite price above 0": (bars.low > 0)
            & np.isfinite(low)
            & np.isfinite(bars.low)
            & np.isfinite(bars.high),
            "high >= low": bars.high >= bars.low,
            "low <= open, close <= high": (bars.low <= low) & (high <= bars.high),
            "a finite volume >= 0": (bars.volume >= 0) & np.isfinite(bars.volume),
            "a later time than the bar before, not the same": later != 0,
            "a later time than the bar before": later > 0,
        }
    for expected, held in rules.items():
        if not held.all():
            return int(np.argmin(held)), expected
    return None


def told(bars: Columns, i: int) -> str:
    """What bar `i` says: `open=1.0 high=2.0 low=0.5 close=1.5 volume=3.0`."""
    return " ".join(f"{name}={getattr(bars, name)[i]}" for name in ("open", "high", "low", "close", "volume"))


def _check(bars: Columns) -> None:
    sizes = {len(column) for column in bars.all()}
    if len(sizes) != 1:
        raise BadMessage(f"Columns of bars must have one length, had {sorted(sizes)}.")
    if found := fault(bars):
        i, expected = found
        raise BadMessage(
            f"Bar {i} ({from_ms(int(bars.opened_at_ms[i])):%Y-%m-%d %H:%M}) must have {expected}, was {told(bars, i)}."
        )
