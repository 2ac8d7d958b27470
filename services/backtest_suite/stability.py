"""Whether an optimum stands on a plateau or on a needle: the best of a grid against what lies beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.backtest_suite.axes import Number
from services.backtest_suite.manifests import Params

PLATEAU = 0.5  # below this score the neighbours lose more than half of what the optimum is better by

Floats = NDArray[np.float64]


class Surface:
    """A metric over the axes of a grid; greater is better.

    `values` has one dimension for each axis, each in ascending order. A set that failed or never traded is NaN there,
    and so is a place that the strategy's rule left out.
    """

    def __init__(self, axes: Mapping[str, Sequence[Number]], points: Sequence[tuple[Params, float]]) -> None:
        self.axes = {name: tuple(sorted(values)) for name, values in axes.items()}
        self._places = {name: {value: i for i, value in enumerate(values)} for name, values in self.axes.items()}
        shape = [len(values) for values in self.axes.values()]
        self.values: Floats = np.full(shape, math.nan)
        self._is_allowed = np.zeros(shape, bool)
        for params, value in points:
            self.values[self._place(params)] = value
            self._is_allowed[self._place(params)] = True

    def plateau(self, params: Params) -> float:
        """How much of what this set is better by, its neighbours share: 1 on a plateau, 0 on a needle.

            (mean of the neighbours - median of the grid) / (value - median of the grid)

        Neighbours are at most one step away on every axis; where the rule ends the grid there are none. One that failed
        or never traded counts as the median: it is no support. NaN when there is no neighbour.
        """
        place = self._place(params)
        around = tuple(slice(max(i - 1, 0), i + 2) for i in place)
        near = self.values[around][self._is_allowed[around]]
        value = float(self.values[place])
        if near.size < 2 or math.isnan(value):
            return math.nan
        median = float(np.nanmedian(self.values))
        mean = (float(np.where(np.isnan(near), median, near).sum()) - value) / (near.size - 1)
        return 1.0 if value == median else (mean - median) / (value - median)

    def edges(self, params: Params) -> list[str]:
        """The axes at whose end this set lies: better ones may lie outside of the grid."""
        return [
            name
            for (name, values), i in zip(self.axes.items(), self._place(params), strict=True)
            if len(values) > 2 and i in (0, len(values) - 1)
        ]

    def widest(self) -> tuple[str, str] | None:
        """The two axes with the most values, to be shown as a map; None when fewer than two have several."""
        several = [name for name, values in self.axes.items() if len(values) > 1]
        if len(several) < 2:
            return None
        two = sorted(several, key=lambda name: -len(self.axes[name]))[:2]
        down, across = sorted(two, key=several.index)
        return down, across

    def section(self, down: str, across: str, through: Params) -> Floats:
        """The metric over two axes (rows: `down`), the others held as in `through`."""
        place = self._place(through)
        cut = tuple(slice(None) if name in (down, across) else i for name, i in zip(self.axes, place, strict=True))
        found = self.values[cut]
        names = list(self.axes)
        return found if names.index(down) < names.index(across) else found.T

    def _place(self, params: Params) -> tuple[int, ...]:
        return tuple(places[params[name]] for name, places in self._places.items())
