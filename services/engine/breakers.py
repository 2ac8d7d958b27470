"""What holds trading back as a whole: losses, falls from the peak, and the word of a person. Pure.

    active    everything may be ordered
    reducing  no entries until a time that comes by itself (a day's loss, a streak of losses)
    paused    no entries until a person resumes
    halted    nothing is ordered until a person resumes

A day's loss and a streak cool down by themselves; only a drawdown and trouble with the venue need a person.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from services.engine.risk import Limits
from shared.contracts.risk import BreakerTripped, Command, Flatten, Halt, Pause, TradingState
from shared.contracts.times import to_ms

RANK: dict[TradingState, int] = {"active": 0, "reducing": 1, "paused": 2, "halted": 3}
DAY = timedelta(days=1)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Where trading stands, and what the account was at its last close. Money in quote currency.

    Rails and breakers judge by that close, not by what the minute's first bars have changed since: which instrument's
    bar comes first is chance, and must decide nothing.
    """

    state: TradingState = "active"
    until_ms: int | None = None  # venue time at which `reducing` ends
    is_closing: bool = False  # what is held is left as soon as it can be
    closed_ms: int = 0  # venue time of the last close of the account
    equity: Decimal
    held: dict[str, Decimal] = {}  # symbol -> worth of what is held or on its way
    day: str = ""  # UTC, of that close
    day_began_with: Decimal = Decimal(0)
    peak: Decimal = Decimal(0)
    losses: int = 0  # in a row
    unjudged: tuple[tuple[str, Decimal], ...] = ()  # trades closed since then: id and result

    @property
    def may_enter(self) -> bool:
        return self.state == "active"

    @property
    def may_order(self) -> bool:
        return self.state != "halted"


Trips = tuple[Standing, list[BreakerTripped]]


def with_trade(standing: Standing, trade_id: str, pnl: Decimal) -> Standing:
    """A trade was closed; it is judged when the account closes the bar."""
    return msgspec.structs.replace(standing, unjudged=(*standing.unjudged, (trade_id, pnl)))


def on_close(
    standing: Standing,
    account: str,
    equity: Decimal,
    held: dict[str, Decimal],
    at: datetime,
    limits: Limits,
    bar: timedelta,
) -> Trips:
    """All instruments have closed the bar of length `bar` that ends at `at`, and the account is worth `equity`."""
    standing, trips = _streak(standing), list[BreakerTripped]()
    day = at.date().isoformat()
    if day != standing.day:
        standing = msgspec.structs.replace(standing, day=day, day_began_with=equity)
    standing = msgspec.structs.replace(
        standing, closed_ms=to_ms(at), equity=equity, held=held, peak=max(standing.peak, equity)
    )

    def move(breaker: str, after: TradingState, reason: str, until: datetime | None = None) -> None:
        nonlocal standing
        moved, trip = _moved(standing, account, breaker, after, reason, until, at)
        standing = moved
        trips.extend([trip] if trip else [])

    if standing.state == "reducing" and standing.until_ms is not None and to_ms(at) >= standing.until_ms:
        move("cooldown_over", "active", "the cooldown has ended")
    if standing.losses >= limits.loss_streak:
        until = at + limits.cooldown_bars * bar
        move("loss_streak", "reducing", f"{standing.losses} losses in a row", until)
        standing = msgspec.structs.replace(standing, losses=0)  # the cooldown is the answer; a new streak is a new one
    if equity <= standing.day_began_with * (1 - limits.daily_loss):
        lost = 1 - equity / standing.day_began_with
        tomorrow = datetime(at.year, at.month, at.day, tzinfo=at.tzinfo) + DAY
        move("daily_loss", "reducing", f"{lost:.1%} lost since {day} began, limit {limits.daily_loss:.0%}", tomorrow)
    if equity <= standing.peak * (1 - limits.drawdown):
        fall = 1 - equity / standing.peak
        move("drawdown", "halted", f"{fall:.1%} below the peak of {standing.peak:.2f}, limit {limits.drawdown:.0%}")
        standing = msgspec.structs.replace(standing, is_closing=True)
    return standing, trips


def on_command(standing: Standing, command: Command, at: datetime) -> Trips:
    """A person has spoken. Resuming takes today's equity as the new peak, or a drawdown would halt again at once."""
    after: TradingState = "active"
    if isinstance(command, Halt):
        after = "halted"
        standing = msgspec.structs.replace(standing, is_closing=False)
    elif isinstance(command, (Pause, Flatten)):
        after = "halted" if standing.state == "halted" else "paused"
        standing = msgspec.structs.replace(standing, is_closing=isinstance(command, Flatten))
    else:
        equity = standing.equity
        standing = msgspec.structs.replace(standing, peak=equity, day_began_with=equity, losses=0, is_closing=False)
    reason = f"{command.actor}: {command.reason}"
    standing, trip = _moved(standing, command.account, "command", after, reason, None, at, is_person=True)
    return standing, [trip] if trip else []


def on_trouble(standing: Standing, account: str, breaker: str, reason: str, at: datetime) -> Trips:
    """Something does not add up, and a person must look: no entries until then."""
    standing, trip = _moved(standing, account, breaker, "paused", reason, None, at)
    return standing, [trip] if trip else []


def _streak(standing: Standing) -> Standing:
    """Judge the trades closed since the last close, in the order of their ids: when they came is chance."""
    losses = standing.losses
    for _, pnl in sorted(standing.unjudged):
        losses = 0 if pnl > 0 else losses + 1
    return msgspec.structs.replace(standing, losses=losses, unjudged=())


def _moved(
    standing: Standing,
    account: str,
    breaker: str,
    after: TradingState,
    reason: str,
    until: datetime | None,
    at: datetime,
    *,
    is_person: bool = False,
) -> tuple[Standing, BreakerTripped | None]:
    """Move to `after`, unless what holds trading back already is stronger and nobody asked."""
    before = standing.state
    is_end = breaker == "cooldown_over"
    if before == after or (RANK[after] < RANK[before] and not is_person and not is_end):
        return standing, None
    until_ms = None if until is None else to_ms(until)
    trip = BreakerTripped(
        breaker=breaker, account=account, before=before, after=after, reason=reason, until=until, at=at
    )
    return msgspec.structs.replace(standing, state=after, until_ms=until_ms), trip
