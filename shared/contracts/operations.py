"""How the house itself is doing: progress, health, alerts, what people should be told, and parked messages."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from shared.contracts.times import to_ms
from shared.contracts.wire import Message, require, require_token


class Progress(Message, frozen=True, kw_only=True):
    """How far a service has come: all is committed, and every order it caused has the venue's answer.

    `at` holds "SYMBOL.TIMEFRAME" -> opened-at of the last bar (ms). `booked` names what else it has taken in
    (message ids of promotions and decisions, trade ids), `told` what it said that others must book before they
    decide on this bar, oldest first: the last 256 where it `is_whole`, each second and when asked, in between what is
    new since. Before the bar that `idle_until` names nobody need wait for it, as long as nothing is said to it that it
    must book. Core NATS.
    """

    service: str
    venue: str
    at: dict[str, int]
    booked: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    holding: str = ""  # why it does not go on yet: "training BTC-USDT", "gate 3f2a..."
    idle_until: dict[str, int] = msgspec.field(
        default_factory=dict[str, int]
    )  # series -> opened-at (ms) of the first bar on which it may have something to do
    is_whole: bool = False
    said_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.service)

    @property
    def key(self) -> str:
        return f"{self.service}.{to_ms(self.said_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.said_at


class Asked(Message, frozen=True, kw_only=True):
    """Somebody waits for this service: it lets nothing gather now, and says how far it has come. Core NATS."""

    service: str
    asked_by: str
    said_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.service, self.asked_by)

    @property
    def key(self) -> str:
        return f"{self.service}.{self.asked_by}.{to_ms(self.said_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.said_at


class Health(Message, frozen=True, kw_only=True):
    """A service's own word on itself, for people: each second, on core NATS."""

    service: str
    ready: bool
    waiting_for: tuple[str, ...]  # what keeps it from being ready
    version: str
    restarts: int
    at: dict[str, int] = msgspec.field(default_factory=dict[str, int])  # how far it has come, as in Progress
    holding: str = ""
    said_at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.service)

    @property
    def key(self) -> str:
        return f"{self.service}.{to_ms(self.said_at)}"

    @property
    def happened_at(self) -> datetime:
        return self.said_at


class Alert(Message, frozen=True, kw_only=True):
    """Something a person should know. `name` is stable, so that the same trouble is one alert."""

    service: str
    name: str
    level: Literal["info", "warning", "critical"]
    text: str
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.service, self.name)
        require(bool(self.text), self, "a text")

    @property
    def key(self) -> str:
        return f"{self.service}.{self.name}.{to_ms(self.at)}"

    @property
    def happened_at(self) -> datetime:
        return self.at


class Notified(Message, frozen=True, kw_only=True):
    """A message left for a channel, or was given up after its retries."""

    notification_id: str
    channel: Literal["telegram", "slack"]
    delivered: bool
    text: str
    detail: str
    at: datetime

    @property
    def key(self) -> str:
        return f"{self.channel}.{self.notification_id}"

    @property
    def happened_at(self) -> datetime:
        return self.at


class Audited(Message, frozen=True, kw_only=True):
    """Who changed what, by which route."""

    audit_id: str
    service: str
    actor: str
    action: str
    detail: str
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.service)

    @property
    def key(self) -> str:
        return self.audit_id

    @property
    def happened_at(self) -> datetime:
        return self.at


class Parked(Message, frozen=True, kw_only=True):
    """A message that could not be used, whole, with the reason. Nothing is lost, and nothing stops for it."""

    stream: str
    subject: str
    heard_by: str
    reason: str
    payload: bytes
    payload_sha256: str
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.stream, self.heard_by)

    @property
    def key(self) -> str:
        return f"{self.stream}.{self.heard_by}.{self.payload_sha256}"

    @property
    def happened_at(self) -> datetime:
        return self.at
