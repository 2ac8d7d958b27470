"""ops_api on a real socket, on the memory bus; and an engine that answers commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from services.ops_api.service import SERVICE
from services.ops_api.settings import OpsSettings
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts import subjects as said
from shared.contracts.risk import Command, CommandAnswered, Resume
from shared.runtime.clock import VenueClock
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.settings import Settings
from shared.runtime.store import Store
from shared.runtime.web import web_application
from tests.serving import listening


class Served(NamedTuple):
    """A running ops_api and where it answers."""

    host: Host[OpsSettings]
    address: str


@asynccontextmanager
async def served(bus: MemoryServer, port: int = 0, **settings: Any) -> AsyncIterator[Served]:
    """ops_api as `up` starts it, but for NATS."""
    given = {"api_token": "t0ken", "login_secret": "once", "answer_timeout_s": 0.3} | settings
    store = await Store.open(None, SERVICE.tables)
    host = Host("ops_api", OpsSettings.load(**given), MemoryBus(bus), store, VenueClock())
    host.web = web_application(host)
    await host.start(SERVICE.serve)
    try:
        async with listening(host.web, port) as address:
            yield Served(host, address)
    finally:
        await host.stop()


class Engine:
    """Answers commands as the engine does: all are done but Resume."""

    def __init__(self, host: Host[Settings]) -> None:
        self.host = host
        self.commands: list[Command] = []

    async def serve(self, host: Host[Settings]) -> None:
        await host.listen(dict.fromkeys((said.PAUSE, said.RESUME, said.FLATTEN, said.HALT), self._on_command))

    async def _on_command(self, command: Command, effects: Effects) -> None:
        self.commands.append(command)
        done = not isinstance(command, Resume)
        detail = "done" if done else "drawdown is still above its limit"
        answer = CommandAnswered(command_id=command.command_id, account="main", done=done, detail=detail, at=command.at)
        effects.publish(said.COMMAND_ANSWERED, answer)


@asynccontextmanager
async def running_engine(bus: MemoryServer) -> AsyncIterator[Engine]:
    made = Engine(Host("engine", Settings.load(), MemoryBus(bus), await Store.open(None), VenueClock()))
    await made.host.start(made.serve)
    try:
        yield made
    finally:
        await made.host.stop()
