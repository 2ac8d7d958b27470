"""Two times. Venue time decides; monotonic time measures how long something takes. Nothing else reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

from shared.contracts.times import EPOCH


class Clock(Protocol):
    def now(self) -> datetime:
        """Venue time: the latest instant that the market is known to have reached."""
        ...

    def wall(self) -> datetime:
        """The time on the wall: for signatures, log lines and people. Never for a decision."""
        ...

    def monotonic(self) -> float:
        """Seconds that only grow: for time-outs, retries, rate limits, heartbeats."""
        ...


class VenueClock:
    """Venue time as the messages tell it: it is moved by what was heard, and never goes back."""

    def __init__(self, now: datetime = EPOCH) -> None:
        self._now = now

    def saw(self, moment: datetime) -> None:
        """Something happened at `moment`, so it is at least that late."""
        self._now = max(self._now, moment)

    def now(self) -> datetime:
        return self._now

    def wall(self) -> datetime:
        return datetime.now(UTC)  # noqa: TID251  # the one place

    def monotonic(self) -> float:
        return time.monotonic()
