"""SQLite, one file a service, one writer. The bus carries; this keeps.

Besides a service's own tables each file holds `inbox` (what was heard), `outbox` (what is to be told), `positions`
(how far each stream was taken) and `facts` (small values by name).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import aiosqlite

from shared.bus.bus import Outgoing
from shared.contracts.errors import NeedsOperator
from shared.contracts.times import from_ms, to_ms

HOUSE_TABLES = (
    "create table inbox (id text primary key, stored_ms integer not null) without rowid",
    """create table outbox (
        seq integer primary key autoincrement, subject text not null, message_id text not null, payload blob not null
    )""",
    "create table positions (stream text primary key, stored_ms integer not null) without rowid",
    "create table facts (name text primary key, value blob not null) without rowid",
)
FULL = 2  # as SQLite numbers it
WAIT_FOR_DISK, DO_NOT_WAIT = "pragma synchronous=FULL", "pragma synchronous=NORMAL"
CHECKPOINT_PAGES = 4000  # of WAL: a checkpoint waits for the disk three times, whatever it writes
LOG_BYTES = (CHECKPOINT_PAGES + 96) * (
    4096 + 24
)  # with the commit that reaches it; then it is written from its beginning
INBOX_KEPT_MS = 3_600_000  # of stream time; a stream is taken again from seconds before its position

Row = tuple[Any, ...]


class Statement(NamedTuple):
    sql: str
    row: Sequence[Any]


class Store:
    """One file. `commit` is the only way to write: everything given is one transaction.

    Reads go through aiosqlite, on a connection of their own that sees committed rows only. A commit is done in place:
    it takes 15 µs, or one fsync where FULL is asked for, less than handing it to a thread and back (ADR 5).
    """

    def __init__(
        self,
        writer: sqlite3.Connection,
        reader: aiosqlite.Connection,
        path: str,
        own: TemporaryDirectory[str] | None,
        *,
        is_full: bool,
    ) -> None:
        self._writer, self._reader = writer, reader
        self._is_full = is_full
        self.path = path
        self._own = own

    @classmethod
    async def open(
        cls, path: Path | None, tables: Sequence[str] = (), synchronous: Literal["FULL", "NORMAL"] = "FULL"
    ) -> Store:
        """Open or make the file (None: one that is gone at the close). `tables` are migrations, only ever appended.

        Raises NeedsOperator when the file is damaged, newer than this program, or cannot be written.
        """
        own = TemporaryDirectory(prefix="trimtab-") if path is None else None
        file = Path(own.name) / "store.sqlite" if own is not None else path
        assert file is not None
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            writer = sqlite3.connect(file, isolation_level=None)
            try:
                cls._prepare(writer, [*HOUSE_TABLES, *tables], synchronous, str(file))
                if synchronous == "FULL" and own is None:
                    _make_room(file.with_name(f"{file.name}-wal"))
                reader = await aiosqlite.connect(file, isolation_level=None)
                await reader.execute("pragma query_only=on")
            except BaseException:
                writer.close()
                raise
        except (sqlite3.DatabaseError, OSError) as error:
            raise NeedsOperator(
                f"Cannot use the database {file}: {error}. Move the file away to begin anew, or restore a copy."
            ) from error
        return cls(writer, reader, str(file), own, is_full=synchronous == "FULL")

    @staticmethod
    def _prepare(db: sqlite3.Connection, migrations: list[str], synchronous: str, shown: str) -> None:
        for pragma in (
            "journal_mode=wal",
            f"synchronous={synchronous}",
            f"wal_autocheckpoint={CHECKPOINT_PAGES}",
            "busy_timeout=5000",
            "foreign_keys=on",
        ):
            db.execute(f"pragma {pragma}")
        (checked,) = db.execute("pragma quick_check").fetchone()
        if checked != "ok":
            raise sqlite3.DatabaseError(f"quick_check says {checked}")
        (done,) = db.execute("pragma user_version").fetchone()
        if done > len(migrations):
            raise NeedsOperator(
                f"{shown} was written by a newer Trimtab (schema {done}, this one knows {len(migrations)}): update."
            )
        db.execute("begin immediate")
        for statement in migrations[done:]:
            db.execute(statement)
        db.execute(f"pragma user_version={len(migrations)}")
        db.execute("commit")

    async def rows(self, sql: str, *values: Any) -> list[Row]:
        """All rows of a query."""
        return [tuple(row) for row in await self._reader.execute_fetchall(sql, values)]

    async def row(self, sql: str, *values: Any) -> Row | None:
        """The first row of a query, or None."""
        found = await self.rows(sql, *values)
        return found[0] if found else None

    async def commit(self, statements: Sequence[Statement], *, must_last: bool = True) -> None:
        """Execute all of these, or none. Raises NeedsOperator when the disk refuses (full, read-only).

        In a FULL file a commit waits for the disk, and so for all commits before it. One that need not last through a
        power cut does not (ADR 6); the file is whole all the same.
        """
        try:
            if self._is_full:
                self._writer.execute(WAIT_FOR_DISK if must_last else DO_NOT_WAIT)
            self._writer.execute("begin immediate")
            try:
                for sql, row in statements:
                    self._writer.execute(sql, row)
                self._writer.execute("commit")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("rollback")
                raise
        except sqlite3.OperationalError as error:
            raise NeedsOperator(f"{self.path} could not be written: {error}. Is the disk full or read-only?") from error

    @property
    def waited_for_disk(self) -> bool:
        """Whether the last commit did."""
        (synchronous,) = self._writer.execute("pragma synchronous").fetchone()
        return synchronous >= FULL

    async def heard(self, ids: Sequence[str]) -> set[str]:
        """Those of these message ids that were heard before."""
        if not ids:
            return set()
        marks = ",".join("?" * len(ids))
        return {row[0] for row in await self.rows(f"select id from inbox where id in ({marks})", *ids)}

    async def inbox(self, limit: int) -> list[str]:
        """The ids heard last, oldest first."""
        rows = await self.rows("select id from inbox order by stored_ms desc limit ?", limit)
        return [row[0] for row in reversed(rows)]

    async def positions(self) -> dict[str, datetime]:
        """Stream -> the stream's time of the last message taken."""
        return {name: from_ms(ms) for name, ms in await self.rows("select stream, stored_ms from positions")}

    async def fact(self, name: str) -> bytes | None:
        """A small value kept by name, or None."""
        row = await self.row("select value from facts where name = ?", name)
        return None if row is None else bytes(row[0])

    async def outbox_after(self, seq: int) -> list[Outgoing]:
        """What is to be told after this row, oldest first."""
        rows = await self.rows("select subject, payload, message_id from outbox where seq > ? order by seq", seq)
        return [Outgoing(*row) for row in rows]

    async def close(self) -> None:
        await self._reader.close()
        self._writer.close()
        if self._own is not None:
            self._own.cleanup()


