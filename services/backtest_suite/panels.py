"""What a backtest over many instruments runs on: bars of several, side by side, with the face of `data.Bars`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np

from services.backtest_suite.data import Bars, Universe
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import Instrument
from shared.contracts.times import from_ms
from shared.trading.columns import Floats, MarketColumns

NAMED = 3  # instruments that are named in a title; of more it says how many


@dataclass(frozen=True)
class Panel:
    """Closed bars of several instruments, on the times at which any of them has one. Their order is the strategy's."""

    members: tuple[Bars, ...]

    def __post_init__(self) -> None:
        names = [each.symbol for each in self.members]
        frames = sorted({each.timeframe for each in self.members})
        if len(set(names)) != len(names):
            twice = ", ".join(sorted({name for name in names if names.count(name) > 1}))
            raise NeedsOperator(f"A portfolio has each instrument once, there was {twice} again. Name each file once.")
        if len(frames) != 1:
            raise NeedsOperator(
                f"A portfolio has bars of one timeframe, there were {', '.join(frames) or 'none'}. "
                "Say one that all can be made into, such as --timeframe 1d, or take the others away."
            )

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def columns(self) -> MarketColumns:
        """Tables (n, instruments), NaN where one has no bar."""
        return MarketColumns.of({each.symbol: each.columns for each in self.members})

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        return tuple(each.instrument for each in self.members)

    @property
    def symbol(self) -> str:
        """`ETH-USDT, BTC-USDT`; of more than three `86 instruments`."""
        return _named([each.symbol for each in self.members])

    @property
    def timeframe(self) -> str:
        return self.members[0].timeframe

    @property
    def universe(self) -> Universe:
        """What must be said of the whole: survivors when any member is one, point in time only when all are."""
        said = {each.universe for each in self.members}
        return "survivors" if "survivors" in said else "unknown" if "unknown" in said else "point_in_time"

    @property
    def source(self) -> str:
        return ", ".join(dict.fromkeys(each.source for each in self.members))

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the members, each said once with the names that it holds for."""
        said: dict[str, list[str]] = {}
        for each in self.members:
            for note in each.notes:
                said.setdefault(note, []).append(each.symbol)
        return tuple(f"{_named(names)}: {note}" for note, names in said.items())

    @cached_property
    def sha256(self) -> str:
        """The hash that names these bars, their symbols and their order."""
        return self.columns.sha256()

    @property
    def first(self) -> datetime:
        """When the first bar of any opened."""
        return from_ms(int(self.columns.opened_at_ms[0]))

    @property
    def last(self) -> datetime:
        """When the last bar of any opened."""
        return from_ms(int(self.columns.opened_at_ms[-1]))

    @property
    def gaps(self) -> int:
        """Places at which bars are missing; before its listing and after its end an instrument lacks nothing."""
        return sum(each.gaps for each in self.members if len(each))

    @property
    def missing(self) -> int:
        """Bars that are missing."""
        return sum(each.missing for each in self.members if len(each))

    def held(self, first: int) -> Floats:
        """What 1.0, put in equal parts into all that have a bar at `first`, is worth at each close from there on.

        Shape (n - first,). Nothing is put right later; what has no bar any more counts with its last close.
        """
        close = self.columns.close[first:]
        there = close[:, ~np.isnan(close[0])]
        last_known = np.maximum.accumulate(np.where(np.isnan(there), 0, np.arange(len(there))[:, None]), axis=0)
        known = np.take_along_axis(there, last_known, axis=0)
        return np.mean(known / known[0], axis=1)

    def part(self, first: int, end: int) -> Panel:
        """Slices `first` up to, not including, `end`. A member may have no bar in them."""
        times = self.columns.opened_at_ms[first:end]
        span = (int(times[0]), int(times[-1])) if len(times) else (0, -1)
        return Panel(tuple(replace(each, columns=each.columns.between(*span)) for each in self.members))


def _named(symbols: list[str]) -> str:
    return ", ".join(symbols) if len(symbols) <= NAMED else f"{len(symbols):,} instruments"
