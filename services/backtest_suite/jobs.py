"""The queue of ordered backtests: told over the bus, kept in SQLite, done one at a time, each once.

ordered ── bt.work ──▶ queued ──▶ running ──▶ done | failed
   └──────────┴──────────┴──▶ canceled

A start goes on with what was queued or running: a grid computes only what is missing, a single run is made again. A job
that ends the process is given up after `MOST_ATTEMPTS`, so that it cannot keep the others waiting for ever.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import msgspec

from services.backtest_suite.bars import Ingester
from services.backtest_suite.settings import BacktestSettings
from services.backtest_suite.sources import FOREVER
from services.backtest_suite.work import Canceled, Finding, check, work
from shared.contracts.errors import BadMessage, NeedsOperator, TrimtabError, TryAgain
from shared.contracts.jobs import BacktestOrdered
from shared.contracts.subjects import BACKTEST_ORDERED
from shared.contracts.times import EPOCH
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.store import Row
from shared.trading.columns import Columns
from shared.trading.strategy import PortfolioStrategy, Strategy

State = Literal["ordered", "queued", "running", "done", "failed", "canceled"]
MOST_ATTEMPTS = 3
PAUSE_S = (0.1, 0.5, 1.0, 2.0)  # while the ingester is away
JOB_TABLES = (
    """create table jobs (
        number integer primary key autoincrement, job_id text not null unique, state text not null,
        attempts integer not null, detail text not null, body blob not null, finding blob
    )""",
)
WAITING = "('queued', 'running')"
COLUMNS = "number, job_id, state, detail, body, finding"
# A word that comes late changes nothing: what was canceled stays so, and what is done.
QUEUE = "update jobs set state = 'queued' where job_id = ? and state = 'ordered'"
BEGIN = f"update jobs set state = 'running', attempts = attempts + 1 where job_id = ? and state in {WAITING}"
END = "update jobs set state = ?, detail = ?, finding = ? where job_id = ? and state = 'running'"
CANCEL = "update jobs set state = 'canceled' where job_id = ? and state in ('ordered', 'queued', 'running')"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """An order, and what became of it."""

    number: int
    state: State
    progress: float  # 0..1
    detail: str  # why it failed, or what it waits for
    order: BacktestOrdered
    finding: Finding | None

    @property
    def is_over(self) -> bool:
        return self.state in ("done", "failed", "canceled")


class Jobs:
    """All that was ever ordered."""

    def __init__(
        self,
        host: Host[BacktestSettings],
        strategies: Mapping[str, Strategy | PortfolioStrategy],
        ingester: Ingester,
    ) -> None:
        self._host, self._strategies, self._ingester = host, strategies, ingester
        self._folder = host.settings.data_dir / "backtests"
        self._more = asyncio.Event()
        self._ended = asyncio.Event()  # set, and replaced, when a job ends
        self._running = ""  # the job that is being done
        self._progress = 0.0
        self._waits_for = ""
        self._unwanted: set[str] = set()  # running, and canceled meanwhile; read by the thread that computes

    async def order(self, asked: BacktestOrdered, *, is_new: bool = False) -> Job:
        """Keep the order and tell it. The same id is the same job; raises BadMessage when it meant another before.

        One that `is_new` is given an id that no other job has: what, when, and the ordinal, which keeps equal ones apart.
        """
        check(asked, self._strategies)
        name = asked.job_id

        async def act(effects: Effects) -> None:
            nonlocal asked, name
            if is_new:
                row = await self._host.store.row("select coalesce(max(number), 0) + 1 from jobs")
                assert row is not None  # an aggregate always has one
                name = f"{hashlib.sha256(msgspec.msgpack.encode(asked)).hexdigest()[:12]}-{row[0]}"
                asked = msgspec.structs.replace(asked, job_id=name)
            known = await self.find(name)
            if known is None:
                effects.execute(*_kept(asked))
                effects.publish(BACKTEST_ORDERED, asked)
            elif msgspec.structs.replace(known.order, ordered_at=asked.ordered_at) != asked:
                raise BadMessage(f"The key {name!r} was used for another backtest before: take a new one.")

        await self._host.act(act)
        job = await self.find(name)
        assert job is not None  # kept above
        return job

    async def on_ordered(self, order: BacktestOrdered, effects: Effects) -> None:
        """It came over the bus: from now on it is ours to do, once."""
        effects.execute(*_kept(order))
        effects.execute(QUEUE, order.job_id)
        effects.afterwards(self._more.set)

    async def cancel(self, job_id: str) -> Job | None:
        """Take it out of the queue, or stop it; None when nobody ordered it. What is over stays as it is."""

        async def act(effects: Effects) -> None:
            effects.execute(CANCEL, job_id)
            if job_id == self._running:
                effects.afterwards(lambda: self._unwanted.add(job_id))
            effects.afterwards(self._tell_ended)

        await self._host.act(act)
        return await self.find(job_id)

    async def when_over(self, job_id: str, timeout_s: float) -> Job | None:
        """The job once it is over, or as it is after this long."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    ended = self._ended  # taken before looking, so that no end is missed
                    job = await self.find(job_id)
                    if job is None or job.is_over:
                        return job
                    await ended.wait()
        except TimeoutError:
            return await self.find(job_id)

    def _tell_ended(self) -> None:
        self._ended.set()
        self._ended = asyncio.Event()

    async def find(self, job_id: str) -> Job | None:
        """One job."""
        row = await self._host.store.row(f"select {COLUMNS} from jobs where job_id = ?", job_id)
        return None if row is None else self._job(row)

    async def newest(self, limit: int) -> list[Job]:
        """The jobs that were ordered last, newest first."""
        rows = await self._host.store.rows(f"select {COLUMNS} from jobs order by number desc limit ?", limit)
        return [self._job(row) for row in rows]

    async def work_for_ever(self) -> None:
        """Do what is queued, oldest first, one at a time: a grid takes all cores."""
        while True:
            self._more.clear()
            row = await self._host.store.row(
                f"select body, attempts from jobs where state in {WAITING} order by number limit 1"
            )
            if row is None:
                await self._more.wait()
            else:
                await self._do(msgspec.msgpack.decode(row[0], type=BacktestOrdered), attempts=row[1])

    async def _do(self, order: BacktestOrdered, attempts: int) -> None:
        self._running, self._progress = order.job_id, 0.0

        async def begin(effects: Effects) -> None:
            effects.execute(BEGIN, order.job_id)

        await self._host.act(begin)
        state, detail, finding = "done", "", b""
        try:
            if attempts >= MOST_ATTEMPTS:
                raise NeedsOperator(f"It was begun {attempts} times, and each time the service ended before it did.")
            strategy = check(order, self._strategies)
            columns = await self._patiently(order)
            done = await asyncio.to_thread(work, order, strategy, columns, self._folder, self._on_progress)
            finding = msgspec.msgpack.encode(done)
        except Canceled:
            state = "canceled"  # as the table says already
        except TrimtabError as error:
            state, detail = "failed", str(error)

        async def end(effects: Effects) -> None:
            effects.execute(END, state, detail, finding or None, order.job_id)
            effects.afterwards(self._tell_ended)

        await self._host.act(end)
        self._unwanted.discard(order.job_id)
        self._running = ""
        self._host.log.info(f"backtest.{state}", job=order.job_id, strategy=order.strategy, detail=detail)

    def _on_progress(self, share: float) -> None:
        """Called by the thread that computes."""
        self._progress = share
        if self._running in self._unwanted:
            raise Canceled

    async def _patiently(self, order: BacktestOrdered) -> list[Columns]:
        """The bars of each member, once the ingester answers. Raises Canceled when nobody wants them any more."""
        first: datetime = order.first or EPOCH
        attempt = 0
        while True:
            try:
                return [
                    await self._ingester.columns(symbol, order.timeframe, first, order.last or FOREVER)
                    for symbol in order.members
                ]
            except TryAgain as error:
                self._waits_for = str(error)
                await asyncio.sleep(PAUSE_S[min(attempt, len(PAUSE_S) - 1)])
                attempt += 1
                if order.job_id in self._unwanted:
                    raise Canceled from error
            finally:
                self._waits_for = ""

    def _job(self, row: Row) -> Job:
        number, job_id, state, detail, body, finding = row
        is_running = state == "running" and job_id == self._running
        return Job(
            number=number,
            state=state,
            progress=1.0 if state == "done" else self._progress if is_running else 0.0,
            detail=self._waits_for if is_running else detail,
            order=msgspec.msgpack.decode(body, type=BacktestOrdered),
            finding=None if finding is None else msgspec.msgpack.decode(finding, type=Finding),
        )


def _kept(order: BacktestOrdered) -> tuple[str, str, bytes]:
    sql = "insert or ignore into jobs (job_id, state, attempts, detail, body) values (?, 'ordered', 0, '', ?)"
    return sql, order.job_id, msgspec.msgpack.encode(order)
