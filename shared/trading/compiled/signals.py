"""Boolean columns to targets: for those who think in entries and exits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from shared.contracts.errors import NeedsOperator
from shared.trading.columns import Floats
from shared.trading.compiled import Targets


def targets_from_signals(
    entries: Any,
    exits: Any,
    short_entries: Any = None,
    short_exits: Any = None,
    *,
    stop: Any = math.nan,
    take_profit: Any = math.nan,
    trail: Any = math.nan,
    max_bars: Any = 0,
) -> Targets:
    """Long from an entry (n,) until an exit (n,), and short likewise; flat before the first. One of each per bar.

    What is true on a bar is known at its close and traded after it. An exit on the bar of an entry wins: out. An entry
    while the other side is held turns the position. The distances of the exits are those of a `Target`: a number, or a
    column (n,). Raises NeedsOperator unless the columns are boolean and of one length.
    """
    longs, outs = _booleans("entries", entries), _booleans("exits", exits)
    shorts = np.zeros(len(longs), bool) if short_entries is None else _booleans("short_entries", short_entries)
    covers = np.zeros(len(longs), bool) if short_exits is None else _booleans("short_exits", short_exits)
    if len({len(column) for column in (longs, outs, shorts, covers)}) != 1:
        raise NeedsOperator(
            f"Entries and exits must have one length, had {len(longs)}, {len(outs)}, {len(shorts)} and {len(covers)}."
        )
    both = np.flatnonzero(longs & ~outs & shorts & ~covers)
    if len(both):
        raise NeedsOperator(f"Bar {both[0]} must enter one side, it enters both.")
    return Targets.of(_held(longs, outs, shorts, covers), stop, take_profit, trail, max_bars)


def _held(longs: Any, outs: Any, shorts: Any, covers: Any) -> Floats:
    """The side after each bar (n,): 1, 0 or -1."""
    held = np.zeros(len(longs))
    side = 0.0
    for i, (buy, sell, short, cover) in enumerate(
        zip(longs.tolist(), outs.tolist(), shorts.tolist(), covers.tolist(), strict=True)
    ):
        if buy and not sell:
            side = 1.0
        elif short and not cover:
            side = -1.0
        elif (side > 0.0 and sell) or (side < 0.0 and cover):
            side = 0.0
        held[i] = side
    return held


def _booleans(name: str, given: Any) -> Any:
    column = np.asarray(given)
    if column.ndim != 1 or column.dtype != np.bool_:
        raise NeedsOperator(f"{name} must be a column of booleans, was {column.dtype} of shape {column.shape}.")
    return column
