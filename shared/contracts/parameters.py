"""Which admitted preset is chosen now, with what odds, and what came of it."""

from __future__ import annotations

import hashlib
import math
from datetime import datetime

from shared.contracts.times import to_ms
from shared.contracts.wire import Message, require, require_token


class ParamDecision(Message, frozen=True, kw_only=True):
    """One choice, for one epoch of one sleeve. Made on reading *t*, it takes effect at *t+1*."""

    decision_id: str
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    preset_id: str
    epoch: int
    decided_on: datetime  # opened_at of the bar whose reading was used
    decided_at: datetime  # its close: venue time
    policy_version: str
    context: tuple[float, ...]
    context_schema: str
    propensities: dict[str, float]  # preset id -> probability of being chosen, summing to 1

    def __post_init__(self) -> None:
        require_token(self, self.decision_id, self.venue, self.strategy, self.symbol, self.timeframe, self.preset_id)
        require(self.preset_id in self.propensities, self, "the chosen preset among the propensities")
        require(all(0.0 <= p <= 1.0 for p in self.propensities.values()), self, "0 <= propensity <= 1")
        require(abs(sum(self.propensities.values()) - 1.0) < 1e-6, self, "propensities that sum to 1")

    @property
    def key(self) -> str:
        return self.decision_id

    @property
    def happened_at(self) -> datetime:
        return self.decided_at


class ParamOutcome(Message, frozen=True, kw_only=True):
    """What a decision earned, told once: net result over risk at entry, or 0 if nothing was opened."""

    decision_id: str
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    preset_id: str
    trade_id: str  # "" when nothing was opened
    reward: float  # in units of risk (R)
    learned_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.decision_id, self.venue, self.strategy, self.symbol, self.timeframe, self.preset_id)
        require(math.isfinite(self.reward), self, "a finite reward")

    @property
    def key(self) -> str:
        return self.decision_id

    @property
    def happened_at(self) -> datetime:
        return self.learned_at


def decision_id(venue: str, strategy: str, symbol: str, timeframe: str, decided_on: datetime) -> str:
    """The deterministic id of the decision that a sleeve made on one bar: a hash, so that it fits any names."""
    said = f"{venue}.{strategy}.{symbol}.{timeframe}.{to_ms(decided_on)}"
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
