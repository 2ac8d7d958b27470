"""Work that one service orders from another, and its result. The governor orders its evidence this way."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Literal

from shared.contracts.governance import Costs, Figures, Span
from shared.contracts.instruments import members_of
from shared.contracts.wire import Message, require, require_token


class EvidenceOrdered(Message, frozen=True, kw_only=True):
    """Judge this candidate on this span. The governor chose the span; the applicant did not."""

    job_id: str
    worker: Literal["backtest_suite", "ml_service"]
    subject_id: str  # preset id or model id
    venue: str
    strategy: str  # "" for a model
    symbol: str
    timeframe: str
    preset: bytes  # canonical JSON; empty for a model
    first: datetime  # the holdout: bars that opened in [first, last]
    last: datetime
    costs: Costs
    ordered_at: datetime  # venue time

    def __post_init__(self) -> None:
        require_token(self, self.job_id, self.subject_id, self.venue, self.symbol, self.timeframe)
        require(self.first <= self.last, self, "first <= last")

    @property
    def key(self) -> str:
        return self.job_id

    @property
    def happened_at(self) -> datetime:
        return self.ordered_at


class EvidenceGiven(Message, frozen=True, kw_only=True):
    """What the worker found. `failure` says why there is nothing, and then nothing is invented."""

    job_id: str
    worker: Literal["backtest_suite", "ml_service"]
    subject_id: str
    span: Span | None  # the bars that were really there
    figures: Figures | None  # of a preset
    stressed: Figures | None  # the same with doubled slippage
    metrics: dict[str, float]  # of a model: held-out log-likelihood a bar, agreement with the incumbent, ...
    trials: int  # trials known for this (data, strategy)
    failure: str  # "" when it was done
    given_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.job_id, self.subject_id)

    @property
    def key(self) -> str:
        return self.job_id

    @property
    def happened_at(self) -> datetime:
        return self.given_at


class BacktestOrdered(Message, frozen=True, kw_only=True):
    """Somebody wants a backtest: one run, or with `grid` every combination. It is done once, whoever asks how often."""

    job_id: str
    worker: Literal["backtest_suite"]
    strategy: str
    symbol: str  # of a portfolio, its instruments joined: BTC-USDT+ETH-USDT
    timeframe: str
    params: dict[str, bool | int | float]  # those not given have their defaults
    grid: dict[str, tuple[bool | int | float, ...]]  # values by name; empty for one run
    metric: str  # by which a grid's best is chosen
    first: datetime | None  # bars that opened in [first, last]; None: all that the ingester holds
    last: datetime | None
    costs: Costs
    cash: Decimal  # quote currency
    exposure: float  # times the strategy's own
    seed: int
    ordered_at: datetime  # venue time
    fill: Literal["next_open", "same_close", "next_close"] = "next_open"  # where market orders are filled
    exits: Literal["on_close", "at_venue"] = "on_close"  # judged on closed bars, or resting at the venue
    size: Decimal | None = None  # base units of every position; None: by exposure
    shorts: bool = True  # where the instrument allows them
    rebalance_band: float = 0.0  # of a portfolio's equity: a leg that is off by less is left alone

    def __post_init__(self) -> None:
        require_token(self, self.job_id, self.strategy, self.timeframe)
        members_of(self.symbol)  # raises on a strange name, or one that is there twice
        require(self.cash.is_finite() and self.cash > 0, self, "cash > 0")
        require(0.0 <= self.exposure <= 1.0, self, "exposure in 0..1")
        require(0.0 <= self.rebalance_band <= 1.0, self, "rebalance_band in 0..1")
        require(self.size is None or (self.size.is_finite() and self.size > 0), self, "size > 0")
        require(self.first is None or self.last is None or self.first <= self.last, self, "first <= last")

    @property
    def members(self) -> tuple[str, ...]:
        """The instruments that it needs bars of."""
        return members_of(self.symbol)

    @property
    def key(self) -> str:
        return self.job_id

    @property
    def happened_at(self) -> datetime:
        return self.ordered_at


def no_evidence(order: EvidenceOrdered, failure: str) -> EvidenceGiven:
    """The answer to an order with nothing in it but the reason; nothing is invented."""
    return EvidenceGiven(
        job_id=order.job_id,
        worker=order.worker,
        subject_id=order.subject_id,
        span=None,
        figures=None,
        stressed=None,
        metrics={},
        trials=0,
        failure=failure,
        given_at=order.ordered_at,
    )
