"""Keeps every series complete: what the stream tells, and what it left out, fetched.

Start and reconnect are one path. The venue confirms the subscription; then, not before, each series is filled by REST
from its watermark. What a frame brings meanwhile waits its turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

import structlog

from services.ingester.archive import Archive
from services.ingester.book import Series, keep
from services.ingester.candles import Candle, SeriesName, closed_rows, from_frame, from_row
from services.ingester.exchange import PAGE, Exchange
from services.ingester.sequence import Hole
from services.ingester.settings import IngesterSettings
from shared.contracts.errors import NeedsOperator
from shared.contracts.times import from_ms, timeframe_length
from shared.runtime.listening import Effects
from shared.runtime.service import Host

TURNS = 5  # of the event loop, in which ccxt hands over what came in one packet

log = structlog.get_logger("ingester")


class Page(NamedTuple):
    """One answer of the venue."""

    candles: list[Candle]  # closed and believed
    undecodable: list[int]  # opened-ats (ms) of those that cannot be believed
    is_last: bool  # it reached the present


class Filler:
    """Fetches what one series lacks, whenever it is asked to."""

    def __init__(self, host: Host[IngesterSettings], exchange: Exchange, series: Series, archive: Archive) -> None:
        self.series = series
        self._host = host
        self._exchange = exchange
        self._archive = archive
        self._wanted, self._filled = 0, 0  # fills are numbered; one that is wanted while another runs comes after it
        self._changed = asyncio.Condition()

    async def want(self) -> int:
        """Something may be missing. Returns the number of the fill that will see to it."""
        async with self._changed:
            self._wanted += 1
            self._changed.notify_all()
            return self._wanted

    async def fill_now(self) -> None:
        """Fill, and wait for the end of it."""
        number = await self.want()
        async with self._changed:
            await self._changed.wait_for(lambda: self._filled >= number)

    async def run(self) -> None:
        """Fill each time it is wanted, for ever."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._wanted > self._filled)
                number = self._wanted
            await self._fill()
            self._host.health.is_there(waiting_for(self.series.name))
            async with self._changed:
                self._filled = number
                self._changed.notify_all()
            if self.series.sequence.is_waiting:
                await self.want()

    async def _fill(self) -> None:
        """From the watermark to the venue's last closed bar, a page at a time."""
        is_last = False
        while not is_last:
            if self.series.sequence.next_at is None and not await self._begin():
                return  # the venue has no closed bar yet; the stream will bring the first
            is_last = await self._fill_page()

    async def _fill_page(self) -> bool:
        """One page. Returns whether it reached the present."""
        page = await self._page()
        candles, absent = page.candles, list[Hole]()
        if not candles and not page.is_last:
            raise NeedsOperator(f"{self.series.name}: the venue sent {PAGE} rows of which none can be a candle.")
        up_to = None if page.is_last else candles[-1].opened_at
        if self.series.sequence.holes(candles, up_to):
            await asyncio.sleep(self._host.settings.ask_again_s)
            candles = [*candles, *(await self._page()).candles]
            absent = self.series.sequence.holes(candles, up_to)

        async def take(effects: Effects) -> None:
            taken = self.series.take(candles, absent, page.undecodable, completes_history=page.is_last)
            keep(effects, [taken])
            after(effects, self._host, self._archive, self.series)

        await self._host.act(take)
        return page.is_last

    async def _page(self, since: int | None = None) -> Page:
        """What is closed of one answer, from `since` or the series' turn on."""
        name = self.series.name
        since = self.series.sequence.next_at if since is None else since
        rows = await self._exchange.page(name.symbol, name.timeframe, since)
        candles: list[Candle] = []
        undecodable: list[int] = []
        for row in closed_rows(rows):
            candle = from_row(row)
            if candle is not None:
                candles.append(candle)
            else:
                log.warning("candle.undecodable", series=name, row=row)
                undecodable.append(int(row[0]))
        return Page(candles, undecodable, len(rows) < PAGE)

    async def _begin(self) -> bool:
        """Find the first bar of the history that is wanted: the oldest one that the venue has of it."""
        name, length = self.series.name, self.series.sequence.length
        latest = await self._exchange.page(name.symbol, name.timeframe, None, 2)
        if len(latest) < 2:
            return False
        opened_at = int(latest[-1][0])  # the open bar: history ends before it
        since = opened_at - max(1, self._host.settings.history_bars) * length
        page = await self._page(since)
        if not page.candles:
            return False
        self.series.sequence.begin(page.candles[0].opened_at)
        return True


