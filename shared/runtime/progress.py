"""How far a service has come, said so that others can wait for it; and waiting for what others have said.

In real time nobody waits: progress is shown as lag. At `--speed max` the simulated venue takes its next step when the
services that decide have come to the bar it told. So a service that has work due by market time (a training, a
search, a verdict) *holds* its progress until that is done, and what it leads to is used on the same bar in every run.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from datetime import datetime

from shared.bus.bus import Bus
from shared.contracts.errors import BadMessage
from shared.contracts.operations import Progress
from shared.contracts.subjects import PROGRESS
from shared.contracts.times import to_ms
from shared.contracts.wire import open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.listening import Effects
from shared.runtime.store import Store

FACT = "progress."  # names of the facts that keep it
REMEMBERED = 256  # ids in `booked` and `told`


class ProgressKeeper:
    """One service's own progress, and what it heard of the others'."""

    def __init__(self, service: str, bus: Bus, clock: VenueClock) -> None:
        self.service = service
        self._bus, self._clock = bus, clock
        self._venue = ""
        self._at: dict[str, int] = {}
        self._shown: dict[str, int] = {}
        self._booked: OrderedDict[str, None] = OrderedDict()
        self._told: OrderedDict[str, None] = OrderedDict()
        self._holds: list[str] = []
        self._changed = asyncio.Event()
        self._count = 0
        self.is_held_back: Callable[[], bool] = lambda: False  # by a full outbox
        self.others: dict[str, Progress] = {}
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # -- our own -----------------------------------------------------------------------------------------------------

    def reached(self, venue: str, symbol: str, timeframe: str, opened_at: datetime) -> None:
        """All that this bar caused is committed and answered. Call it after the commit (`effects.afterwards`)."""
        self._venue = venue
        self._at[f"{symbol}.{timeframe}"] = to_ms(opened_at)
        self._changed.set()

    def reaches(self, effects: Effects, venue: str, symbol: str, timeframe: str, opened_at: datetime) -> None:
        """`reached` with these effects' commit, and kept by it: a start knows how far we had come."""
        effects.keep_fact(f"{FACT}{venue}.{symbol}.{timeframe}", str(to_ms(opened_at)).encode())
        effects.afterwards(lambda: self.reached(venue, symbol, timeframe, opened_at))

    async def recover(self, store: Store) -> None:
        """Read back how far we had come."""
        for name, value in await store.rows("select name, value from facts where name glob ?", f"{FACT}*"):
            self._venue, symbol, timeframe = name.removeprefix(FACT).split(".")
            self._at[f"{symbol}.{timeframe}"] = int(value)

    def booked(self, *ids: str) -> None:
        """These messages or trades were taken in."""
        _remember(self._booked, ids)
        self._changed.set()

    def told(self, *ids: str) -> None:
        """These must be booked by their listeners before they decide on this bar."""
        _remember(self._told, ids)
        self._changed.set()

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
        """Say it after each change, and each second, so that a lost message costs a beat and not a hang."""
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), 1.0)
            except TimeoutError:
                pass
            self._changed.clear()
            await self._bus.say(PROGRESS.of(message := self._message()), pack(wrap(message, self.service)))

    def _message(self) -> Progress:
        if not self._holds and not self.is_held_back():
            self._shown = dict(self._at)
        self._count += 1
        return Progress(
            service=self.service,
            venue=self._venue,
            at=self._shown,
            booked=tuple(self._booked),
            told=tuple(self._told),
            holding=self._holds[0] if self._holds else "",
            said_at=self._clock.wall(),
        )

    # -- the others' -------------------------------------------------------------------------------------------------

    async def hear_others(self) -> None:
        """Listen to what the others say. Only services that wait for others need it."""
        await self._bus.hear(PROGRESS.wildcard, self._on_progress)

    def _on_progress(self, subject: str, payload: bytes) -> None:
        try:
            said = open_envelope(unpack(payload), Progress)
        except BadMessage:
            return  # it is said again within a second
        self.others[said.service] = said
        for waiter in [w for w in self._waiters if w[0]()]:
            self._waiters.remove(waiter)
            if not waiter[1].done():
                waiter[1].set_result(None)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this is true of `others`; asked after each word of theirs."""
        if holds():
            return
        waiter = (holds, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            await waiter[1]
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    async def until_booked(self, message_id: str, services: Iterable[str]) -> None:
        """Wait until each of these services has taken this message in."""
        names = tuple(services)
        await self.until(lambda: all(message_id in self._of(name).booked for name in names))

    async def until_reached(self, service: str, symbol: str, timeframe: str, opened_at: datetime) -> None:
        """Wait until that service has come to this bar."""
        series, ms = f"{symbol}.{timeframe}", to_ms(opened_at)
        await self.until(lambda: self._of(service).at.get(series, -1) >= ms)

    def _of(self, service: str) -> Progress:
        return self.others.get(service, _NOTHING)


def _remember(ids: OrderedDict[str, None], new: Iterable[str]) -> None:
    for one in new:
        ids[one] = None
        ids.move_to_end(one)
    while len(ids) > REMEMBERED:
        ids.popitem(last=False)


_NOTHING = Progress(service="nobody", venue="", at={}, said_at=VenueClock().now())
