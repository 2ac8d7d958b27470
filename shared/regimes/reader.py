"""One instrument, read bar by bar: features, filter, names and context in one place.

The engine decides by it and ml_service publishes it. Both come to the same bits, because a model's filter starts at a
bar that the promotion names, not at whichever bar a service had reached when it heard of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from shared.contracts.regime import RegimeName
from shared.regimes.context import UNKNOWN_CONTEXT, context_of
from shared.regimes.features import WARMUP_BARS, Features, FeatureState, Prices, start_features, step_features
from shared.regimes.hmm import (
    FilterState,
    RegimeModel,
    odds,
    reading_hash,
    start_filter,
    step_filter,
    transition_probability,
)

SETTLE_BARS = 120  # the filter forgets its start within about 100 bars
KEPT_BARS = 512  # a promotion heard this late, less the above, still starts at the bar that it names
LIFE_BARS = 20_000  # after its promotion a model that nothing has succeeded is stale: nobody has confirmed it since
BARS_TO_RESUME = KEPT_BARS + WARMUP_BARS  # bars from which a reader is rebuilt


class Reading(NamedTuple):
    """What one closed bar says."""

    opened_at_ms: int
    regime: RegimeName
    bull: float  # NaN, all three, while UNKNOWN
    bear: float
    chop: float
    model_id: str  # "" while there is none
    context: tuple[float, ...]
    reading_hash: str
    log_likelihood: float  # of this bar given those before, nats; NaN while UNKNOWN

    @property
    def confidence(self) -> float:
        """The odds of the regime that is named; NaN while UNKNOWN."""
        return self.bull if self.regime == "BULL" else self.bear if self.regime == "BEAR" else self.chop


class RegimeReader:
    """Closed bars of one instrument in, one reading a bar out. A model is changed between two bars."""

    def __init__(self, timeframe_ms: int) -> None:
        self.model: RegimeModel | None = None
        self.model_id = ""
        self.filter = start_filter()
        self._before = start_filter()
        self._promoted_at_ms: int | None = None
        self._timeframe_ms = timeframe_ms
        self._features: FeatureState = start_features()
        self._kept: deque[tuple[int, Features]] = deque(maxlen=KEPT_BARS)

    @classmethod
    def resume(
        cls,
        timeframe_ms: int,
        bars: Iterable[tuple[int, Prices]],
        model: RegimeModel | None = None,
        model_id: str = "",
        filter_state: FilterState | None = None,
        promoted_at_ms: int | None = None,
    ) -> RegimeReader:
        """A reader that goes on after `bars`, the last `BARS_TO_RESUME` of (opened_at_ms, bar), oldest first.

        `filter_state` is what `filter` was after the last of them: the next reading has the bits that it would have
        had without the interruption. A model of which nobody knows when it was promoted is never stale.
        """
        reader = cls(timeframe_ms)
        for opened_at_ms, bar in bars:
            reader._take(opened_at_ms, bar)
        reader.model, reader.model_id = model, model_id
        reader.filter, reader._promoted_at_ms = filter_state or start_filter(), promoted_at_ms
        return reader

    def on_bar(self, opened_at_ms: int, bar: Prices) -> Reading:
        """The reading of the bar that has just closed; UNKNOWN while warming up, without a model, or by a stale one."""
        x = self._take(opened_at_ms, bar)
        if self.model is None or x is None or self.is_stale(opened_at_ms):
            return unknown(opened_at_ms)
        self._before = self.filter
        self.filter = step_filter(self.model, self.filter, x)
        bull, bear, chop = belief = odds(self.model, self.filter)
        regime: RegimeName = "CHOP" if chop >= bull and chop >= bear else "BULL" if bull >= bear else "BEAR"
        return Reading(
            opened_at_ms=opened_at_ms,
            regime=regime,
            bull=bull,
            bear=bear,
            chop=chop,
            model_id=self.model_id,
            context=context_of(self.model, belief, x),
            reading_hash=reading_hash(self.filter.posterior),
            log_likelihood=self.filter.log_likelihood,
        )

    def use(self, model: RegimeModel, model_id: str, promoted_at_ms: int) -> None:
        """Read with this model from the next bar on. Its filter settles on the `SETTLE_BARS` before its promotion."""
        self.model, self.model_id, self._promoted_at_ms = model, model_id, promoted_at_ms
        self.filter = self._before = start_filter()
        first = promoted_at_ms - SETTLE_BARS * self._timeframe_ms
        for opened_at_ms, x in self._kept:
            if opened_at_ms >= first:
                self.filter = step_filter(model, self.filter, x)

    def is_stale(self, opened_at_ms: int) -> bool:
        """Whether the model in use is too old to read a bar that opened then."""
        promoted_at_ms = self._promoted_at_ms
        return promoted_at_ms is not None and opened_at_ms - promoted_at_ms > LIFE_BARS * self._timeframe_ms

    def drop(self) -> None:
        """Read UNKNOWN from the next bar on."""
        self.model, self.model_id, self._promoted_at_ms = None, "", None
        self.filter = self._before = start_filter()

    def probability_of(self, regime: RegimeName) -> float:
        """How likely the model held this regime for the last bar, before it saw it. NaN while UNKNOWN."""
        if self.model is None or not self._before.posterior or regime == "UNKNOWN":
            return math.nan
        return transition_probability(self.model, self._before, regime)

    def _take(self, opened_at_ms: int, bar: Prices) -> Features | None:
        self._features, x = step_features(self._features, bar)
        if x is not None:
            self._kept.append((opened_at_ms, x))
        return x


def unknown(opened_at_ms: int) -> Reading:
    """The reading of a bar that nothing can be said of."""
    nan = math.nan
    return Reading(opened_at_ms, "UNKNOWN", nan, nan, nan, "", UNKNOWN_CONTEXT, reading_hash(()), nan)
