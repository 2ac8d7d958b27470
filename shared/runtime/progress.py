"""How far a service has come, said so that others can wait for it; and waiting for what others have said.

In real time nobody waits: progress is shown as lag. At `--speed max` the simulated venue takes its next step when the
services that decide have come to the bar it told. So a service that has work due by market time (a training, a
search, a verdict) *holds* its progress until that is done, and what it leads to is used on the same bar in every run.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from shared.bus.bus import Bus
from shared.contracts.errors import BadMessage
from shared.contracts.operations import Asked, Progress
from shared.contracts.subjects import ASKED, PROGRESS
from shared.contracts.times import EPOCH, to_ms
from shared.contracts.wire import open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.listening import Effects
from shared.runtime.store import Store

FACT = "progress."  # names of the facts that keep it
BEAT_S = 1.0
REMEMBERED = 256  # ids in `booked` and `told`


class ProgressKeeper:
    """One service's own progress, and what it heard of the others'."""

    def __init__(self, service: str, bus: Bus, clock: VenueClock) -> None:
        self.service = service
        self._bus, self._clock = bus, clock
        self._venue = ""
        self._at: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        self._idle_until: dict[str, int] = {}
        self._booked = _Ids()
        self._told = _Ids()
        self._holds: list[str] = []
        self._changed = asyncio.Event()
        self.is_held_back: Callable[[], bool] = lambda: False  # by a full outbox
        self._waiters: list[asyncio.Future[None]] = []

    # -- our own -----------------------------------------------------------------------------------------------------

    def reached(self, venue: str, symbol: str, timeframe: str, opened_at: datetime, *, idle_until_ms: int = 0) -> None:
        """All that this bar caused is committed and answered. Call it after the commit (`effects.afterwards`).

        It is said at once, but for bars at which we are idle and said so before: for them nobody waits.
        """
        series = f"{symbol}.{timeframe}"
        self._venue = venue
        self._at[series] = to_ms(opened_at)
        was_idle = to_ms(opened_at) < self._idle_until.get(series, 0) == idle_until_ms
        self.is_idle_until(symbol, timeframe, idle_until_ms)
        if not was_idle:
            self._changed.set()

    def is_idle_until(self, symbol: str, timeframe: str, opened_ms: int) -> None:
        """Nothing can fall due here before this bar (0: the next one), whatever bars say. See `Progress.idle_until`.

        What we book may change it: then say so before `booked`.
        """
        self._idle_until[f"{symbol}.{timeframe}"] = opened_ms

    def reaches(
        self,
        effects: Effects,
        venue: str,
        symbol: str,
        timeframe: str,
        opened_at: datetime,
        *,
        idle_until_ms: int = 0,
    ) -> None:
        """`reached` with these effects' commit, and kept by it: a start knows how far we had come."""
        effects.keep_fact(f"{FACT}{venue}.{symbol}.{timeframe}", str(to_ms(opened_at)).encode())
        effects.afterwards(lambda: self.reached(venue, symbol, timeframe, opened_at, idle_until_ms=idle_until_ms))

    async def recover(self, store: Store) -> None:
        """Read back how far we had come."""
        for name, value in await store.rows("select name, value from facts where name glob ?", f"{FACT}*"):
            self._venue, symbol, timeframe = name.removeprefix(FACT).split(".")
            self._at[f"{symbol}.{timeframe}"] = int(value)

    def booked(self, *ids: str) -> None:
        """These messages or trades were taken in."""
        self._booked.add(ids)
        self._changed.set()
        self._look_again()  # what we wait for may be that we have heard it ourselves

    def told(self, *ids: str) -> None:
        """These must be booked by their listeners before they decide on this bar."""
        self._told.add(ids)
        self._changed.set()

    @property
    def at(self) -> dict[str, int]:
        """How far we said that we have come."""
        return self._shown

    @property
    def holding(self) -> str:
        """What keeps our progress back, "" for nothing."""
        return self._holds[0] if self._holds else ""

    @contextmanager
    def hold(self, reason: str) -> Generator[None]:
        """Within, progress stays where it is: enter it before the bar that made the work due is reached."""
        self._holds.append(reason)
        self._changed.set()
        try:
            yield
        finally:
            self._holds.remove(reason)
            self._changed.set()

    async def say_for_ever(self) -> None:
        """Say it after each change; whole when we are asked, and each second, so that a lost message costs a beat and
        not a hang."""
        loop = asyncio.get_running_loop()
        is_beat = True

        def beat() -> None:
            nonlocal is_beat
            is_beat = True
            self._changed.set()

        def on_asked(_subject: str, _payload: bytes) -> None:
            self._bus.hurry()
            beat()

        await self._bus.hear(f"{ASKED.root}.{self.service}", on_asked)
        timer = loop.call_later(BEAT_S, beat)

        while True:
            message = self._message(is_beat)
            if is_beat:
                is_beat = False
                timer.cancel()
                timer = loop.call_later(BEAT_S, beat)
            await self._bus.say(PROGRESS.of(message), pack(wrap(message, self.service)))
            await self._changed.wait()
            self._changed.clear()

    def _message(self, is_beat: bool) -> Progress:
        if not self._holds and not self.is_held_back():
            self._shown = dict(self._at)
        return Progress(
            service=self.service,
            venue=self._venue,
            at=self._shown,
            booked=self._booked.to_say(is_beat),
            told=self._told.to_say(is_beat),
            holding=self.holding,
            idle_until=self._idle_until,
            is_whole=is_beat,
            said_at=self._clock.wall(),
        )

    # -- the others' -------------------------------------------------------------------------------------------------

    async def until(self, service: str, holds: Callable[[Heard], bool]) -> None:
        """Wait until this is true of what that service says of itself; silence is asked about each second, and counts.

        It speaks at each bar, so it is heard only while somebody waits for it, and is asked for its word at once.
        """
        heard = Heard()

        def on_progress(_subject: str, payload: bytes) -> None:
            try:
                said = open_envelope(unpack(payload), Progress)
            except BadMessage:
                return  # it is said again within a second
            if said.is_whole or heard.said_at > EPOCH:  # what was told before is in a whole one alone
                heard.take(said)
                self._look_again()

        stop_hearing = await self._bus.hear(f"{PROGRESS.root}.{service}", on_progress)
        try:
            await self.ask(service)
            while not holds(heard):
                waiter = asyncio.get_running_loop().create_future()
                self._waiters.append(waiter)
                try:
                    async with asyncio.timeout(BEAT_S):
                        await waiter
                except TimeoutError:
                    await self.ask(service)
                finally:
                    self._waiters.remove(waiter)
        finally:
            await stop_hearing()

    async def ask(self, service: str) -> None:
        """Ask that service to say how far it has come, and to let nothing gather: it is waited for."""
        asked = Asked(service=service, asked_by=self.service, said_at=self._clock.wall())
        await self._bus.say(ASKED.of(asked), pack(wrap(asked, self.service)))

    def _look_again(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class _Ids:
    """The last ids of a kind, oldest first. Between two beats only those that are new are said."""

    def __init__(self) -> None:
        self._all: OrderedDict[str, None] = OrderedDict()
        self._new: deque[str] = deque(maxlen=REMEMBERED)

    def add(self, ids: Iterable[str]) -> None:
        for one in ids:
            if one not in self._all:
                self._new.append(one)
            self._all[one] = None
            self._all.move_to_end(one)
        while len(self._all) > REMEMBERED:
            self._all.popitem(last=False)

    def to_say(self, is_beat: bool) -> tuple[str, ...]:
        if is_beat:
            self._new.clear()
            return tuple(self._all)
        return tuple(self._new)

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)


@dataclass
class Heard:
    """What another service has said of itself, put together."""

    at: dict[str, int] = field(default_factory=dict[str, int])
    said_at: datetime = EPOCH
    booked: _Ids = field(default_factory=_Ids)
    told: _Ids = field(default_factory=_Ids)

    def take(self, said: Progress) -> None:
        """Add its newest word."""
        self.at, self.said_at = said.at, said.said_at
        self.booked.add(said.booked)
        self.told.add(said.told)
