"""What holds trading back, and the commands of people."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from shared.contracts.times import to_ms
from shared.contracts.wire import Message, require_token

TradingState = Literal["active", "reducing", "paused", "halted"]


class RailTouched(Message, frozen=True, kw_only=True):
    """An order was made smaller or refused to stay inside a limit."""

    rail: str  # "max_position", "min_notional", "orders_per_minute", ...
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    action: Literal["resized", "refused"]
    limit: str
    was: str
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.rail, self.venue, self.strategy, self.symbol, self.timeframe)

    @property
    def key(self) -> str:
        return f"{self.rail}.{self.venue}.{self.strategy}.{self.symbol}.{self.timeframe}.{to_ms(self.at)}"

    @property
    def happened_at(self) -> datetime:
        return self.at


class BreakerTripped(Message, frozen=True, kw_only=True):
    """Trading as a whole changed its state: by losses, by trouble, by a person, or because a cooldown ended."""

    breaker: str  # "daily_loss", "drawdown", "loss_streak", "command", "cooldown_over", ...
    account: str
    before: TradingState
    after: TradingState
    reason: str
    until: datetime | None  # venue time at which it ends by itself; None when a person must act
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.breaker, self.account)

    @property
    def key(self) -> str:
        return f"{self.account}.{self.breaker}.{self.after}.{to_ms(self.at)}"

    @property
    def happened_at(self) -> datetime:
        return self.at


class Command(Message, frozen=True, kw_only=True):
    """What a person asks of the engine. `command_id` comes from the asker, so asking twice does it once."""

    command_id: str
    account: str
    actor: str
    reason: str
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.command_id, self.account)

    @property
    def key(self) -> str:
        return self.command_id

    @property
    def happened_at(self) -> datetime:
        return self.at


class Pause(Command, frozen=True, kw_only=True):
    """No new positions; those that are open are managed to their end."""


class Resume(Command, frozen=True, kw_only=True):
    """Trade again, also after a halt."""


class Flatten(Command, frozen=True, kw_only=True):
    """Close what is open at the next open, and pause."""


class Halt(Command, frozen=True, kw_only=True):
    """Nothing is ordered any more, until a person resumes."""


class CommandAnswered(Message, frozen=True, kw_only=True):
    """The engine did it, or says why not."""

    command_id: str
    account: str
    done: bool
    detail: str
    at: datetime

    def __post_init__(self) -> None:
        require_token(self, self.command_id, self.account)

    @property
    def key(self) -> str:
        return self.command_id

    @property
    def happened_at(self) -> datetime:
        return self.at
