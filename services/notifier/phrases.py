"""An event in words, or None when nobody wants to hear of it. Pure."""

from __future__ import annotations

from decimal import Decimal
from math import isfinite
from typing import Literal

import msgspec

from services.notifier.settings import NotifierSettings
from shared.contracts.execution import OrderRejected, Signal, TradeClosed
from shared.contracts.governance import (
    ModelDemoted,
    ModelDrifted,
    ModelPromoted,
    PresetDemoted,
    PresetPromoted,
    PresetRefused,
    StageChanged,
)
from shared.contracts.market import QualityFlagged
from shared.contracts.operations import Alert, Parked
from shared.contracts.regime import RegimeMismatch, RegimeTransition
from shared.contracts.risk import BreakerTripped, CommandAnswered, RailTouched
from shared.contracts.wire import Message

Level = Literal["critical", "ordinary"]
LEVELS = ("info", "warning", "critical")
TEXT_CHARS = 1500  # of one note; a reason can be long, a phone is small


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """Something to tell. A critical one goes first and alone; ordinary ones that wait together go together."""

    level: Level
    text: str


def note_of(message: Message, wishes: NotifierSettings) -> Note | None:
    """What to tell of this message."""
    said = _critical(message, wishes)
    level: Level = "critical"
    if not said:
        said, level = _of_trading(message, wishes) or _of_the_house(message, wishes), "ordinary"
    return Note(level=level, text=said[:TEXT_CHARS]) if said else None


def _critical(message: Message, wishes: NotifierSettings) -> str:
    match message:
        case BreakerTripped() if wishes.breakers and message.after == "halted":
            return f"⛔ HALTED ({message.breaker}): {message.reason}. Nothing is ordered until someone resumes."
        case Alert() if message.level == "critical" and wishes.alerts_from != "never":
            return f"⛔ {message.service}, {message.name}: {message.text}"
        case _:
            return ""


def _of_trading(message: Message, wishes: NotifierSettings) -> str:
    match message:
        case TradeClosed() if wishes.trades and message.quantity * message.entry_price >= wishes.min_notional:
            sign = "▲" if message.pnl > 0 else "▼"
            return (
                f"{sign} {message.symbol} {message.strategy} {message.pnl:+.2f} ({message.result_r:+.2f}R): "
                f"{message.side} {plain(message.quantity)} from {plain(message.entry_price)} to "
                f"{plain(message.exit_price)}, {message.bars_held} bars, left by {message.exit_reason}; "
                f"fees {message.fees:.2f}, preset {short(message.preset_id)}, {message.regime}"
            )
        case Signal() if wishes.signals:
            return f"{message.symbol} {message.strategy}: exposure {message.exposure:+.2f}, {message.regime}"
        case OrderRejected() if wishes.rejections:
            return f"⚠ {message.symbol} {message.strategy}: order refused by {message.refused_by}: {message.reason}"
        case RailTouched() if wishes.rails:
            return (
                f"{message.symbol} {message.strategy}: order {message.action} by {message.rail}, "
                f"limit {message.limit}, was {message.was}"
            )
        case BreakerTripped() if wishes.breakers:
            until = f" until {message.until:%Y-%m-%d %H:%M} UTC" if message.until else ""
            return f"⚠ Trading is {message.after}{until} ({message.breaker}): {message.reason}"
        case CommandAnswered() if wishes.breakers:
            return f"Command {message.command_id}: {'done' if message.done else 'refused'}, {message.detail}"
        case RegimeTransition() if wishes.transitions:
            surprise = f", {message.surprise_bits:.1f} bits of surprise" if isfinite(message.surprise_bits) else ""
            return f"{message.symbol} {message.timeframe}: {message.before} to {message.after}{surprise}"
        case _:
            return ""


def _of_the_house(message: Message, wishes: NotifierSettings) -> str:
    match message:
        case ModelPromoted() if wishes.promotions:
            return f"✓ Model {short(message.model_id)} promoted: it reads {message.symbol} {message.timeframe}"
        case ModelDemoted() if wishes.promotions:
            return f"↓ Model {short(message.model_id)} of {message.symbol} demoted: {message.reason}"
        case PresetPromoted() if wishes.promotions and message.evidence_id:  # a default is no news
            return f"✓ Preset {short(message.preset_id)} promoted: {message.symbol} {message.strategy}"
        case PresetDemoted() if wishes.promotions:
            return f"↓ Preset {short(message.preset_id)} demoted: {message.symbol} {message.strategy}: {message.reason}"
        case PresetRefused() if wishes.refusals:
            reasons = "; ".join(message.reasons)
            return f"✕ Preset {short(message.preset_id)} refused: {message.symbol} {message.strategy}: {reasons}"
        case StageChanged() if wishes.refusals and message.kind == "model" and message.after == "refused":
            return f"✕ Model {short(message.subject_id)} refused: {message.symbol}: {'; '.join(message.reasons)}"
        case ModelDrifted():
            return (
                f"⚠ Model {short(message.model_id)} of {message.symbol} drifts: likelihood a bar {message.seen:.3f}, "
                f"expected {message.expected:.3f}"
            )
        case RegimeMismatch():
            return f"⚠ {message.symbol}: engine and ml_service read {message.opened_at:%Y-%m-%d %H:%M} differently"
        case Alert() if wishes.alerts_from != "never" and rank(message.level) >= rank(wishes.alerts_from):
            return f"⚠ {message.service}, {message.name}: {message.text}"
        case Parked():
            return f"⚠ {message.heard_by} could not use a message of {message.stream}: {message.reason}"
        case QualityFlagged() if wishes.quality:
            return f"{message.symbol} {message.timeframe}: {message.defect}, {message.detail}"
        case _:
            return ""


def rank(level: str) -> int:
    """How grave an alert is."""
    return LEVELS.index(level)


def short(name: str) -> str:
    """The first eight characters of a long id."""
    return name if len(name) <= 16 else name[:8]


def plain(value: Decimal) -> str:
    """A number as people write it: no exponent, no zeros behind."""
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
