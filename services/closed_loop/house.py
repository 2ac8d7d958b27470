"""The services that decide, hosted in this process: their own `serve`, their own SQLite, a memory bus between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

from services.backtest_suite.service import SERVICE as BACKTEST_SUITE
from services.closed_loop.replay import Market, Replay
from services.engine.desk import Desk
from services.engine.paper_venue import PaperVenue
from services.engine.service import SERVICE as ENGINE
from services.engine.service import serve_at
from services.engine.settings import EngineSettings
from services.governor.service import SERVICE as GOVERNOR
from services.ml_service.service import SERVICE as ML_SERVICE
from services.param_controller.service import SERVICE as PARAM_CONTROLLER
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.instruments import Instrument
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host, Service
from shared.runtime.settings import PORTS
from shared.runtime.store import Store

VENUE = "replay"
HOSTED: tuple[Service[Any], ...] = (GOVERNOR, ENGINE, PARAM_CONTROLLER, ML_SERVICE, BACKTEST_SUITE)
IN_LOCKSTEP = ("engine", "ml_service", "param_controller", "backtest_suite")  # ADR 3


@dataclass(frozen=True)
class Plan:
    """What the loop is played with. What is not said here comes from each service's own settings."""

    strategies: tuple[str, ...]
    cash: Decimal
    fee_bps: float
    slippage_bps: float
    profile: str  # of the governor's gate
    seed: int
    own: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])  # service -> settings

    def settings_of(self, service: str, market: Market) -> dict[str, Any]:
        """The flags of one service."""
        costs = {"fee_bps": self.fee_bps, "slippage_bps": self.slippage_bps}
        given: dict[str, dict[str, Any]] = {
            "engine": {
                "strategies": self.strategies,
                "symbols": tuple(market.bars),
                "cash": self.cash,
                "reconcile_s": 3600.0,  # it holds no account that could differ
                **costs,
            },
            "governor": {"profile": self.profile, **costs},
            "param_controller": {"strategies": self.strategies, "seed": self.seed},
            # No wall clock begins a training here: the first live bar does.
            "ml_service": {"seed": self.seed, "patience_s": 1e9},
            "backtest_suite": {"strategies": self.strategies, "seed": self.seed, **costs},
        }
        common = {"venue": market.venue, "timeframe": market.timeframe}
        return {**common, **given[service], **self.own.get(service, {})}


class House:
    """Everything that is said, and the replay that begins it."""

    def __init__(self, server: MemoryServer, replay: Replay, hosts: Mapping[str, Host[Any]]) -> None:
        self.server, self.replay, self.hosts = server, replay, hosts

    async def play(self, work: Awaitable[None]) -> None:
        """Do this work unless a service fails before it is done; then raise what it failed of."""
        task = asyncio.ensure_future(work)
        failures = [asyncio.ensure_future(host.failed()) for host in self.hosts.values()]
        try:
            done, _ = await asyncio.wait({task, *failures}, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                one.result()
        finally:
            for one in (task, *failures):
                one.cancel()
            await asyncio.gather(task, *failures, return_exceptions=True)


@asynccontextmanager
async def open_house(market: Market, plan: Plan, folder: Path) -> AsyncIterator[House]:
    """All services up and listening, on what they keep in `folder`; stopped and closed at the end."""
    server = MemoryServer()
    replay = Replay(market, MemoryBus(server), IN_LOCKSTEP)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(_served(replay))
        await replay.begin()
        hosts: dict[str, Host[Any]] = {}
        for service in HOSTED:
            flags = {"port_base": port - PORTS["ingester"], "data_dir": folder}
            settings = service.settings.load(**flags, **plan.settings_of(service.name, market))
            # Nothing here must outlive the run, so no commit waits for the disk.
            store = await Store.open(folder / f"{service.name}.sqlite", service.tables, "NORMAL")
            host = hosts[service.name] = Host(service.name, settings, MemoryBus(server), store, VenueClock())
            serve = _serve_on_paper(market) if service is ENGINE else service.serve
            await host.start(serve)
            stack.push_async_callback(host.stop)
        yield House(server, replay, hosts)


def _serve_on_paper(market: Market) -> Callable[[Host[EngineSettings]], Awaitable[None]]:
    """The engine with fills at the next open of these instruments: the function that the backtest compiles."""
    instruments = {symbol: bars.instrument for symbol, bars in market.bars.items()}

    async def rules(symbols: Iterable[str]) -> dict[str, Instrument]:
        return {symbol: instruments[symbol] for symbol in symbols if symbol in instruments}

    def venue(desk: Desk, _instruments: Mapping[str, Instrument]) -> PaperVenue:
        return PaperVenue(market.venue, instruments, desk.fill_at)

    async def serve(host: Host[EngineSettings]) -> None:
        await serve_at(host, rules, venue)

    return serve


@asynccontextmanager
async def _served(replay: Replay) -> AsyncIterator[int]:
    """The replay's bars over HTTP on a free port, where the services look for the ingester's."""
    application = FastAPI()
    application.include_router(replay.routes())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(application, log_config=None, lifespan="off"))
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            await serving
