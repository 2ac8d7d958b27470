"""What is to be told, kept until a channel has taken it. One row a note and channel.

waiting -> sending (before it leaves) -> sent | refused. A row that is found `sending` left us without an answer: it
may have arrived, so it is sent again with a word that says so.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from services.notifier.phrases import Level, Note
from shared.contracts.times import to_ms
from shared.runtime.listening import Effects
from shared.runtime.store import Statement, Store

TABLES = (
    (
        "create table notes (seq integer primary key autoincrement, note_id text not null, channel text not null,"
        " level text not null, text text not null, at_ms integer not null, state text not null default 'waiting',"
        " detail text not null default '', unique (note_id, channel))"
    ),
    "create index notes_waiting on notes (channel, level, seq) where state in ('waiting', 'sending')",
    "create table day_trades (trade text primary key, day text not null, pnl text not null, fees text not null)",
)
MERGED = 40  # notes in one message at most
KEPT = 10_000  # rows that were dealt with and stay, so that nothing is told twice


class Queued(NamedTuple):
    """One note on its way to one channel."""

    seq: int
    note_id: str
    level: Level
    text: str
    may_have_arrived: bool


class Parcel(NamedTuple):
    """Notes that leave together, and the text in which they do."""

    notes: list[Queued]
    text: str


def put(effects: Effects, channels: list[str], note_id: str, note: Note, at: datetime) -> None:
    """Queue a note for every channel; one that was queued before stays as it is."""
    for channel in channels:
        effects.execute(
            "insert or ignore into notes (note_id, channel, level, text, at_ms) values (?, ?, ?, ?, ?)",
            *(note_id, channel, note.level, note.text, to_ms(at)),
        )


async def next_parcel(store: Store, channel: str, header: str, most_chars: int) -> Parcel | None:
    """What this channel is told next: the oldest critical note alone, else the ordinary ones that wait, in order."""
    for level, limit in (("critical", 1), ("ordinary", MERGED)):
        rows = await store.rows(
            "select seq, note_id, level, text, state = 'sending' from notes"
            " where channel = ? and level = ? and state in ('waiting', 'sending') order by seq limit ?",
            *(channel, level, limit),
        )
        if rows:
            return packed([Queued(row[0], row[1], row[2], row[3], bool(row[4])) for row in rows], header, most_chars)
    return None


def packed(notes: list[Queued], header: str, most_chars: int) -> Parcel:
    """As many of these as one message holds: at least the first, cut if it must be.

    Those that may have arrived go apart from those that have not left yet.
    """
    again = notes[0].may_have_arrived
    text = f"{header} (again: nobody answered the first time)" if again else header
    taken: list[Queued] = []
    for note in notes:
        longer = f"{text}\n{note.text}"
        if note.may_have_arrived != again or (taken and len(longer) > most_chars):
            break
        taken.append(note)
        text = longer[:most_chars]
    return Parcel(taken, text)


def marked(parcel: Parcel, state: str, detail: str = "") -> list[Statement]:
    """These notes are now in this state."""
    sql = "update notes set state = ?, detail = ? where seq = ?"
    return [Statement(sql, (state, detail, note.seq)) for note in parcel.notes]


def forgotten(parcel: Parcel) -> Statement:
    """Rows so old that no event will be heard again that could repeat them."""
    sql = "delete from notes where seq < ? and state in ('sent', 'refused')"
    return Statement(sql, (parcel.notes[-1].seq - KEPT,))