def _make_room(log: Path) -> None:
    """Give the write-ahead log its whole length at once. Frames that SQLite did not write count for nothing there.

    A commit that makes the file grow waits for the file system's own journal too, a third of its time.
    """
    with log.open("ab") as end:
        end.write(bytes(max(0, LOG_BYTES - end.tell())))


def keep_fact(name: str, value: bytes) -> Statement:
    """Keep a small value by name."""
    return Statement(
        "insert into facts values (?, ?) on conflict (name) do update set value = excluded.value", (name, value)
    )


def heard(message_id: str, stored_at: datetime) -> Statement:
    """This message was taken."""
    return Statement("insert or ignore into inbox values (?, ?)", (message_id, to_ms(stored_at)))


def position(stream: str, stored_at: datetime) -> Statement:
    """The stream was taken up to here."""
    return Statement(
        "insert into positions values (?, ?) on conflict (stream) do update set stored_ms = excluded.stored_ms",
        (stream, to_ms(stored_at)),
    )


def forget_heard(before: datetime) -> Statement:
    """Inbox rows of messages that no stream will deliver again."""
    return Statement("delete from inbox where stored_ms < ?", (to_ms(before) - INBOX_KEPT_MS,))


def to_tell(outgoing: Outgoing) -> Statement:
    """A message for the outbox."""
    return Statement("insert into outbox (subject, payload, message_id) values (?, ?, ?)", outgoing)