class Follower:
    """Hears the stream, and asks for fills where it left something out."""

    def __init__(self, host: Host[IngesterSettings], archive: Archive) -> None:
        self._host = host
        self._archive = archive
        self._frames: asyncio.Queue[tuple[str, Mapping[str, Any]]] = asyncio.Queue()
        self.fillers: dict[str, Filler] = {}
        self.subscriptions = 0  # how often the venue has confirmed
        self._confirmed = asyncio.Event()

    # -- what the stream says; see `exchange.Listener` -----------------------------------------------------------------

    def on_subscribed(self) -> None:
        self.subscriptions += 1
        self._confirmed.set()

    def on_closed(self, symbol: str, k: Mapping[str, Any]) -> None:
        self._frames.put_nowait((symbol, k))

    # -- what follows from it ------------------------------------------------------------------------------------------

    async def run(self, symbols: tuple[str, ...]) -> None:
        """Follow these symbols for ever. Those that the venue does not list are named, and the others go on."""
        host = self._host
        exchange = Exchange.connect(host.settings, self)
        host.closers.append(exchange.close)
        for name in await self._listed(exchange, symbols):
            series = await Series.recover(host.store, name)
            self.fillers[name.symbol] = filler = Filler(host, exchange, series, self._archive)
            host.health.is_missing(waiting_for(name))
            host.spawn(filler.run(), f"fill {name.symbol}")
        host.health.is_there("venue")
        host.spawn(self._keep_frames(), "frames")
        host.spawn(self._fill_when_confirmed(), "confirmed")
        await exchange.listen(list(self.fillers), host.settings.timeframe)

    async def _listed(self, exchange: Exchange, symbols: tuple[str, ...]) -> list[SeriesName]:
        settings = self._host.settings
        known = await exchange.symbols()
        for symbol in symbols:
            if symbol not in known:
                text = f"The venue {settings.venue} does not list {symbol}, which is left out. It lists {_some(known)}."
                await self._host.alert(f"unknown-symbol-{symbol}", "warning", text)
        listed = [SeriesName(settings.venue, symbol, settings.timeframe) for symbol in symbols if symbol in known]
        if not listed:
            raise NeedsOperator(
                f"The venue {settings.venue} lists none of {', '.join(symbols)}. It lists {_some(known)}: "
                "set TRADE_SYMBOLS to some of those."
            )
        return listed

    async def _fill_when_confirmed(self) -> None:
        while True:
            await self._confirmed.wait()
            self._confirmed.clear()
            for filler in self.fillers.values():
                await filler.want()

    async def _burst(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The frames that came together, at least one: all that follows costs nearly the same for one and for many."""
        frames = [await self._frames.get()]
        for _ in range(TURNS):
            while not self._frames.empty():
                frames.append(self._frames.get_nowait())
            if len(frames) >= len(self.fillers):
                break
            await asyncio.sleep(0)
        return frames

    async def _keep_frames(self) -> None:
        """Keep what the stream told; whatever came together is one transaction."""
        while True:
            frames = await self._burst()
            by_symbol: dict[str, list[Candle]] = {}
            for symbol, k in frames:
                candle = from_frame(k)
                if candle is not None:
                    by_symbol.setdefault(symbol, []).append(candle)
                else:
                    log.warning("candle.undecodable", symbol=symbol, frame=dict(k))
                    await self.fillers[symbol].want()  # asked for again, by REST

            async def take(effects: Effects, by_symbol: dict[str, list[Candle]] = by_symbol) -> None:
                series = {symbol: self.fillers[symbol].series for symbol in by_symbol}
                keep(effects, [series[symbol].take(candles) for symbol, candles in by_symbol.items()])
                for each in series.values():
                    after(effects, self._host, self._archive, each)

            await self._host.act(take)
            for symbol in by_symbol:
                if self.fillers[symbol].series.sequence.is_waiting:
                    await self.fillers[symbol].want()


def after(effects: Effects, host: Host[IngesterSettings], archive: Archive, series: Series) -> None:
    """What follows once a series' bars are kept: venue time goes on, progress is told, a part may be full."""
    if series.watermark is None:
        return
    opened_at = from_ms(series.watermark)
    effects.afterwards(lambda: host.clock.saw(opened_at + timeframe_length(series.name.timeframe)))
    effects.afterwards(lambda: host.progress.reached(*series.name, opened_at))
    effects.afterwards(lambda: archive.has_grown(series))


def waiting_for(name: SeriesName) -> str:
    """What a service is missing until a series is complete for the first time."""
    return f"candles of {name.symbol}"


def _some(symbols: set[str]) -> str:
    """A few of many, for a person."""
    return ", ".join(sorted(symbols)[:20]) + (" ..." if len(symbols) > 20 else "")
