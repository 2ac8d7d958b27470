"""What the governor keeps in SQLite, and how it comes back."""

from __future__ import annotations

import msgspec

from services.governor.applications import Application, Ruling
from services.governor.governor import Governor
from services.governor.record import Head
from shared.contracts.governance import Span, StageChanged
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.times import to_ms
from shared.runtime.store import Statement, Store

TABLES = (
    # Figures may be NaN, which JSON has not: MessagePack.
    (
        "create table applications (kind text not null, subject_id text not null, stage text not null,"
        " body blob not null, primary key (kind, subject_id)) without rowid"
    ),
    # The record, a line a row, as it was said: readable by a person, checkable by anybody.
    "create table record (sequence integer primary key, hash text not null unique, body text not null)",
    (
        "create table trials (data_sha256 text not null, strategy text not null, total integer not null,"
        " primary key (data_sha256, strategy)) without rowid"
    ),
    # Under which hash a worker has shown us which bars.
    (
        "create table spans (worker text not null, venue text not null, symbol text not null, timeframe text not null,"
        " first_ms integer not null, last_ms integer not null, data_sha256 text not null,"
        " primary key (worker, venue, symbol, timeframe, first_ms, last_ms)) without rowid"
    ),
    # Sets ever tried, whatever the bars: a search on other bars is a try more.
    "drop table trials",
    (
        "create table trials (strategy text not null, symbol text not null, timeframe text not null,"
        " total integer not null, primary key (strategy, symbol, timeframe)) without rowid"
    ),
)
TRIALS = "select strategy, symbol, timeframe, total from trials"


async def recall(store: Store, governor: Governor) -> None:
    """Let the governor become what it was."""
    applications = await store.rows("select body from applications")
    last = await store.row("select sequence, hash from record order by sequence desc limit 1")
    governor.recover(
        [msgspec.msgpack.decode(body, type=Application) for (body,) in applications],
        [(strategy, symbol, timeframe, total) for strategy, symbol, timeframe, total in await store.rows(TRIALS)],
        Head() if last is None else Head(*last),
    )


def keep(ruling: Ruling) -> list[Statement]:
    """Everything that a ruling changes."""
    statements = [
        Statement(
            "insert or replace into applications values (?, ?, ?, ?)",
            (one.kind, one.subject_id, one.stage, msgspec.msgpack.encode(one)),
        )
        for one in ruling.changed
    ]
    statements += [
        Statement("insert into record values (?, ?, ?)", (line.sequence, line.hash, msgspec.json.encode(line).decode()))
        for line in ruling.messages
        if isinstance(line, StageChanged)
    ]
    statements += [Statement("insert or replace into trials values (?, ?, ?, ?)", row) for row in ruling.trials]
    return statements


def keep_span(order: EvidenceOrdered, span: Span) -> Statement:
    """The hash of these bars, the first time that they are seen."""
    return Statement(
        "insert or ignore into spans values (?, ?, ?, ?, ?, ?, ?)",
        (
            order.worker,
            order.venue,
            order.symbol,
            order.timeframe,
            to_ms(span.first),
            to_ms(span.last),
            span.data_sha256,
        ),
    )


async def known_hash(store: Store, order: EvidenceOrdered, given: EvidenceGiven) -> str | None:
    """The hash under which these bars were seen first, None when they were not."""
    if given.span is None:
        return None
    row = await store.row(
        "select data_sha256 from spans where worker = ? and venue = ? and symbol = ? and timeframe = ?"
        " and first_ms = ? and last_ms = ?",
        order.worker,
        order.venue,
        order.symbol,
        order.timeframe,
        to_ms(given.span.first),
        to_ms(given.span.last),
    )
    return None if row is None else str(row[0])


async def lines(store: Store, after: int = 0, limit: int = -1) -> list[StageChanged]:
    """The record from the line that follows `after`; all of it by default."""
    rows = await store.rows("select body from record where sequence > ? order by sequence limit ?", after, limit)
    return [msgspec.json.decode(body, type=StageChanged) for (body,) in rows]
