"""What may be used: candidates, the evidence on them, promotions, demotions, and the record of it all."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
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


class SlippageModel(msgspec.Struct, frozen=True, kw_only=True):
    """How slippage grows beyond `Costs.slippage_bps`. Every factor is 1 until there are bars enough to know it.

    mean = slippage_bps x clip(ATR14 / its mean over 60 bars, 0.5, 3)                     volatility
                        x clip(notional / 1 % of the mean daily turnover of 20 days, 0.5, 2)     size
                        x `weekend` on Saturdays and Sundays (UTC)
                        x `stress` after a week in which the instrument fell by more than `stress_fall`
    drawn from a normal distribution of this mean and `noise` x mean (x 1.5 under stress), never below 0

    Crypto: weekend 1.5, stress 2 after a fall of 5 %, noise 0.75; shares: 1, 2 after 3 %, 0.75.
    """

    volatility: bool = True
    size: bool = True
    weekend: float = 1.0
    stress: float = 1.0
    stress_fall: float = 0.05  # of the price, in 7 days
    noise: float = 0.0  # standard deviation / mean
    seed: int = 0  # of the noise, which depends on nothing but this and the bar's time

    def __post_init__(self) -> None:
        for name in ("weekend", "stress"):
            _require_number(self, name, least=1.0, most=100.0)
        _require_number(self, "stress_fall", least=0.0, most=1.0)
        _require_number(self, "noise", least=0.0, most=10.0)
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"SlippageModel.seed must be in 0..{2**31 - 1}, was {self.seed}.")


class Costs(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What trading was assumed to cost. Fees and slippage are of each fill's notional; zero cost is zero."""

    fee_bps: float  # of what takes liquidity: market orders and stops
    slippage_bps: float  # against the trader, on what takes liquidity
    maker_bps: float | None = None  # of what rested: limits and take-profits at the venue; None: as fee_bps
    min_fee: Decimal = Decimal(0)  # quote currency, of each fill
    tiers: tuple[
        tuple[Decimal, float], ...
    ] = ()  # from (notional traded in the run, quote currency) on, another fee_bps
    spread_bps: float = 0.0  # between bid and ask; what takes liquidity pays half of it
    slippage_model: SlippageModel | None = None  # None: slippage is always slippage_bps
    borrow_bps_year: float | None = None  # of what is owed in shares; None: they cannot be borrowed, so no short
    max_volume_share: float = 0.0  # of its bar's volume that orders may take; 0: all they want

    @property
    def backtest_only(self) -> tuple[str, ...]:
        """The fields that are in use and that only a backtest can charge: the engine's venue charges its own."""
        given = {
            "tiers": self.tiers,
            "slippage_model": self.slippage_model,
            "borrow_bps_year": self.borrow_bps_year,
            "max_volume_share": self.max_volume_share,
        }
        return tuple(name for name, value in given.items() if value)

    def __post_init__(self) -> None:
        most = 10_000.0
        for name in ("fee_bps", "slippage_bps", "spread_bps"):
            _require_number(self, name, least=0.0, most=most)
        for name in ("maker_bps", "borrow_bps_year"):
            if getattr(self, name) is not None:
                _require_number(self, name, least=0.0, most=most)
        _require_number(self, "max_volume_share", least=0.0, most=1.0)
        if self.slippage_bps + self.spread_bps / 2 >= most:
            raise ValueError(f"Costs: slippage and half the spread must be below 10000 bps together, was {self!r}.")
        if not (self.min_fee.is_finite() and self.min_fee >= 0):
            raise ValueError(f"Costs.min_fee must be a finite number >= 0, was {self.min_fee}.")
        froms = [notional for notional, _ in self.tiers]
        if any(not notional > 0 for notional in froms) or froms != sorted(set(froms)):
            raise ValueError(f"Costs.tiers must begin at rising notionals above 0, were {froms}.")
        if any(not 0 <= bps <= most for _, bps in self.tiers):
            raise ValueError(f"Costs.tiers must have fees in 0..10000 bps, were {self.tiers}.")


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


def _require_number(of: SlippageModel | Costs, name: str, *, least: float, most: float) -> None:
    value: float = getattr(of, name)
    if not least <= value <= most:  # NaN is not
        raise ValueError(f"{type(of).__name__}.{name} must be in {least:g}..{most:g}, was {value}.")
