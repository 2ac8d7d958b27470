"""What one sleeve remembers: its arms, its bandits, the decision that stands and what that has earned. Pure.

A sleeve is one strategy on one series.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import msgspec

from services.param_controller.bandit import LinTS
from services.param_controller.holding import Holding
from shared.contracts.execution import Signal, TradeClosed, TradeFill
from shared.contracts.governance import PresetDemoted, PresetPromoted
from shared.contracts.parameters import ParamDecision, ParamOutcome
from shared.contracts.regime import RegimeReading


class Key(NamedTuple):
    """The name of a sleeve."""

    venue: str
    strategy: str
    symbol: str
    timeframe: str


class Series(NamedTuple):
    """The name of a series of bars."""

    venue: str
    symbol: str
    timeframe: str


class Policy(NamedTuple):
    """How it is chosen."""

    epoch_bars: int
    l2: float
    exploration: float
    seed: int


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """An admitted preset. It may be chosen on readings of bars that closed after `since`, and not after `until`."""

    preset: bytes
    since: datetime
    until: datetime | None = None

    def is_admitted(self, closed_at: datetime) -> bool:
        """Strictly before: what is promoted at the close of t is chosen from t+1, whichever message was faster."""
        return self.since < closed_at and (self.until is None or closed_at <= self.until)


class Lesson(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome, with all that learning from it needs."""

    preset_id: str
    context: tuple[float, ...]
    context_schema: str
    outcome: ParamOutcome


class Earned(NamedTuple):
    """A closed trade of the epoch that is under way."""

    closed_at: datetime
    trade_id: str
    result_r: float


@dataclass
class Turn:
    """The end of one epoch and the beginning of the next."""

    lesson: Lesson | None
    decision: ParamDecision


@dataclass
class Sleeve:
    """All that one sleeve remembers."""

    key: Key
    arms: dict[str, Arm] = field(default_factory=dict)
    bandits: dict[tuple[str, int], LinTS] = field(default_factory=dict)  # by context schema and length
    lessons: int = 0
    current: ParamDecision | None = None
    is_taught: bool = False  # whether the current decision's outcome was given, by somebody else
    earned: list[Earned] = field(default_factory=list)
    holding: Holding = field(default_factory=Holding)

    def admitted(self, closed_at: datetime) -> list[str]:
        """The presets that may be chosen on this close, by id."""
        return sorted(name for name, arm in self.arms.items() if arm.is_admitted(closed_at))

    def known(self) -> list[str]:
        """The presets that may be chosen for all that was heard so far, by id: for who asks between two closes."""
        return sorted(name for name, arm in self.arms.items() if arm.until is None)


def key_of(said: ParamDecision | PresetPromoted | PresetDemoted | Signal | TradeFill | TradeClosed) -> Key:
    """The sleeve that a message is about."""
    return Key(said.venue, said.strategy, said.symbol, said.timeframe)


def series_of(reading: RegimeReading) -> Series:
    """The series that a reading is about."""
    return Series(reading.venue, reading.symbol, reading.timeframe)


def lesson_of(sleeve: Sleeve, current: ParamDecision, learned_at: datetime) -> Lesson:
    """The outcome of an epoch: the net results of its trades in R, summed in the order of (closed_at, trade id)."""
    earned = sorted(sleeve.earned)
    return Lesson(
        preset_id=current.preset_id,
        context=current.context,
        context_schema=current.context_schema,
        outcome=ParamOutcome(
            decision_id=current.decision_id,
            venue=current.venue,
            strategy=current.strategy,
            symbol=current.symbol,
            timeframe=current.timeframe,
            preset_id=current.preset_id,
            trade_id=earned[-1].trade_id if earned else "",
            reward=math.fsum(trade.result_r for trade in earned),
            learned_at=learned_at,
        ),
    )
