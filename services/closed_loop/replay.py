"""Bars in the order in which they closed, told like the ingester tells them, and one wait between two times.

Prequential by construction: what a service asks for by HTTP ends at the last bar that was told.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Response

from services.backtest_suite.data import Bars
from services.venue_sim.pace import LockStep
from shared.artifacts.bar_files import NAMES, feather_bytes
from shared.bus.bus import Bus, Outgoing
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.operations import Progress
from shared.contracts.subjects import PROGRESS, subject_of
from shared.contracts.times import from_ms, parse_time, timeframe_ms, to_ms
from shared.contracts.wire import open_envelope, pack, unpack, wrap

TELLER = "ingester"  # in whose place the replay speaks
PATIENCE_S = 180.0  # a training may take that long; then who is waited for is named


@dataclass(frozen=True)
class Market:
    """What is replayed: bars of one timeframe, of any number of instruments, told under a venue's name."""

    venue: str
    timeframe: str
    bars: Mapping[str, Bars]  # symbol ->

    @classmethod
    def of(cls, venue: str, bars: Sequence[Bars]) -> Market:
        """Raises NeedsOperator when the timeframes differ or an instrument comes twice."""
        frames, symbols = sorted({one.timeframe for one in bars}), [one.symbol for one in bars]
        if len(frames) != 1 or len(set(symbols)) < len(symbols):
            raise NeedsOperator(
                f"The loop needs bars of one timeframe and each instrument once, were {', '.join(frames) or 'none'} "
                f"of {', '.join(symbols) or 'nothing'}."
            )
        return cls(venue, frames[0], {one.symbol: one for one in bars})

    def since(self, live_from: datetime, history_bars: int) -> Market:
        """The same, with no more than so many bars of each instrument before `live_from`.

        Raises NeedsOperator when no bar is left to trade on.
        """
        kept: dict[str, Bars] = {}
        for symbol, bars in self.bars.items():
            at = int(np.searchsorted(bars.columns.opened_at_ms, to_ms(live_from)))
            if at >= len(bars):
                raise NeedsOperator(f"{symbol} has no bar from {live_from:%Y-%m-%d %H:%M} on; its last is {bars.last}.")
            kept[symbol] = replace(bars, columns=bars.columns.part(max(0, at - history_bars), len(bars)))
        return Market(self.venue, self.timeframe, kept)

    def messages(self, live_from_ms: int) -> Iterator[tuple[int, list[BarClosed | GapFound]]]:
        """What is told at each time (ms), ascending; bars before `live_from_ms` are history."""
        streams = [self._series(symbol, live_from_ms) for symbol in sorted(self.bars)]
        merged = heapq.merge(*streams, key=lambda told: told[0])
        for at, group in groupby(merged, key=lambda told: told[0]):
            yield at, [message for _, message in group]

    def _series(self, symbol: str, live_from_ms: int) -> Iterator[tuple[int, BarClosed | GapFound]]:
        length, due = timeframe_ms(self.timeframe), -1
        columns = self.bars[symbol].columns
        for opened_ms, *prices in zip(*(column.tolist() for column in columns.all()), strict=True):
            is_history = opened_ms < live_from_ms
            if 0 <= due < opened_ms:
                yield opened_ms, self._gap(symbol, due, opened_ms - length, is_history)
            yield opened_ms, self._bar(symbol, opened_ms, prices, is_history)
            due = opened_ms + length

    def _bar(self, symbol: str, opened_ms: int, prices: Sequence[float], is_history: bool) -> BarClosed:
        open, high, low, close, volume = prices
        return BarClosed(
            venue=self.venue,
            symbol=symbol,
            timeframe=self.timeframe,
            opened_at=from_ms(opened_ms),
            closed_at=from_ms(opened_ms + timeframe_ms(self.timeframe)),
            open=open,
            high=high,
            low=low,
            close=close,
            volume=volume,
            is_history=is_history,
        )

    def _gap(self, symbol: str, first_ms: int, last_ms: int, is_history: bool) -> GapFound:
        return GapFound(
            venue=self.venue,
            symbol=symbol,
            timeframe=self.timeframe,
            first_opened_at=from_ms(first_ms),
            last_opened_at=from_ms(last_ms),
            bars=(last_ms - first_ms) // timeframe_ms(self.timeframe) + 1,
            reason="absent",
            is_history=is_history,
        )


class Replay:
    """Tells a market to the services of a house, one time after another."""

    def __init__(self, market: Market, bus: Bus, services: Sequence[str]) -> None:
        self.market = market
        self.last_ms: dict[str, int] = {}  # symbol -> opened-at of the last bar told
        self.bars = 0  # told, history aside
        self.on_told: Callable[[int], None] = lambda bars: None  # so many bars more, history included
        self._bus = bus
        self._lockstep = LockStep(services)
        self._somebody_came = asyncio.Event()

    async def begin(self) -> None:
        """Hear how far the services have come."""
        await self._bus.hear(PROGRESS.wildcard, self._on_progress)

    def _on_progress(self, _subject: str, payload: bytes) -> None:
        self._lockstep.hear(open_envelope(unpack(payload), Progress))
        self._somebody_came.set()

    async def run(self, live_from: datetime) -> None:
        """From the first bar to the last; returns when everyone has taken in the last one."""
        live_from_ms = to_ms(live_from)
        for at, messages in self.market.messages(live_from_ms):
            await self._tell(messages)
            if at >= live_from_ms:  # the past is told at once: what is due on it is due on the first bar after it
                self.bars += sum(isinstance(message, BarClosed) for message in messages)
                await self._until_all_came()

    async def _tell(self, messages: Sequence[BarClosed | GapFound]) -> None:
        batch: list[Outgoing] = []
        for message in messages:
            envelope = wrap(message, TELLER)
            batch.append(Outgoing(subject_of(message).of(message), pack(envelope), envelope.id))
            opened_at = message.opened_at if isinstance(message, BarClosed) else message.last_opened_at
            self.last_ms[message.symbol] = max(self.last_ms.get(message.symbol, -1), to_ms(opened_at))
        await self._bus.publish(batch)
        self.on_told(sum(isinstance(message, BarClosed) for message in messages))

    async def _until_all_came(self) -> None:
        told = {f"{symbol}.{self.market.timeframe}": at for symbol, at in self.last_ms.items()}
        while waiting := self._lockstep.waiting_for(told):
            self._somebody_came.clear()
            try:
                async with asyncio.timeout(PATIENCE_S):
                    await self._somebody_came.wait()
            except TimeoutError as error:
                raise NeedsOperator(f"The loop waits for {'; '.join(waiting)}, and nothing comes.") from error

    def routes(self) -> APIRouter:
        """`GET /bars` and `/chunks`, as the ingester answers them: what was told, and nothing after that."""
        router = APIRouter()

        @router.get("/bars")
        def bars(symbol: str, timeframe: str, first: str, last: str) -> Response:
            if symbol not in self.market.bars or timeframe != self.market.timeframe:
                raise BadMessage(
                    f"The loop replays {', '.join(self.market.bars)} {self.market.timeframe}, not {symbol}."
                )
            until = min(to_ms(parse_time(last)), self.last_ms.get(symbol, -1))
            kept = self.market.bars[symbol].columns.between(to_ms(parse_time(first)), until)
            body = feather_bytes(pa.table(dict(zip(NAMES, kept.all(), strict=True))))
            return Response(body, media_type="application/vnd.apache.arrow.file")

        @router.get("/chunks")
        def chunks() -> list[dict[str, str]]:
            return []  # it replays frames and files, and stores no parts of them

        return router
