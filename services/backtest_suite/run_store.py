"""What was ever run, in one SQLite file: results by fingerprint, runs by id, and how often one has tried.

A result is kept under the fingerprint of all that it depends on, so it is never computed twice, by any process. The
trial count is read off the same rows: it cannot go down, and nobody can forget to count.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import msgspec

from services.backtest_suite.driver import Experiment
from services.backtest_suite.manifests import SHORT, Manifest
from services.backtest_suite.outcomes import Outcome
from services.backtest_suite.results import Result
from shared.artifacts.canonical import canonical_json
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Figures
from shared.trading.compiled import Failure

DEFAULT_FOLDER = Path("var/backtests")
FILE = "runs.sqlite"
PATIENCE_S = 30.0  # while another process writes
TABLES = (
    """create table results (
        fingerprint text primary key, data_sha256 text not null, strategy text not null, params text not null,
        figures blob, failure text not null
    ) without rowid""",
    "create index trials on results (data_sha256, strategy, params)",
    """create table runs (
        number integer primary key, run_id text not null unique, fingerprint text not null, manifest blob not null
    )""",
    # Sets that were tried on a part of the bars: who tuned on a window has seen the whole.
    """create table tried (
        data_sha256 text not null, strategy text not null, params text not null,
        primary key (data_sha256, strategy, params)
    ) without rowid""",
)
EVER_TRIED = (
    "select params from results where data_sha256 = ? and strategy = ?"
    " union select params from tried where data_sha256 = ? and strategy = ?"
)
KEEP_RESULT = "insert or replace into results values (?, ?, ?, ?, ?, ?)"


class RunStore:
    """The runs database in a folder. Several processes may use one; each write is one transaction."""

    def __init__(self, folder: Path = DEFAULT_FOLDER) -> None:
        """Open or make it. Raises NeedsOperator when it is damaged, newer than this program, or cannot be written."""
        self.folder = folder
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=PATIENCE_S, isolation_level=None)
            self._prepare()
        except (sqlite3.DatabaseError, OSError) as error:
            raise NeedsOperator(
                f"Cannot use the runs database {self.path}: {error}. Move it away to begin anew, or name another folder "
                "with --data-dir."
            ) from error

    def _prepare(self) -> None:
        for pragma in ("journal_mode=wal", "synchronous=normal"):
            self._db.execute(f"pragma {pragma}")
        self._db.execute("begin immediate")
        (done,) = self._db.execute("pragma user_version").fetchone()
        if done > len(TABLES):
            raise NeedsOperator(f"{self.path} was written by a newer Trimtab (schema {done}): update.")
        for statement in TABLES[done:]:
            self._db.execute(statement)
        self._db.execute(f"pragma user_version={len(TABLES)}")
        self._db.execute("commit")

    def known(self, fingerprints: Iterable[str]) -> dict[str, Outcome]:
        """What was computed of these before."""
        rows = self._db.execute(
            "select fingerprint, params, figures, failure from results join json_each(?) on fingerprint = value",
            (msgspec.json.encode(list(fingerprints)).decode(),),
        )
        return {
            fingerprint: Outcome(
                fingerprint=fingerprint,
                params=msgspec.json.decode(params),
                figures=None if figures is None else msgspec.msgpack.decode(figures, type=Figures),
                failure=failure,
            )
            for fingerprint, params, figures, failure in rows
        }

    def keep(self, data_sha256: str, strategy: str, outcomes: Sequence[Outcome]) -> None:
        """Keep these results, all or none."""
        with self._transaction():
            self._db.executemany(KEEP_RESULT, [_row(data_sha256, strategy, outcome) for outcome in outcomes])

    def trials(self, data_sha256: str, strategy: str, params: Iterable[dict[str, Any]] = ()) -> int:
        """How many parameter sets of this strategy were ever run on these bars or a part, or are about to be (`params`)."""
        tried = {row[0] for row in self._db.execute(EVER_TRIED, (data_sha256, strategy) * 2)}
        return len(tried | {_key(one) for one in params})

    def count(self, data_sha256: str, strategy: str, params: Iterable[dict[str, Any]]) -> int:
        """Count these sets as tried on these bars, of which they saw a part. The trials there are now."""
        with self._transaction():
            rows = [(data_sha256, strategy, _key(one)) for one in params]
            self._db.executemany("insert or ignore into tried values (?, ?, ?)", rows)
        return self.trials(data_sha256, strategy)

    def run(self, experiment: Experiment, params: Mapping[str, object] | None = None) -> Result:
        """Run one parameter set, count it, and keep it under an id that no other run has.

        One that raises is counted as well: it was tried.
        """
        checked = experiment.strategy.params(params)._asdict()
        data, strategy = experiment.bars.sha256, experiment.strategy.name
        outcome = Outcome(fingerprint=experiment.fingerprint(checked), params=checked)
        try:
            result = experiment.run(checked, trials=self.trials(data, strategy, [checked]))
        except Failure as failure:
            self.keep(data, strategy, [msgspec.structs.replace(outcome, failure=str(failure))])
            raise
        with self._transaction():
            kept = msgspec.structs.replace(outcome, figures=result.figures)
            self._db.execute(KEEP_RESULT, _row(data, strategy, kept))
            same = (f"{result.fingerprint[:SHORT]}-*",)
            (ran,) = self._db.execute("select count(*) from runs where run_id glob ?", same).fetchone()
            result = replace(result, number=ran + 1)
            self._db.execute(
                "insert into runs (run_id, fingerprint, manifest) values (?, ?, ?)",
                (result.run_id, result.fingerprint, msgspec.json.encode(result.manifest)),
            )
        return result

    def runs(self, limit: int = 100) -> list[Manifest]:
        """The runs that were kept last, newest first."""
        rows = self._db.execute("select manifest from runs order by number desc limit ?", (limit,))
        return [msgspec.json.decode(blob, type=Manifest) for (blob,) in rows]

    def manifest(self, run_id: str) -> Manifest | None:
        """Of one run, or None."""
        row = self._db.execute("select manifest from runs where run_id = ?", (run_id,)).fetchone()
        return None if row is None else msgspec.json.decode(row[0], type=Manifest)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing. Raises NeedsOperator when the disk refuses (full, read-only)."""
        try:
            self._db.execute("begin immediate")
            try:
                yield
                self._db.execute("commit")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("rollback")
                raise
        except sqlite3.OperationalError as error:
            raise NeedsOperator(
                f"{self.path} could not be written: {error}. Is the disk full or read-only? What was kept before stays; "
                "run the same command again to go on from there."
            ) from error


def _row(data_sha256: str, strategy: str, outcome: Outcome) -> tuple[object, ...]:
    figures = None if outcome.figures is None else msgspec.msgpack.encode(outcome.figures)
    return outcome.fingerprint, data_sha256, strategy, _key(outcome.params), figures, outcome.failure


def _key(params: dict[str, Any]) -> str:
    return canonical_json(params).decode()
