"""What is kept of each series: how far it has come, its youngest bars, its gaps. SQL lives here and nowhere else.

Bars are kept and told in one transaction: what the outbox publishes is what `tail` holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from services.ingester.candles import Candle, SeriesName, bar_closed
from services.ingester.sequence import Hole, Sequence
from shared.contracts.market import GapFound, QualityFlagged
from shared.contracts.subjects import BAR_CLOSED, GAP_FOUND, QUALITY_FLAGGED
from shared.contracts.times import from_ms, timeframe_ms
from shared.runtime.listening import Effects
from shared.runtime.store import Store

SERIES = "venue text, symbol text, timeframe text"
TABLES = (
    # next_ms: the bar whose turn it is; live_from_ms: the first bar that is not history, null until that is known
    (
        f"create table series ({SERIES}, next_ms integer not null, live_from_ms integer, bars integer not null, "
        "primary key (venue, symbol, timeframe)) without rowid"
    ),
    (
        f"create table tail ({SERIES}, opened_ms integer, open real, high real, low real, close real, volume real, "
        "primary key (venue, symbol, timeframe, opened_ms)) without rowid"
    ),
    (
        f"create table gaps ({SERIES}, first_ms integer, last_ms integer, bars integer, reason text, "
        "primary key (venue, symbol, timeframe, first_ms)) without rowid"
    ),
    (
        f"create table chunks (sha256 text primary key, {SERIES}, first_ms integer, last_ms integer, bars integer, "
        "file text) without rowid"
    ),
)


class Kept(NamedTuple):
    """How far a series had come."""

    next_at: int
    live_from: int | None
    bars: int
    in_tail: int


class Series:
    """One series: whose turn it is, and what is kept of it."""

    def __init__(self, name: SeriesName, kept: Kept | None) -> None:
        self.name = name
        self.sequence = Sequence(timeframe_ms(name.timeframe), kept and kept.next_at)
        self.live_from = kept and kept.live_from
        self.bars = kept.bars if kept else 0
        self.in_tail = kept.in_tail if kept else 0

    @classmethod
    async def recover(cls, store: Store, name: SeriesName) -> Series:
        """Read back how far it had come."""
        row = await store.row(
            "select next_ms, live_from_ms, bars, (select count(*) from tail where (venue, symbol, timeframe) ="
            " (series.venue, series.symbol, series.timeframe)) from series where (venue, symbol, timeframe) = (?, ?, ?)",
            *name,
        )
        return cls(name, None if row is None else Kept(*row))

    @property
    def watermark(self) -> int | None:
        """When the last bar opened that was taken or passed over (ms)."""
        return None if self.sequence.next_at is None else self.sequence.next_at - self.sequence.length

    def take(
        self,
        candles: Iterable[Candle],
        absent: Iterable[Hole] = (),
        undecodable: Iterable[int] = (),
        *,
        completes_history: bool = False,
    ) -> Taken:
        """What is in its turn now, bars and gaps in one order. `keep` it.

        `absent` are holes that the venue was asked for twice; `undecodable` are opened-ats of candles that came but
        could not be believed.
        """
        told: list[Candle | Hole] = [*self.sequence.offer(candles)]
        for hole in absent:
            while (passed := self.sequence.pass_over(hole)) is not None:
                told += [passed, *self.sequence.offer(())]
        is_history = self.live_from is None
        if completes_history and is_history:
            self.live_from = self.sequence.next_at
        bars = sum(isinstance(one, Candle) for one in told)
        self.bars += bars
        self.in_tail += bars
        row = (*self.name, self.sequence.next_at, self.live_from, self.bars)
        return Taken(self.name, told, is_history, frozenset(undecodable), row)


class Taken(NamedTuple):
    """What left a series together."""

    name: SeriesName
    told: list[Candle | Hole]  # in their order
    is_history: bool
    undecodable: frozenset[int]
    row: tuple[str | int | None, ...]  # how far the series has come with it

    @property
    def candles(self) -> list[Candle]:
        return [one for one in self.told if isinstance(one, Candle)]

    @property
    def holes(self) -> list[Hole]:
        return [one for one in self.told if isinstance(one, Hole)]


def keep(effects: Effects, taken: Iterable[Taken]) -> None:
    """Keep and tell all of it in one transaction."""
    known = [each for each in taken if each.row[3] is not None]  # else its beginning is not known yet: it waits
    for each in known:
        for candle in each.candles:
            effects.execute("insert into tail values (?, ?, ?, ?, ?, ?, ?, ?, ?)", *each.name, *candle)
    for each in known:
        effects.execute(
            "insert into series values (?, ?, ?, ?, ?, ?) on conflict do update set next_ms = excluded.next_ms,"
            " live_from_ms = excluded.live_from_ms, bars = excluded.bars",
            *each.row,
        )
    gaps = {(each.name, hole): _gap(each, hole) for each in known for hole in each.holes}
    for (name, hole), gap in gaps.items():
        effects.execute("insert into gaps values (?, ?, ?, ?, ?, ?, ?)", *name, *hole, gap.bars, gap.reason)
    for each in known:
        for one in each.told:
            if isinstance(one, Candle):
                effects.publish(BAR_CLOSED, bar_closed(each.name, one, is_history=each.is_history))
            else:
                effects.publish(GAP_FOUND, gaps[each.name, one])
                for at in sorted(at for at in each.undecodable if one.first <= at <= one.last):
                    effects.publish(QUALITY_FLAGGED, _invalid_bar(each.name, at))


def _gap(taken: Taken, hole: Hole) -> GapFound:
    venue, symbol, timeframe = taken.name
    return GapFound(
        venue=venue,
        symbol=symbol,
        timeframe=timeframe,
        first_opened_at=from_ms(hole.first),
        last_opened_at=from_ms(hole.last),
        bars=(hole.last - hole.first) // timeframe_ms(timeframe) + 1,
        reason="undecodable" if any(hole.first <= at <= hole.last for at in taken.undecodable) else "absent",
        is_history=taken.is_history,
    )


def _invalid_bar(name: SeriesName, at: int) -> QualityFlagged:
    return QualityFlagged(
        venue=name.venue,
        symbol=name.symbol,
        timeframe=name.timeframe,
        opened_at=from_ms(at),
        defect="invalid_bar",
        detail="The venue said twice what no candle can be: low <= open, close <= high, all above 0 and finite.",
    )


class Chunk(NamedTuple):
    """A stored part, by the ledger."""

    first_at: int
    last_at: int
    bars: int
    sha256: str
    file: str


async def tail_of(store: Store, name: SeriesName, limit: int = -1) -> list[Candle]:
    """The bars that are in no part yet, oldest first."""
    rows = await store.rows(
        "select opened_ms, open, high, low, close, volume from tail where (venue, symbol, timeframe) = (?, ?, ?)"
        " order by opened_ms limit ?",
        *name,
        limit,
    )
    return [Candle(*row) for row in rows]


async def chunks_of(store: Store, name: SeriesName) -> list[Chunk]:
    """The parts of a series, oldest first."""
    rows = await store.rows(
        "select first_ms, last_ms, bars, sha256, file from chunks where (venue, symbol, timeframe) = (?, ?, ?)"
        " order by first_ms",
        *name,
    )
    return [Chunk(*row) for row in rows]


async def gaps_of(store: Store, name: SeriesName) -> int:
    """How many bars of a series were found absent."""
    row = await store.row("select coalesce(sum(bars), 0) from gaps where (venue, symbol, timeframe) = (?, ?, ?)", *name)
    return int(row[0]) if row else 0
