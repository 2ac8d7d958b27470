"""The market as it is told: what has closed, which bar is now open, and the next step. No chance and no clock here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple, Protocol

from services.venue_sim.market import Candle
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import Instrument
from shared.contracts.times import from_ms, timeframe_ms, to_ms


class Series(Protocol):
    """One instrument's bars, wherever they come from."""

    instrument: Instrument
    identity: str  # equal for equal bars

    @property
    def first_opened_at(self) -> int: ...
    def candle(self, index: int) -> Candle | None: ...
    def index_at(self, opened_at: int) -> int: ...


class Told(NamedTuple):
    """A bar that has just closed."""

    symbol: str
    candle: Candle


class Tape:
    """Several series under one market time.

    A step closes every bar that opened at the earliest instant not told yet; an instrument without one then has a gap.
    Bars before `begins_at` have been told from the start: they are history.
    """

    def __init__(
        self, series: Iterable[Series], timeframe: str, begins_at: datetime | None, ends_at: datetime | None
    ) -> None:
        """Bars that open at `ends_at` or later are never told. Raises NeedsOperator when none would be."""
        self.timeframe = timeframe
        self.length = timeframe_ms(timeframe)
        self._series = {each.instrument.symbol: each for each in series}
        self._ends_at = None if ends_at is None else to_ms(ends_at)
        first = min(each.first_opened_at for each in self._series.values())
        self.begins_at = first if begins_at is None else to_ms(begins_at)
        self._next = {symbol: each.index_at(self.begins_at) for symbol, each in self._series.items()}
        self._begun_at = dict(self._next)
        self._last: dict[str, Candle | None] = {}
        self._open: dict[str, Candle | None] = {}
        self._look_at(self._series)
        if self._upcoming() is None:
            raise NeedsOperator(
                f"The market {', '.join(self._series)} has no bar from {from_ms(self.begins_at):%Y-%m-%d %H:%M} on"
                + ("." if ends_at is None else f" that opens before {ends_at:%Y-%m-%d %H:%M}.")
                + " Choose --from and --to within the files."
            )

    @property
    def identity(self) -> str:
        """Equal for markets of which one can go on where the other stood. Where it ends does not matter."""
        return " ".join([self.timeframe, str(self.begins_at), *sorted(each.identity for each in self._series.values())])

    @property
    def instruments(self) -> list[Instrument]:
        return [each.instrument for each in self._series.values()]

    @property
    def is_finished(self) -> bool:
        return self._upcoming() is None

    @property
    def now(self) -> int:
        """Market time, ms: the close of the last bar told; before the first step, where the market begins."""
        closes = [last.opened_at + self.length for last in map(self.last, self._series) if last is not None]
        return max([*closes, self.begins_at]) if self.has_begun else self.begins_at

    @property
    def has_begun(self) -> bool:
        return self._next != self._begun_at

    @property
    def position(self) -> dict[str, int]:
        """How many bars of each instrument have closed, history included: all that a restart needs."""
        return dict(self._next)

    @position.setter
    def position(self, position: dict[str, int]) -> None:
        self._next = dict(position)
        self._look_at(self._series)

    @property
    def position_after(self) -> dict[str, int]:
        """The position once the next step is taken."""
        return self._next | {symbol: self._next[symbol] + 1 for symbol, _ in self.upcoming()}

    def told(self, symbol: str) -> int:
        """How many bars of this instrument were told since the market began."""
        return self._next[symbol] - self._begun_at[symbol]

    def missing(self, symbol: str) -> int:
        """How many bars of the grid between the first and the last one told since the beginning never existed."""
        last = self.last(symbol)
        if last is None or not self.told(symbol):
            return 0
        first = self._series[symbol].candle(self._begun_at[symbol])
        assert first is not None  # it was told
        return (last.opened_at - first.opened_at) // self.length + 1 - self.told(symbol)

    def last(self, symbol: str) -> Candle | None:
        """The last bar that closed, or None before the first."""
        return self._last[symbol]

    def open_bar(self, symbol: str) -> Candle | None:
        """The bar that is now open, of which only its open is known outside; None after the market's end."""
        return self._open[symbol]

    def upcoming(self) -> list[Told]:
        """The bars that the next step closes, empty at the end."""
        opened_at = self._upcoming()
        bars = ((symbol, self.open_bar(symbol)) for symbol in self._series)
        return [Told(symbol, bar) for symbol, bar in bars if bar is not None and bar.opened_at == opened_at]

    def advance(self) -> list[Told]:
        """Close them. From here on a market order meets the next open."""
        closed = self.upcoming()
        for symbol, _ in closed:
            self._next[symbol] += 1
        self._look_at(symbol for symbol, _ in closed)
        return closed

    def between(self, symbol: str, first: int | None, last: int | None, limit: int) -> list[Candle]:
        """Closed bars that opened in [first, last] (ms): the earliest ones from `first`, else the latest ones."""
        series = self._series[symbol]
        stop = self._next[symbol] if last is None else min(self._next[symbol], series.index_at(last + 1))
        start = max(0, stop - limit) if first is None else series.index_at(first)
        bars = (series.candle(index) for index in range(start, min(stop, start + limit)))
        return [bar for bar in bars if bar is not None]

    def _look_at(self, symbols: Iterable[str]) -> None:
        """Have the bars on both sides of the present at hand: they are asked for many times a step."""
        for symbol in symbols:
            series, index = self._series[symbol], self._next[symbol]
            self._last[symbol] = series.candle(index - 1) if index > 0 else None
            self._open[symbol] = series.candle(index)

    def _upcoming(self) -> int | None:
        """When the bars of the next step opened."""
        opens = [bar.opened_at for bar in map(self.open_bar, self._series) if bar is not None]
        earliest = min(opens, default=None)
        return None if earliest is None or (self._ends_at is not None and earliest >= self._ends_at) else earliest
