"""What may be used: candidates, the evidence on them, promotions, demotions, and the record of it all."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from shared.contracts.times import to_ms
from shared.contracts.wire import Message, require, require_token

Stage = Literal["candidate", "champion", "refused", "demoted"]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What a run of a strategy earned, net of costs. NaN where it cannot be known (no trades, no variance)."""

    bars: int
    trades: int
    net_return: float  # fraction of starting equity
    sharpe: float  # annualised by the instrument's calendar
    max_drawdown: float  # fraction, >= 0
    win_rate: float  # fraction of trades
    profit_factor: float
    expectancy_r: float  # mean net result of a trade in units of its risk
    fees: float  # quote currency


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Bars from the one that opened at `first` to the one that opened at `last`, both included, and their hash."""

    first: datetime
    last: datetime
    bars: int
    data_sha256: str


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What trading was assumed to cost."""

    fee_bps: float
    slippage_bps: float


class ModelTrained(Message, frozen=True, kw_only=True):
    """A regime model wants to be used. Its bytes lie in the artifacts under their SHA-256; `manifest` travels whole."""

    model_id: str  # SHA-256 of the parameters' bytes
    symbol: str
    venue: str
    timeframe: str
    manifest: bytes  # canonical JSON, see shared/artifacts
    trained_on: Span
    metric_name: str
    metric_value: float  # on rows held out from the fit
    is_synthetic: bool
    trained_at: datetime  # venue time

    def __post_init__(self) -> None:
        require_token(self, self.model_id, self.venue, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return self.model_id

    @property
    def happened_at(self) -> datetime:
        return self.trained_at


class ModelPromoted(Message, frozen=True, kw_only=True):
    """This model reads this instrument from the next closed bar on. Said by the governor alone."""

    model_id: str
    venue: str
    symbol: str
    timeframe: str
    manifest: bytes
    evidence_id: str
    promoted_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.model_id, self.venue, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return f"{self.model_id}.{to_ms(self.promoted_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.promoted_at


class ModelDemoted(Message, frozen=True, kw_only=True):
    """This model is no longer used; until another is promoted the regime is UNKNOWN."""

    model_id: str
    venue: str
    symbol: str
    timeframe: str
    reason: str
    demoted_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.model_id, self.venue, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return f"{self.model_id}.{to_ms(self.demoted_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.demoted_at


class ModelDrifted(Message, frozen=True, kw_only=True):
    """The model's predictive likelihood fell below what its held-out span promised."""

    model_id: str
    venue: str
    symbol: str
    timeframe: str
    expected: float  # mean log-likelihood a bar, held out
    seen: float
    bars: int
    at: datetime

    @property
    def key(self) -> str:
        return f"{self.model_id}.{to_ms(self.at)}"

    @property
    def happened_at(self) -> datetime:
        return self.at


class PresetCandidate(Message, frozen=True, kw_only=True):
    """A parameter set wants to be used, with what its maker found. The governor does not believe it."""

    preset_id: str  # SHA-256 of `preset`
    preset: bytes  # canonical JSON, see shared/artifacts
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    origin: Literal["backtest", "manual", "default"]
    train: Span | None
    train_figures: Figures | None
    test: Span | None
    test_figures: Figures | None
    costs: Costs | None
    trials: int  # parameter sets tried on this data before this one was chosen
    proposed_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.preset_id, self.venue, self.strategy, self.symbol, self.timeframe)
        require(self.trials >= 0, self, "trials >= 0")

    @property
    def key(self) -> str:
        return f"{self.preset_id}.{to_ms(self.proposed_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.proposed_at


class PresetPromoted(Message, frozen=True, kw_only=True):
    """This parameter set may be chosen, by new positions, from the next closed bar on. Said by the governor alone."""

    preset_id: str
    preset: bytes
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    evidence_id: str  # "" for a default preset, which is admitted from birth on paper
    promoted_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.preset_id, self.venue, self.strategy, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return f"{self.preset_id}.{to_ms(self.promoted_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.promoted_at


class PresetDemoted(Message, frozen=True, kw_only=True):
    """This parameter set is chosen no more; a position it opened is managed to its end."""

    preset_id: str
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    reason: str
    demoted_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.preset_id, self.venue, self.strategy, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return f"{self.preset_id}.{to_ms(self.demoted_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.demoted_at


class PresetRefused(Message, frozen=True, kw_only=True):
    """The gate did not pass this candidate. Each reason names the rule, its limit, and what was found."""

    preset_id: str
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    reasons: tuple[str, ...]
    evidence_id: str
    refused_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.preset_id, self.venue, self.strategy, self.symbol, self.timeframe)
        require(bool(self.reasons), self, "at least one reason")

    @property
    def key(self) -> str:
        return f"{self.preset_id}.{to_ms(self.refused_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.refused_at


class StageChanged(Message, frozen=True, kw_only=True):
    """One line of the governor's hash-chained record: what moved where, why, on whose word and which evidence."""

    sequence: int  # 1, 2, 3, ... without holes
    kind: Literal["model", "preset"]
    subject_id: str
    venue: str
    strategy: str  # "" for a model
    symbol: str
    timeframe: str
    before: Stage
    after: Stage
    reasons: tuple[str, ...]  # rules that failed, or those that passed with their figures
    profile: str  # name and version of the gate
    evidence_id: str
    actor: str  # "gate", or the person's token name
    changed_at: datetime
    previous_hash: str
    hash: str  # SHA-256 over all of the above

    def __post_init__(self) -> None:
        require(self.sequence >= 1, self, "sequence >= 1")

    @property
    def key(self) -> str:
        return f"{self.sequence}.{self.hash[:16]}"

    @property
    def happened_at(self) -> datetime:
        return self.changed_at
