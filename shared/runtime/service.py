"""A service, and its host: the bus, the store, the clock, the routes, and what it hears and says.

A start is: settings -> SQLite -> NATS -> `serve` -> ready. A stop is: no new messages, the outbox told, the file closed.
How both happen in a process of its own is next door, in process.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import structlog

from shared.bus.bus import Bus, Linger
from shared.contracts.operations import Alert
from shared.contracts.operations import Health as HealthMessage
from shared.contracts.subjects import ALERT, HEALTH, Subject
from shared.contracts.wire import pack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.listening import OUTBOX_FULL, Effects, Handler, Listener
from shared.runtime.progress import ProgressKeeper
from shared.runtime.settings import Settings
from shared.runtime.store import Store
from shared.runtime.version import code_version

if TYPE_CHECKING:
    from fastapi import FastAPI

S = TypeVar("S", bound=Settings)

STOP_DELIVERY_S = 1.5  # the batch that is under way, its orders included
STOP_DRAIN_S = 1.0


@dataclass(frozen=True)
class Service(Generic[S]):
    """What the launcher and the CLI need to know of a service."""

    name: str
    settings: type[S]
    serve: Callable[[Host[S]], Awaitable[None]]
    tables: Sequence[str] = ()  # its own, after the house's: migrations, only ever appended
    synchronous: Literal["FULL", "NORMAL"] = "NORMAL"  # FULL where money is kept
    needs_bus: bool = True


@dataclass
class Health:
    """What keeps the service from being ready, and figures about it."""

    waiting_for: set[str] = field(default_factory=lambda: {"start"})

    def is_missing(self, what: str) -> None:
        """The service cannot do its work without this, for now."""
        self.waiting_for.add(what)

    def is_there(self, what: str) -> None:
        """This is no longer missing."""
        self.waiting_for.discard(what)


class Host(Generic[S]):
    """What a service stands on while it runs."""

    def __init__(
        self, name: str, settings: S, bus: Bus, store: Store, clock: VenueClock, web: FastAPI | None = None
    ) -> None:
        self.name, self.settings, self.bus, self.store, self.clock, self.web = name, settings, bus, store, clock, web
        self.log: Any = structlog.get_logger(name)
        self.health = Health()
        self.stopping = asyncio.Event()  # what streams to somebody should end by itself
        self.listener = Listener(name, bus, store, clock)
        self.progress = ProgressKeeper(name, bus, clock)
        self.progress.is_held_back = lambda: self.listener.waiting_to_be_told > OUTBOX_FULL
        self.stoppers: list[
            Callable[[], Awaitable[None]]
        ] = []  # let what is under way be answered, while it can be told
        self.closers: list[Callable[[], Awaitable[None]]] = []  # close what tasks use when they have ended, last first
        self._tasks: list[asyncio.Task[Any]] = []
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def listen(self, handlers: Mapping[Subject[Any], Handler], linger: Linger | None = None) -> None:
        """Hear these subjects from where we left off. See `Listener`. Who decides nothing may let batches gather."""
        await self.listener.listen(handlers, linger)

    async def act(self, work: Callable[[Effects], Awaitable[None]]) -> None:
        """Do something that no message caused, in its turn, with the same guarantees."""
        await self.listener.act(work)

    async def alert(self, name: str, level: Literal["info", "warning", "critical"], text: str) -> None:
        """Tell people. The same name at the same venue time is one alert."""

        async def work(effects: Effects) -> None:
            self.alert_in(effects, name, level, text)

        await self.act(work)

    def alert_in(self, effects: Effects, name: str, level: Literal["info", "warning", "critical"], text: str) -> None:
        """Tell people, with the other effects of the message that is being handled."""
        self.log.warning("alert", name=name, level=level, text=text)
        alert = Alert(service=self.name, name=name, level=level, text=text, at=self.clock.now())
        effects.publish(ALERT, alert)

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run this beside the handlers. If it ends by an error the service ends."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)
        return task

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks = [other for other in self._tasks if other is not task]
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)

    async def start(self, serve: Callable[[Host[S]], Awaitable[None]]) -> None:
        """Read back what was kept, serve, and begin to speak."""
        await self.listener.recover()
        await self.progress.recover(self.store)
        await serve(self)
        self.spawn(self.listener.pump(), "outbox")
        self.spawn(self.progress.say_for_ever(), "progress")
        self.spawn(self._say_health(), "health")
        self.health.is_there("start")

    async def failed(self) -> None:
        """Returns never; raises what ended one of the tasks or the bus."""
        bus = asyncio.ensure_future(self.bus.failed())
        try:
            done, _ = await asyncio.wait(
                {bus, asyncio.ensure_future(asyncio.shield(self._failure))}, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                one.result()
        finally:
            bus.cancel()

    @property
    def is_ready(self) -> bool:
        return not self.health.waiting_for and self.bus.is_connected

    def waiting_for(self) -> list[str]:
        """What keeps the service from being ready."""
        return sorted(self.health.waiting_for) + ([] if self.bus.is_connected else ["nats"])

    async def _say_health(self) -> None:
        while True:
            message = HealthMessage(
                service=self.name,
                ready=self.is_ready,
                waiting_for=tuple(self.waiting_for()),
                version=code_version(),
                restarts=self.settings.restarts,
                at=self.progress.at,
                holding=self.progress.holding,
                said_at=self.clock.wall(),
            )
            await self.bus.say(HEALTH.of(message), pack(wrap(message, self.name)))
            await asyncio.sleep(1.0)

    async def stop(self) -> None:
        """Let what is under way finish, tell the outbox, and close."""
        await self.bus.stop_delivery(STOP_DELIVERY_S)
        for stop in self.stoppers:
            await stop()
        if self.bus.is_connected:
            await self.listener.drain(STOP_DRAIN_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for close in reversed(self.closers):
            await close()
        if self._failure.done():
            self._failure.exception()
        await self.bus.close()
        await self.store.close()
