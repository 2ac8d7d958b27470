"""What the desk leaves in SQLite, and how it is read back: series, bars, sleeves, artifacts."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from shared.contracts.times import to_ms
from shared.regimes.hmm import FilterState
from shared.regimes.reader import Reading
from shared.runtime.store import Statement, Store
from shared.trading.snapshots import KeptCandidate
from shared.trading.values import Bar, Regime

TABLES = (
    "create table series (series text primary key, content blob not null) without rowid",
    """create table bars (series text not null, opened_ms integer not null, is_history integer not null,
       regime text not null, model_id text not null, reading_hash text not null, content blob not null)""",
    """create table sleeves (sleeve text primary key, cash text not null, content blob not null, state blob not null)
       without rowid""",
    "create table artifacts (sha256 text primary key, content blob not null) without rowid",
    "create table halts (at_ms integer not null, what text not null, reason text not null)",
    """create table candidates (sleeve text not null, preset_id text not null, content blob not null,
       primary key (sleeve, preset_id)) without rowid""",
)


class KeptSeries(msgspec.Struct, frozen=True, kw_only=True):
    """How far one instrument was read, and with what."""

    watermark_ms: int = -1  # opened-at of the last bar or gap that was taken
    first_live_ms: int = -1  # of the first bar that was no history
    absent: int = 0  # bars since then that the venue never had
    model_id: str = ""
    filter: tuple[tuple[float, ...], float] = ((), 0.0)  # posterior and log-likelihood
    promoted_ms: int | None = None  # when that model was promoted
    awaited_model: str = ""  # promoted, but its bytes were not to be had yet
    awaited_promoted_ms: int = 0


class KeptSleeve(msgspec.Struct, frozen=True, kw_only=True):
    """A sleeve besides its trader's state."""

    halted: str = ""  # why it stands still; "" when it does not
    halted_ms: int = -1  # opened-at of the last bar that its instrument had then
    waiting_preset: str = ""  # chosen, but not admitted yet
    waiting_decision: str = ""


def series_row(series: str, kept: KeptSeries) -> Statement:
    return Statement(
        "insert into series values (?, ?) on conflict (series) do update set content = excluded.content",
        (series, msgspec.msgpack.encode(kept)),
    )


def bar_row(series: str, bar: Bar, is_history: bool, reading: Reading) -> Statement:
    odds = (reading.bull, reading.bear, reading.chop)
    return Statement(
        "insert into bars values (?, ?, ?, ?, ?, ?, ?)",
        (
            series,
            bar.opened_at_ms,
            int(is_history),
            reading.regime,
            reading.model_id,
            reading.reading_hash,
            msgspec.msgpack.encode((bar, odds)),
        ),
    )


def new_sleeve(sleeve: str, cash: Decimal, books: bytes) -> Statement:
    """A sleeve at its birth, with its share of the capital."""
    words = msgspec.msgpack.encode(KeptSleeve())
    return Statement("insert into sleeves values (?, ?, ?, ?)", (sleeve, str(cash), words, books))


def keep_sleeve(sleeve: str, kept: KeptSleeve, books: bytes) -> Statement:
    words = msgspec.msgpack.encode(kept)
    return Statement("update sleeves set content = ?, state = ? where sleeve = ?", (words, books, sleeve))


def keep_sleeve_words(sleeve: str, kept: KeptSleeve) -> Statement:
    """All but the trader's books, which stay as they were."""
    return Statement("update sleeves set content = ? where sleeve = ?", (msgspec.msgpack.encode(kept), sleeve))


def keep_candidate(sleeve: str, preset_id: str, kept: KeptCandidate) -> Statement:
    return Statement(
        "insert or replace into candidates values (?, ?, ?)", (sleeve, preset_id, msgspec.msgpack.encode(kept))
    )


def forget_candidate(sleeve: str, preset_id: str) -> Statement:
    return Statement("delete from candidates where sleeve = ? and preset_id = ?", (sleeve, preset_id))


def halt_row(at: datetime, what: str, reason: str) -> Statement:
    return Statement("insert into halts values (?, ?, ?)", (to_ms(at), what, reason))


def manifest_fact(model_id: str) -> str:
    """Under which name the manifest of a promoted model is kept."""
    return f"manifest.{model_id}"


def artifact_row(sha256: str, content: bytes) -> Statement:
    return Statement("insert or ignore into artifacts values (?, ?)", (sha256, content))


async def kept_series(store: Store, series: str) -> KeptSeries:
    row = await store.row("select content from series where series = ?", series)
    return KeptSeries() if row is None else msgspec.msgpack.decode(row[0], type=KeptSeries)


async def last_bars(store: Store, series: str, count: int) -> list[tuple[Bar, Regime]]:
    """The last bars and what was read in them, oldest first."""
    rows = await store.rows("select content from bars where series = ? order by rowid desc limit ?", series, count)
    return [msgspec.msgpack.decode(content, type=tuple[Bar, Regime]) for (content,) in reversed(rows)]


async def kept_sleeves(store: Store) -> dict[str, tuple[Decimal, KeptSleeve, bytes]]:
    """Name -> capital at birth, words, and the trader's books."""
    return {
        name: (Decimal(cash), msgspec.msgpack.decode(content, type=KeptSleeve), bytes(books))
        for name, cash, content, books in await store.rows("select sleeve, cash, content, state from sleeves")
    }


async def kept_candidates(store: Store, sleeve: str) -> dict[str, KeptCandidate]:
    """Preset -> the candidate as it was when it was frozen last."""
    rows = await store.rows("select preset_id, content from candidates where sleeve = ?", sleeve)
    return {name: msgspec.msgpack.decode(content, type=KeptCandidate) for name, content in rows}


async def artifact(store: Store, sha256: str) -> bytes | None:
    row = await store.row("select content from artifacts where sha256 = ?", sha256)
    return None if row is None else bytes(row[0])


def filter_of(kept: KeptSeries) -> FilterState:
    """The filter where it stood, to the bit."""
    return FilterState(*kept.filter)
