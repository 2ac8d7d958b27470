"""Takes one step after another: at so many bars a second, or each time everyone has come."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from services.venue_sim.exchange import Trade
from services.venue_sim.pace import LockStep, StepTimes
from services.venue_sim.venue import Venue
from shared.contracts.errors import BadMessage
from shared.contracts.operations import Progress
from shared.contracts.wire import open_envelope, unpack
from shared.runtime.clock import Clock
from shared.runtime.service import Health

PATIENCE_S = 5.0  # then it is said whom the market waits for

log = structlog.get_logger("venue_sim")


class Conductor:
    """One market's time. `speed` is bars a second; None is as fast as the lock-step allows."""

    def __init__(
        self,
        venue: Venue,
        lockstep: LockStep,
        speed: float | None,
        clock: Clock,
        health: Health,
        hang_up_every_bars: int = 0,
        ask: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """`ask` tells a service that it is waited for, see `ProgressKeeper.ask`."""
        self.venue = venue
        self.finished = False
        self._lockstep = lockstep
        self._speed = speed
        self._clock = clock
        self._health = health
        self._hang_up_every_bars = hang_up_every_bars
        self._ask = ask
        self._steps = 0
        self._times = StepTimes()
        self._somebody_came = asyncio.Event()
        self._fills: list[int] = []

    def on_progress(self, _subject: str, payload: bytes) -> None:
        """Hear how far a service has come. What cannot be read is said again within a second."""
        try:
            progress = open_envelope(unpack(payload), Progress)
        except BadMessage as error:
            log.warning("progress.unreadable", reason=str(error))
            return
        self._lockstep.hear(progress)
        self._somebody_came.set()

    @property
    def waiting_for(self) -> list[str]:
        """Whom the market waits for, and why; empty in real time."""
        return self._waiting_for(self.venue.last_bars, is_history=not any(self._told().values()))

    def _waiting_for(self, last_bars: Mapping[str, int], *, is_history: bool) -> list[str]:
        return self._lockstep.waiting_for(last_bars, self._fills, is_history=is_history)

    async def run(self) -> None:
        """Play the market to its end; returns when its last bar was taken in by all who are waited for."""
        next_at = self._clock.monotonic()
        await self._until_all_came()
        while not self.venue.tape.is_finished:
            if self._speed is not None:
                next_at = max(next_at + 1.0 / self._speed, self._clock.monotonic())
                await asyncio.sleep(next_at - self._clock.monotonic())
            began, bars = self._clock.monotonic(), sum(self._told().values())
            before = self.venue.last_bars
            await self._step()
            await self._wake(before)
            waited_for = await self._until_all_came()
            self._times.took(self._clock.monotonic() - began, sum(self._told().values()) - bars, waited_for)
        self.finished = True
        log.info("market.finished", bars=self._told())

    async def _step(self) -> None:
        self._steps += 1
        if fills := await self.venue.fill_resting_orders():
            await self._until_all_came(fills)
        if self._hang_up_every_bars and self._steps % self._hang_up_every_bars == 0:
            self.venue.market_streams.hang_up()  # and this bar's frame is lost with the stream
        await self.venue.close_bars()

    async def _wake(self, before: Mapping[str, int]) -> None:
        """Ask those who had nothing to do up to here, and let what they hear gather, to come to this bar at once."""
        if self._ask is not None:
            for name in self._lockstep.sleepers(before, self.venue.last_bars):
                await self._ask(name)

    async def _until_all_came(self, fills: Sequence[Trade] = ()) -> set[str]:
        """Returns whom we waited for, and why."""
        self._fills = [trade.id for trade in fills]
        named: set[str] = set()
        waited_for: set[str] = set()
        began = self._clock.monotonic()
        last_bars, is_history = self.venue.last_bars, not any(self._told().values())  # time stands still here
        while waiting := self._waiting_for(last_bars, is_history=is_history):
            waited_for.update(waiting)
            self._somebody_came.clear()
            try:
                async with asyncio.timeout(1.0):
                    await self._somebody_came.wait()
            except TimeoutError:
                pass
            if self._clock.monotonic() - began > PATIENCE_S:  # progress is said each second: its coming is no sign
                self._name(named, set(waiting))
        self._name(named, set())
        self._fills = []
        return waited_for

    def _name(self, named: set[str], waiting: set[str]) -> None:
        """Say whom the market waits for, in the log and in its health; nobody once they came."""
        for gone in named - waiting:
            self._health.is_there(gone)
        for new in waiting - named:
            self._health.is_missing(new)
            log.warning("lockstep.waits", whom=new)
        named.clear()
        named.update(waiting)

    def _told(self) -> dict[str, int]:
        tape = self.venue.tape
        return {each.symbol: tape.told(each.symbol) for each in tape.instruments}

    def status(self) -> dict[str, Any]:
        """Where the market stands, for people and for who waits for its end."""
        tape = self.venue.tape
        return {
            "timeframe": tape.timeframe,
            "market_time_ms": tape.now,
            "bars": self._told(),
            "gaps": {each.symbol: tape.missing(each.symbol) for each in tape.instruments},
            "finished": self.finished,
            "speed": self._speed if self._speed is not None else "max",
            "pace": self._times.shown(),
            "lockstep": list(self._lockstep.services),
            "waiting_for": self.waiting_for,
            "subscriptions": self.venue.market_streams.subscriptions,
            "user_streams": len(self.venue.user_streams),
            "orders": len(self.venue.exchange.orders),
            "trades": len(self.venue.exchange.trades),
            "refusals": {str(code): count for code, count in sorted(self.venue.refusals.items())},
            "unknown_paths": dict(self.venue.unknown_paths),
        }
