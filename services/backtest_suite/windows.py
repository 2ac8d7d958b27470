"""Where training and test spans lie. Pure.

rolling   |--- train ---|e|- test -|                       e: embargo, bars that nobody looks at
                     |--- train ---|e|- test -|
anchored  |--- train ---|e|- test -|
          |--------- train --------|e|- test -|
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import NamedTuple

import msgspec
import numpy as np

from services.backtest_suite.driver import Experiment
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.times import MILLISECOND, timeframe_ms
from shared.trading.columns import Integers

UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def length_of(text: str) -> timedelta:
    """`365d`, `12w`, `48h` or `90m`. Raises BadMessage on anything else."""
    found = re.fullmatch(r"(\d{1,6})([mhdw])", text.strip())
    if found is None or int(found[1]) == 0:
        raise BadMessage(f"Expected a length such as 365d, 12w, 48h or 90m, was {text!r}.")
    return int(found[1]) * UNITS[found[2]]


@dataclass(frozen=True)
class Scheme:
    """How the windows lie."""

    train: timedelta
    test: timedelta
    anchored: bool = False  # every training span begins at the first bar
    embargo: int = 0  # bars between training and test

    def __post_init__(self) -> None:
        if self.train <= timedelta(0) or self.test <= timedelta(0) or self.embargo < 0:
            raise NeedsOperator(f"A walk-forward must have train > 0, test > 0 and embargo >= 0, was {self}.")


class Window(NamedTuple):
    """Places of bars: training is [train_from, train_end), test is [test_from, test_end)."""

    train_from: int
    train_end: int
    test_from: int
    test_end: int


def windows_of(opened_at_ms: Integers, timeframe: str, scheme: Scheme) -> list[Window]:
    """The windows that fit. Spans are of time, so that a gap does not shift them. Raises NeedsOperator when none fits."""
    bar = timeframe_ms(timeframe)
    train, test, embargo = scheme.train // MILLISECOND, scheme.test // MILLISECOND, scheme.embargo * bar
    first, end = int(opened_at_ms[0]), int(opened_at_ms[-1]) + bar
    found: list[Window] = []
    for begins in range(first + train + embargo, end - test + 1, test):
        trained = begins - embargo
        edges = [first if scheme.anchored else trained - train, trained, begins, begins + test]
        found.append(Window(*np.searchsorted(opened_at_ms, edges).tolist()))
    if not found:
        raise NeedsOperator(
            f"One window of a walk-forward needs {-(-(train + embargo + test) // bar):,} bars of {timeframe} "
            f"({-(-train // bar):,} to train, {scheme.embargo:,} of embargo, {-(-test // bar):,} to test), there are "
            f"{(end - first) // bar:,}. Give more bars, or a shorter --train or --test."
        )
    return found


def training(experiment: Experiment, window: Window) -> Experiment:
    """The same experiment on the window's training bars, and on nothing else."""
    return replace(
        experiment,
        bars=experiment.bars.part(window.train_from, window.train_end),
        assumptions=msgspec.structs.replace(experiment.assumptions, trade_from=0),
    )
