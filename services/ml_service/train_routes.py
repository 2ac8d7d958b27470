"""`POST /train` and what became of it. Each series is a job of its own: asked for twice, it is trained once."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from services.ml_service.claims import Outcome, TrainingJob
from services.ml_service.ml_service import MlService
from services.ml_service.registry import KnownModel
from services.ml_service.series import Series, SeriesState
from services.ml_service.settings import check_states
from services.ml_service.trainer import METRIC, Order
from shared.contracts.errors import BadMessage
from shared.contracts.instruments import check_symbol
from shared.contracts.times import EPOCH, timeframe_ms, to_ms
from shared.regimes.features import WARMUP_BARS
from shared.runtime.web import allowed

TRAIN_WAIT_S = 120.0  # then 202 and a job id
VERDICT_WAIT_S = 10.0  # then `promoted` is null

Bars = Annotated[int, Field(ge=4 * WARMUP_BARS, le=200_000)]


class TrainRequest(BaseModel):
    """What to train. Without symbols, every series that is read here."""

    model_config = ConfigDict(extra="forbid")

    n_states: Annotated[int, Field(ge=1, le=12)] = 3
    states: Annotated[list[int], Field(min_length=1, max_length=5)] | None = None  # several make an ensemble
    tag: Annotated[str, Field(max_length=200)] = ""
    promote: bool = True  # ask the gate
    symbols: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    timeframe: str | None = None
    window: Bars | Literal["expanding"] | None = None  # the newest so many bars, or all that there are
    as_of: AwareDatetime | None = None  # only bars that had closed by then
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @property
    def of(self) -> tuple[int, ...]:
        """The states of the model that is asked for."""
        return tuple(self.states or (self.n_states,))

    @model_validator(mode="after")
    def _possible_states(self) -> TrainRequest:
        check_states(self.of)
        return self


def train_routes(service: MlService) -> APIRouter:
    """The router of `/train`."""
    router = APIRouter()
    claims = service.trainings.claims

    @router.post("/train", dependencies=[allowed("trainer")])
    async def train(request: TrainRequest | None = None) -> JSONResponse:
        request = request or TrainRequest()
        orders = [_order(service, request, series) for series in _chosen(service, request)]
        jobs = [TrainingJob(order, request.promote, is_due=False) for order in orders]
        work = [await claims.ask(job) for job in jobs]
        job_id = "+".join(job.job_id for job in jobs)
        _, under_way = await asyncio.wait(work, timeout=TRAIN_WAIT_S)
        return _accepted(job_id) if under_way else await _answer(service, job_id, [one.result() for one in work])

    @router.get("/train/{job_id}")
    async def training(job_id: str) -> JSONResponse:
        found = [await claims.find(part) for part in job_id.split("+")]
        outcomes: list[Outcome] = []
        for one in found:
            if one is None:
                raise HTTPException(404, f"Nobody has asked for the job {job_id!r}.")
            if isinstance(one, asyncio.Task):
                if not one.done():
                    return _accepted(job_id)
                one = one.result()
            outcomes.append(one)
        return await _answer(service, job_id, outcomes)

    return router


def _chosen(service: MlService, request: TrainRequest) -> list[Series]:
    """The series to train: those that are read here, or what the ingester may hold of other symbols."""
    read = [one for one in service.series.values() if request.timeframe in (None, one.state.timeframe)]
    if request.symbols is None:
        if not any(one.state.bars for one in read):
            raise HTTPException(409, "No bar has come yet: there is nothing to train on. Name symbols, and as_of.")
        return sorted((one for one in read if one.state.bars), key=lambda one: one.key)
    settings = service.host.settings
    chosen: list[Series] = []
    for symbol in dict.fromkeys(request.symbols):
        state = SeriesState(
            venue=settings.venue, symbol=check_symbol(symbol), timeframe=request.timeframe or settings.timeframe
        )
        chosen += [one for one in read if one.state.symbol == symbol] or [Series(state)]
    return chosen


def _order(service: MlService, request: TrainRequest, series: Series) -> Order:
    """Of the past where it is said, or where we read no bars and so do not know the last one."""
    as_of, now = request.as_of, service.host.clock.now()
    if as_of is None and not series.state.bars:
        if now == EPOCH:
            raise HTTPException(409, f"No bar has come yet: say as_of when {series.state.symbol} shall be trained.")
        as_of = now
    if as_of is not None and as_of > now > EPOCH:
        raise BadMessage(f"as_of must not be after {now.isoformat()}, the market's time, was {as_of.isoformat()}.")
    return service.trainings.order(
        series,
        states=request.of,
        window=0 if request.window == "expanding" else request.window,
        last_ms=None if as_of is None else to_ms(as_of) - timeframe_ms(series.state.timeframe),
        seed=request.seed,
        tag=request.tag,
    )


async def _answer(service: MlService, job_id: str, outcomes: list[Outcome]) -> JSONResponse:
    """The first model flat, and all of them. Raises BadMessage when one could not be made."""
    known: list[KnownModel] = []
    for outcome in outcomes:
        if isinstance(outcome, BadMessage):
            raise outcome
        known.append(service.registry.known[outcome.model_id])  # as it stands now
    answers = [await _trained(service, one) for one in known]
    return JSONResponse({**answers[0], "job_id": job_id, "models": answers})


async def _trained(service: MlService, known: KnownModel) -> dict[str, Any]:
    stage = known.stage
    if stage == "candidate":
        try:
            async with asyncio.timeout(VERDICT_WAIT_S):
                stage = await service.trainings.verdict(known.model_id)
        except TimeoutError:
            pass  # it may still come: `promoted` says null
    messages = {
        "candidate": "Trained. The governor has not spoken yet.",
        "kept": "Trained and kept. It was not offered for promotion.",
        "champion": "Trained, and promoted by the governor.",
        "refused": "Trained, and refused by the governor: see its record for the rules.",
        "demoted": "This same model was promoted before, and demoted since.",
    }
    return {
        "version_id": known.model_id,
        "series": known.series,
        "metric_name": METRIC,
        "metric_value": known.manifest.scores[METRIC],
        "metrics": known.manifest.scores,
        "promoted": None if stage == "candidate" else stage == "champion",
        "message": messages[stage],
    }


def _accepted(job_id: str) -> JSONResponse:
    body = {"job_id": job_id, "message": f"Still training: ask `GET /train/{job_id}`."}
    return JSONResponse(body, status_code=202)
