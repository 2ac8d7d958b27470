"""What the market is doing, as the causal filter reads it."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

from shared.contracts.times import timeframe_length, to_ms
from shared.contracts.wire import Message, require, require_token

RegimeName = Literal["BULL", "BEAR", "CHOP", "UNKNOWN"]


class RegimeReading(Message, frozen=True, kw_only=True):
    """The forward-filtered posterior after one closed bar. Without a model the name is UNKNOWN and the odds are NaN."""

    venue: str
    symbol: str
    timeframe: str
    opened_at: datetime  # of the bar that was read
    regime: RegimeName
    bull: float  # probabilities, summing to 1, or all NaN
    bear: float
    chop: float
    model_id: str  # "" when there is none
    context: tuple[float, ...]  # what the bandit sees, whole
    context_schema: str  # names and versions of the context's numbers: a new one starts new posteriors
    reading_hash: str  # of the posterior's exact bytes; the engine's own must be equal
    log_likelihood: float = math.nan  # of this bar given those before it, nats: how well the model foretold it
    is_history: bool = False

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.symbol, self.timeframe)
        _require_odds(self, self.regime, (self.bull, self.bear, self.chop))
        require(all(map(math.isfinite, self.context)), self, "a finite context")

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}.{to_ms(self.opened_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.opened_at + timeframe_length(self.timeframe)


class MarketRegime(Message, frozen=True, kw_only=True):
    """What several instruments do as one: the reading of an equally weighted index of them. Nobody trades it."""

    venue: str
    timeframe: str
    members: tuple[str, ...]
    opened_at: datetime  # of the bar that was read
    regime: RegimeName
    bull: float  # probabilities, summing to 1, or all NaN
    bear: float
    chop: float
    model_id: str  # "" when there is none
    reading_hash: str  # of the posterior's exact bytes
    log_likelihood: float = math.nan  # of this bar given those before it, nats

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.timeframe, *self.members)
        _require_odds(self, self.regime, (self.bull, self.bear, self.chop))

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.timeframe}.{to_ms(self.opened_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.opened_at + timeframe_length(self.timeframe)


class RegimeTransition(Message, frozen=True, kw_only=True):
    """The most likely regime is another than a bar ago."""

    venue: str
    symbol: str
    timeframe: str
    opened_at: datetime  # of the first bar of the new regime
    before: RegimeName
    after: RegimeName
    model_probability: float  # of this transition, by the model's matrix; NaN from or to UNKNOWN
    model_id: str
    surprise_bits: float = math.nan  # -log2 of model_probability: 0 when it was certain, infinite when impossible

    def __post_init__(self) -> None:
        require_token(self, self.venue, self.symbol, self.timeframe)
        require(self.before != self.after, self, "before != after")
        require(not self.surprise_bits < 0.0, self, "surprise_bits >= 0 or NaN")

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}.{to_ms(self.opened_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.opened_at + timeframe_length(self.timeframe)


class RegimeMismatch(Message, frozen=True, kw_only=True):
    """Engine and ml_service read the same bar with the same model and came to different bytes. The engine's is right."""

    venue: str
    symbol: str
    timeframe: str
    opened_at: datetime
    model_id: str
    engine_hash: str
    service_hash: str

    @property
    def key(self) -> str:
        return f"{self.venue}.{self.symbol}.{self.timeframe}.{to_ms(self.opened_at)}.{self.model_id}"

    @property
    def happened_at(self) -> datetime:
        return self.opened_at + timeframe_length(self.timeframe)


def _require_odds(of: Message, regime: RegimeName, odds: tuple[float, float, float]) -> None:
    if regime == "UNKNOWN":
        require(all(map(math.isnan, odds)), of, "NaN odds while UNKNOWN")
    else:
        require(all(0.0 <= p <= 1.0 for p in odds), of, "0 <= probability <= 1")
        require(abs(sum(odds) - 1.0) < 1e-9, of, "bull + bear + chop = 1")
