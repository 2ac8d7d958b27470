"""An applicant and what became of it, and the messages that tell so. Pure."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Literal

import msgspec

from shared.contracts.governance import (
    ModelDemoted,
    ModelPromoted,
    PresetDemoted,
    PresetPromoted,
    PresetRefused,
    Stage,
    StageChanged,
)
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.wire import Message

Kind = Literal["model", "preset"]


class Application(msgspec.Struct, frozen=True, kw_only=True):
    """One model or preset, and what became of it."""

    kind: Kind
    subject_id: str
    venue: str
    strategy: str  # "" for a model
    symbol: str
    timeframe: str
    body: bytes  # the preset, or the model's manifest: what a promotion carries
    is_synthetic: bool
    asked_at: datetime
    data_sha256: str = ""  # of the bars on which a preset was found
    is_sound: bool = False  # it is what it says it is
    stage: Stage = "candidate"
    is_judged: bool = False
    has_passed: bool = False  # the gate, ever
    order: EvidenceOrdered | None = None
    evidence: EvidenceGiven | None = None
    score: float = -math.inf  # Sharpe ratio on the holdout: by it champions of one sleeve are compared
    changed_at: datetime | None = None
    sequence: int = 0  # of its last line in the record

    @property
    def place(self) -> tuple[str, str, str, str]:
        """Where it would be used: a sleeve, or for a model a series."""
        return (self.venue, self.strategy, self.symbol, self.timeframe)

    @property
    def evidence_id(self) -> str:
        return "" if self.order is None else self.order.job_id


class Ruling(msgspec.Struct):
    """What a message or a person led to: messages in the order in which they are to be said, and what changed."""

    messages: list[Message] = []
    changed: list[Application] = []
    trials: list[tuple[str, str, str, int]] = []  # strategy, symbol, timeframe, sets ever tried for them


def promotion(one: Application, at: datetime) -> ModelPromoted | PresetPromoted:
    """It may be used from the next closed bar on."""
    if one.kind == "model":
        return ModelPromoted(
            model_id=one.subject_id,
            venue=one.venue,
            symbol=one.symbol,
            timeframe=one.timeframe,
            manifest=one.body,
            evidence_id=one.evidence_id,
            promoted_at=at,
        )
    return PresetPromoted(
        preset_id=one.subject_id,
        preset=one.body,
        venue=one.venue,
        strategy=one.strategy,
        symbol=one.symbol,
        timeframe=one.timeframe,
        evidence_id=one.evidence_id,
        promoted_at=at,
    )


def demotion(one: Application, reason: str, at: datetime) -> ModelDemoted | PresetDemoted:
    """It is used no more."""
    if one.kind == "model":
        return ModelDemoted(
            model_id=one.subject_id,
            venue=one.venue,
            symbol=one.symbol,
            timeframe=one.timeframe,
            reason=reason,
            demoted_at=at,
        )
    return PresetDemoted(
        preset_id=one.subject_id,
        venue=one.venue,
        strategy=one.strategy,
        symbol=one.symbol,
        timeframe=one.timeframe,
        reason=reason,
        demoted_at=at,
    )


def refusal(one: Application, reasons: tuple[str, ...], at: datetime) -> PresetRefused:
    """A preset did not pass. A model's refusal is told by its line of the record alone."""
    return PresetRefused(
        preset_id=one.subject_id,
        venue=one.venue,
        strategy=one.strategy,
        symbol=one.symbol,
        timeframe=one.timeframe,
        reasons=reasons,
        evidence_id=one.evidence_id,
        refused_at=at,
    )


def stage_change(
    one: Application, after: Stage, reasons: tuple[str, ...], profile: str, actor: str, at: datetime
) -> StageChanged:
    """A line for the record, not yet chained into it."""
    return StageChanged(
        sequence=1,
        kind=one.kind,
        subject_id=one.subject_id,
        venue=one.venue,
        strategy=one.strategy,
        symbol=one.symbol,
        timeframe=one.timeframe,
        before=one.stage,
        after=after,
        reasons=reasons,
        profile=profile,
        evidence_id=one.evidence_id,
        actor=actor,
        changed_at=at,
        previous_hash="",
        hash="",
    )
