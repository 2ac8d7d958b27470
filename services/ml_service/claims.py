"""Who trains what: an order is taken once, however many ask for it, and stays taken over a restart.

A row is written before the work begins and finished with what came of it, in one transaction with what follows from
that. A start goes on with what was taken and not finished; what was finished is answered from its row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from services.ml_service.registry import KnownModel, Registry
from services.ml_service.settings import MlSettings
from services.ml_service.trainer import Order
from shared.contracts.errors import BadMessage
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.store import Statement

TABLES = (
    """create table training_jobs (
        job_id text primary key, job blob not null, model_id text not null, failure text not null
    ) without rowid""",
)

Outcome = KnownModel | BadMessage  # the model, or why there is none


class TrainingJob(msgspec.Struct):
    """An order that somebody waits for."""

    order: Order
    promote: bool
    is_due: bool  # ordered by the market's time: progress waits for it

    @property
    def job_id(self) -> str:
        """The same order is the same job."""
        return self.order.job_id + ("" if self.promote else "-kept")


class Claims:
    """The jobs of this service. `train` does one; `ended` adds what follows from it to the same transaction."""

    def __init__(
        self,
        host: Host[MlSettings],
        registry: Registry,
        train: Callable[[Order, bool], Awaitable[KnownModel]],
        ended: Callable[[TrainingJob, Outcome, Effects], None],
    ) -> None:
        self._host, self._registry, self._train, self._ended = host, registry, train, ended
        self._running: dict[str, tuple[TrainingJob, asyncio.Task[Outcome]]] = {}

    async def ask(self, job: TrainingJob) -> asyncio.Task[Outcome]:
        """The work on this job: the one that is under way, or a new one, taken before it begins."""
        work: list[asyncio.Task[Outcome]] = []

        async def take(effects: Effects) -> None:
            if found := self._running.get(job.job_id):
                found[0].is_due |= job.is_due
                effects.add(_row(found[0]))
                work.append(found[1])
                return
            row = await self._host.store.row("select model_id from training_jobs where job_id = ?", job.job_id)
            known = self._registry.known.get(row[0]) if row else None
            effects.add(_row(job))
            effects.afterwards(lambda: work.append(self._start(job, known)))

        await self._host.act(take)  # one at a time: between looking and taking nobody else can
        return work[0]

    def go_on(self, job: TrainingJob) -> None:
        """Work on a job that was taken in an earlier life."""
        self._start(job, None)

    async def unfinished(self) -> list[TrainingJob]:
        """The jobs that were taken and have not come to an end."""
        rows = await self._host.store.rows("select job from training_jobs where model_id = '' and failure = ''")
        return [msgspec.msgpack.decode(blob, type=TrainingJob) for (blob,) in rows]

    async def find(self, job_id: str) -> asyncio.Task[Outcome] | Outcome | None:
        """What is under way under this id, or what came of it; None when nobody ever asked for it."""
        if found := self._running.get(job_id):
            return found[1]
        row = await self._host.store.row("select model_id, failure from training_jobs where job_id = ?", job_id)
        if row is None:
            return None
        model_id, failure = row
        return BadMessage(failure) if failure else self._registry.known.get(model_id)

    def _start(self, job: TrainingJob, known: KnownModel | None) -> asyncio.Task[Outcome]:
        work = self._host.spawn(self._work(job, known), job.job_id)
        self._running[job.job_id] = job, work
        return work

    async def _work(self, job: TrainingJob, known: KnownModel | None) -> Outcome:
        """Never raises what is only an answer to who asked: that is no reason for the service to end."""
        outcome: Outcome
        try:
            outcome = known or await self._train(job.order, job.promote)
        except BadMessage as error:
            outcome = error

        async def end(effects: Effects) -> None:
            effects.add(_row(job, outcome))
            self._ended(job, outcome, effects)
            effects.afterwards(forget)

        def forget() -> None:
            del self._running[job.job_id]

        await self._host.act(end)
        return outcome


def _row(job: TrainingJob, outcome: Outcome | None = None) -> Statement:
    failure = (str(outcome) or "It failed without a word.") if isinstance(outcome, BadMessage) else ""
    model_id = outcome.model_id if isinstance(outcome, KnownModel) else ""
    return Statement(
        "insert or replace into training_jobs values (?, ?, ?, ?)",
        (job.job_id, msgspec.msgpack.encode(job), model_id, failure),
    )
