"""What to hold from each bar on, as columns: what deciding leaves to executing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.trading.columns import Floats, Integers


@dataclass(frozen=True)
class Targets:
    """What to hold from each bar on, decided elsewhere: `values.Target` as columns of shape (n,)."""

    exposure: Floats
    stop: Floats
    take_profit: Floats
    trail: Floats
    max_bars: Integers
    limit: Floats
    trigger: Floats

    @classmethod
    def of(
        cls,
        exposure: Any,
        stop: Any = math.nan,
        take_profit: Any = math.nan,
        trail: Any = math.nan,
        max_bars: Any = 0,
        limit: Any = math.nan,
        trigger: Any = math.nan,
    ) -> Targets:
        """Targets from whatever numpy takes; a single number holds for all bars."""
        size = np.shape(exposure)

        def column(of: Any, kind: Any) -> Any:
            return np.array(np.broadcast_to(of, size), kind)

        floats = np.float64
        return cls(
            column(exposure, floats),
            column(stop, floats),
            column(take_profit, floats),
            column(trail, floats),
            column(max_bars, np.int64),
            column(limit, floats),
            column(trigger, floats),
        )

    def __len__(self) -> int:
        return len(self.exposure)

    def all(self) -> tuple[Floats, Floats, Floats, Floats, Integers, Floats, Floats]:
        return self.exposure, self.stop, self.take_profit, self.trail, self.max_bars, self.limit, self.trigger
