"""Bars that will not change any more, as Parquet parts under the hash of their content. pyarrow comes only when needed."""

from __future__ import annotations

import asyncio
import hashlib
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from services.ingester.book import Chunk, Series, tail_of
from services.ingester.candles import Candle, SeriesName
from services.ingester.settings import IngesterSettings
from shared.artifacts.bar_files import feather_bytes, written
from shared.contracts.market import ChunkRegistered
from shared.contracts.subjects import CHUNK_REGISTERED
from shared.contracts.times import from_ms
from shared.runtime.listening import Effects
from shared.runtime.service import Host

ROW = struct.Struct("<q5d")


def content_hash(name: SeriesName, candles: Sequence[Candle]) -> str:
    """SHA-256 of what the bars say, in hex: equal bars have equal hashes, however they are stored."""
    said = hashlib.sha256("/".join(name).encode())
    for candle in candles:
        said.update(ROW.pack(*candle))
    return said.hexdigest()


class Archive:
    """The parts of all series, below one folder."""

    def __init__(self, host: Host[IngesterSettings], folder: Path) -> None:
        self.folder = folder
        self._host = host
        self._grown: asyncio.Queue[Series] = asyncio.Queue()

    def has_grown(self, series: Series) -> None:
        """A series has bars that may fill a part."""
        if series.in_tail >= self._host.settings.chunk_bars:
            self._grown.put_nowait(series)

    async def run(self) -> None:
        """Move the oldest bars of tails into parts, each as soon as it can be filled; for ever."""
        size = self._host.settings.chunk_bars
        while True:
            series = await self._grown.get()
            while series.in_tail >= size:
                await self.store(series, await tail_of(self._host.store, series.name, size))

    async def store(self, series: Series, candles: Sequence[Candle]) -> bool:
        """Store these bars as a part. False when a part of this content is there already: then nothing is written."""
        name, digest = series.name, content_hash(series.name, candles)
        known = await self._host.store.row("select 1 from chunks where sha256 = ?", digest)
        file = Path(*name) / f"{candles[0].opened_at}-{len(candles)}-{digest[:12]}.parquet"
        if known is None:
            await asyncio.to_thread(_write, self.folder / file, candles)

        async def register(effects: Effects) -> None:
            first, last = candles[0].opened_at, candles[-1].opened_at
            effects.execute(
                "delete from tail where (venue, symbol, timeframe) = (?, ?, ?) and opened_ms between ? and ?",
                *name,
                first,
                last,
            )
            if known is None:
                chunk = (digest, *name, first, last, len(candles), str(file))
                effects.execute("insert into chunks values (?, ?, ?, ?, ?, ?, ?, ?)", *chunk)
                effects.publish(
                    CHUNK_REGISTERED,
                    ChunkRegistered(
                        venue=name.venue,
                        symbol=name.symbol,
                        timeframe=name.timeframe,
                        first_opened_at=from_ms(first),
                        last_opened_at=from_ms(last),
                        bars=len(candles),
                        sha256=digest,
                    ),
                )

            series.in_tail -= len(candles)

        await self._host.act(register)
        return known is None

    def feather(self, chunks: Sequence[Chunk], tail: Sequence[Candle], first: int, last: int) -> bytes:
        """The bars that opened in [first, last] (ms) as an Arrow feather file, ascending. Blocks: call it in a thread."""
        import pyarrow as pa
        from pyarrow import parquet as pq

        parts = [pq.read_table(self.folder / chunk.file) for chunk in chunks]
        table = pa.concat_tables([*parts, written(tail)])
        opened = table.column("timestamp").to_numpy()
        begin, end = np.searchsorted(opened, [first, last + 1]).tolist()  # parts and tail are in order
        table = table.slice(begin, end - begin)
        return feather_bytes(table)


def _write(path: Path, candles: Sequence[Candle]) -> None:
    """Write beside and rename: a part is there whole, or not at all."""
    from pyarrow import parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    pq.write_table(written(candles), beside, compression="zstd")
    beside.replace(path)
