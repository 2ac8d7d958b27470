"""What was heard, in the order in which it was consumed, and what was said on it. Each row carries the one before in its hash.

Replaying the heard rows must lead to the said ones (design, law 3). A row that was changed, dropped or put in later
breaks the chain from there on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from shared.contracts import subjects
from shared.contracts.wire import Envelope, open_envelope, pack, unpack
from shared.runtime.store import Statement, Store

Direction = Literal["heard", "said"]

TABLES = (
    """create table journal (seq integer primary key, direction text not null, message_id text not null,
       payload blob not null, hash blob not null)""",
)
BEGINNING = bytes(32)  # the hash before the first row
_kinds = {subject.message.__name__: subject.message for subject in subjects.SUBJECTS}


class Row(NamedTuple):
    """One line. `payload` is the packed envelope."""

    seq: int
    direction: Direction
    message_id: str
    payload: bytes
    hash: bytes


class Journal:
    """Appends rows; they are written with the other effects of what caused them."""

    def __init__(self, seq: int = 0, last: bytes = BEGINNING) -> None:
        self.seq, self.last = seq, last

    @classmethod
    async def recover(cls, store: Store) -> Journal:
        """Go on after the last row that was kept."""
        row = await store.row("select seq, hash from journal order by seq desc limit 1")
        return cls() if row is None else cls(int(row[0]), bytes(row[1]))

    def row(self, direction: Direction, envelope: Envelope) -> Statement:
        """The next row."""
        payload = pack(envelope)
        self.seq += 1
        self.last = link(self.last, self.seq, direction, envelope.id, payload)
        return Statement(
            "insert into journal values (?, ?, ?, ?, ?)", (self.seq, direction, envelope.id, payload, self.last)
        )


def link(previous: bytes, seq: int, direction: str, message_id: str, payload: bytes) -> bytes:
    """The hash of a row: over the hash before it and all that it holds."""
    head = f"{seq}\0{direction}\0{message_id}\0".encode()
    return hashlib.sha256(previous + head + payload).digest()


def first_broken(rows: Iterable[Row], previous: bytes = BEGINNING, seq: int = 0) -> int | None:
    """The number of the first row that does not follow from those before it; None when all do."""
    for row in rows:
        seq += 1
        if row.seq != seq or row.hash != link(previous, row.seq, row.direction, row.message_id, row.payload):
            return seq
        previous = row.hash
    return None


async def rows_after(store: Store, seq: int, limit: int) -> list[Row]:
    """Rows in their order, from the one after `seq` on."""
    found = await store.rows(
        "select seq, direction, message_id, payload, hash from journal where seq > ? order by seq limit ?", seq, limit
    )
    return [Row(*row) for row in found]


async def verified(store: Store, page: int = 2000) -> int | None:
    """Walk the whole chain; the first broken row, or None."""
    previous, seq = BEGINNING, 0
    while rows := await rows_after(store, seq, page):
        broken = first_broken(rows, previous, seq)
        if broken is not None:
            return broken
        previous, seq = rows[-1].hash, rows[-1].seq
    return None


def shown(row: Row) -> dict[str, Any]:
    """A row for people and other services: the message whole, as JSON values."""
    envelope = unpack(row.payload)
    message = open_envelope(envelope, _kinds[envelope.type])
    return {
        "seq": row.seq,
        "direction": row.direction,
        "id": envelope.id,
        "type": envelope.type,
        "at": envelope.at,
        "source": envelope.source,
        "correlation": envelope.correlation,
        "cause": envelope.cause,
        "hash": row.hash.hex(),
        "body": msgspec.to_builtins(message),
    }
