"""The governor's routes: the record, its check, who is admitted, and governance by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException, Path, Query
from pydantic import BaseModel, Field

from services.governor.applications import Application, Kind, Ruling
from services.governor.enacting import enact
from services.governor.governor import Governor
from services.governor.memory import lines
from services.governor.record import Fault, verify, version_before
from services.governor.settings import GovernorSettings
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import StageChanged
from shared.contracts.operations import Audited
from shared.contracts.subjects import AUDITED
from shared.contracts.times import to_ms
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.web import allowed

SubjectId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class ByHand(BaseModel, extra="forbid"):
    """A person's decision. Both go into the record."""

    reason: str = Field(min_length=3, max_length=500)
    actor: str = Field("admin", pattern=r"^[A-Za-z0-9_.@-]{1,64}$")


class Rollback(ByHand):
    """Back to the model before, of one series."""

    symbol: str
    timeframe: str = ""  # where models read several of the symbol
    venue: str = ""


class Line(BaseModel):
    """One line of the record, see `StageChanged`."""

    sequence: int
    kind: str
    subject_id: str
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    before: str
    after: str
    reasons: list[str]
    profile: str
    evidence_id: str
    actor: str
    changed_at: datetime
    previous_hash: str
    hash: str


class Log(BaseModel):
    log: list[Line]
    last_sequence: int
    last_hash: str


class Verification(BaseModel):
    valid: bool
    detail: str
    lines: int  # that follow from one another, from the first on
    last_hash: str
    fault_at: int | None


class Admitted(BaseModel):
    kind: str
    subject_id: str
    venue: str
    strategy: str
    symbol: str
    timeframe: str
    since: datetime | None
    score: float | None  # Sharpe ratio on the holdout
    evidence_id: str
    is_synthetic: bool


class Champions(BaseModel):
    gate: str
    models: list[Admitted]
    presets: list[Admitted]
    waiting: list[Admitted]  # for their evidence


def routes(host: Host[GovernorSettings], governor: Governor) -> APIRouter:
    """Reading is open, deciding is for admins."""
    router = APIRouter(prefix="/governance")

    @router.get("/log")
    async def log(after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=5000)] = 500) -> Log:
        """Lines of the record that follow `after`, oldest first."""
        found = await lines(host.store, after, limit)
        head = governor.head
        return Log(log=list(map(_line, found)), last_sequence=head.sequence, last_hash=head.hash)

    @router.get("/verify")
    async def check() -> Verification:
        """Follow the whole record's chain of hashes, from what is on disk."""
        try:
            head, fault = verify(await lines(host.store))
        except ValueError as error:  # a row that is no line any more
            return Verification(valid=False, detail=f"Unreadable: {error}", lines=0, last_hash="", fault_at=None)
        if fault is None and head != governor.head:
            text = f"It ends at line {head.sequence}, {governor.head.sequence} were written."
            fault = Fault(head.sequence + 1, text)
        return Verification(
            valid=fault is None,
            detail=f"{head.sequence} lines, each follows from the one before." if fault is None else fault.text,
            lines=head.sequence,
            last_hash=head.hash,
            fault_at=None if fault is None else fault.sequence,
        )

    @router.get("/champions")
    async def champions() -> Champions:
        """Who is admitted, and who waits for a verdict."""
        admitted = governor.champions()
        return Champions(
            gate=governor.profile.title,
            models=[_admitted(one) for one in admitted if one.kind == "model"],
            presets=[_admitted(one) for one in admitted if one.kind == "preset"],
            waiting=[_admitted(one) for one in governor.applications.values() if not one.is_judged],
        )

    @router.post("/{kind}/{subject_id}/promote", dependencies=[allowed("admin")])
    async def promote(kind: Literal["model", "preset"], subject_id: SubjectId, body: ByHand) -> Log:
        """Admit what was refused or demoted."""
        return await by_hand(governor.promote_by_hand, "promote", kind, subject_id, body)

    @router.post("/model/rollback", dependencies=[allowed("admin")])
    async def rollback(body: Rollback) -> Log:
        """Admit the model again that read a series before the one that read it last."""
        record = await lines(host.store)
        places = {
            (line.venue, line.symbol, line.timeframe)
            for line in record
            if line.kind == "model"
            and line.symbol == body.symbol
            and body.timeframe in ("", line.timeframe)
            and body.venue in ("", line.venue)
        }
        if len(places) > 1:
            names = ", ".join(".".join(place) for place in sorted(places))
            raise BadMessage(f"Say which venue and timeframe of {body.symbol}: there are {names}.")
        before = version_before(record, places.pop()) if places else None
        if before is None:
            raise NeedsOperator(
                f"No model read {body.symbol} {body.timeframe} before the last one: promote one by its id."
            )
        return await by_hand(governor.promote_by_hand, "rollback", "model", before, body)

    @router.post("/{kind}/{subject_id}/demote", dependencies=[allowed("admin")])
    async def demote(kind: Literal["model", "preset"], subject_id: SubjectId, body: ByHand) -> Log:
        """Take a champion out of use."""
        return await by_hand(governor.demote_by_hand, "demote", kind, subject_id, body)

    async def by_hand(
        decide: Callable[[Kind, str, str, str, datetime], Ruling],
        action: str,
        kind: Kind,
        subject_id: str,
        body: ByHand,
    ) -> Log:
        written: list[StageChanged] = []

        async def work(effects: Effects) -> None:
            ruling = decide(kind, subject_id, body.reason, body.actor, host.clock.now())
            enact(host, ruling, effects)
            written.extend(one for one in ruling.messages if isinstance(one, StageChanged))
            effects.publish(
                AUDITED,
                Audited(
                    audit_id=f"governor.{action}.{kind}.{subject_id}.{to_ms(written[0].changed_at)}",
                    service="governor",
                    actor=body.actor,
                    action=f"{action} {kind} {subject_id}",
                    detail=body.reason,
                    at=written[0].changed_at,
                ),
            )

        try:
            await host.act(work)
        except BadMessage as error:  # nobody of this name
            raise HTTPException(404, str(error)) from error
        return Log(log=list(map(_line, written)), last_sequence=governor.head.sequence, last_hash=governor.head.hash)

    return router


def _line(line: StageChanged) -> Line:
    fields: dict[str, Any] = {name: getattr(line, name) for name in StageChanged.__struct_fields__}
    return Line(**fields)


def _admitted(one: Application) -> Admitted:
    return Admitted(
        kind=one.kind,
        subject_id=one.subject_id,
        venue=one.venue,
        strategy=one.strategy,
        symbol=one.symbol,
        timeframe=one.timeframe,
        since=one.changed_at,
        score=one.score if one.score > float("-inf") else None,
        evidence_id=one.evidence_id,
        is_synthetic=one.is_synthetic,
    )
