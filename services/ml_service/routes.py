"""What ml_service answers over HTTP: train, predict, which models there are. An error is an error, never a regime."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.ml_service.bars import is_sound
from services.ml_service.registry import KnownModel
from services.ml_service.series import Series
from services.ml_service.service import MlService
from services.ml_service.settings import check_states
from services.ml_service.trainer import METRIC, Order
from shared.contracts.errors import BadMessage
from shared.contracts.times import from_ms
from shared.regimes.features import LONG, TRENDS, WARMUP_BARS, Candle, Features, features_of, trends_of_returns
from shared.regimes.hmm import forward_filter, marginal, odds
from shared.regimes.labels import NAMES
from shared.runtime.web import allowed

TRAIN_WAIT_S = 120.0  # then 202 and a job id
VERDICT_WAIT_S = 10.0  # then `promoted` is null
MAX_ROWS = 5_000
JOBS_KEPT = 100

Price = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Return = Annotated[float, Field(ge=-20, le=20, allow_inf_nan=False)]


class TrainRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    n_states: Annotated[int, Field(ge=1, le=12)] = 3
    states: Annotated[list[int], Field(min_length=1, max_length=5)] | None = None  # several make an ensemble
    tag: Annotated[str, Field(max_length=200)] = ""
    promote: bool = True
    symbols: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    timeframe: str | None = None
    window: Annotated[int, Field(ge=4 * WARMUP_BARS, le=200_000)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None

    @property
    def of(self) -> tuple[int, ...]:
        """The states of the model that is asked for."""
        return tuple(self.states or (self.n_states,))

    @model_validator(mode="after")
    def _possible_states(self) -> TrainRequest:
        check_states(self.of)
        return self


class BarRow(BaseModel):
    """A closed bar."""

    model_config = ConfigDict(extra="ignore")

    open: Price
    high: Price
    low: Price
    close: Price
    volume: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    timestamp: int | None = None  # opened-at, ms

    @model_validator(mode="after")
    def _sound(self) -> BarRow:
        if not is_sound(Candle(self.open, self.high, self.low, self.close, self.volume)):
            raise ValueError("low <= open, close <= high must hold")
        return self


class PredictRequest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    bars: Annotated[list[BarRow], Field(max_length=MAX_ROWS)] | None = None
    logret: Annotated[list[Return], Field(max_length=MAX_ROWS)] | None = None
    symbol: str | None = None
    timeframe: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> PredictRequest:
        if self.bars is not None and self.logret is not None:
            raise ValueError("send bars or logret, not both")
        if self.bars is None and self.logret is None and self.symbol is None:
            raise ValueError("send bars, or logret, or a symbol")
        return self


@dataclass
class Job:
    """A training that was asked for."""

    job_id: str
    work: asyncio.Task[list[KnownModel] | BadMessage]


def routes(service: MlService) -> APIRouter:
    """The router of this service."""
    router = APIRouter()
    jobs: dict[str, Job] = {}

    @router.post("/train", dependencies=[allowed("trainer")])
    async def train(request: TrainRequest | None = None) -> JSONResponse:
        request = request or TrainRequest()
        orders = [
            service.trainings.order(
                series, states=request.of, window=request.window, seed=request.seed, tag=request.tag
            )
            for series in _chosen(service, request.symbols, request.timeframe)
        ]
        job_id = "+".join(order.job_id for order in orders) + ("" if request.promote else "-kept")
        job = jobs.get(job_id)
        if job is None or job.work.done():
            work = service.host.spawn(_train_all(service, orders, request.promote), job_id)
            job = jobs[job_id] = Job(job_id, work)
            for old in list(jobs)[:-JOBS_KEPT]:
                del jobs[old]
        done, _ = await asyncio.wait({job.work}, timeout=TRAIN_WAIT_S)
        return await _answer(service, job) if done else _accepted(job)

    @router.get("/train/{job_id}")
    async def training(job_id: str) -> JSONResponse:
        job = jobs.get(job_id)
        if job is None:
            raise HTTPException(404, f"There is no job {job_id!r} since this service was started.")
        return await _answer(service, job) if job.work.done() else _accepted(job)

    @router.post("/predict")
    async def predict(request: PredictRequest) -> dict[str, Any]:
        if request.bars is None and request.logret is None:
            return _latest(_only(_chosen(service, [request.symbol or ""], request.timeframe)))
        symbols = None if request.symbol is None else [request.symbol]
        with_model = [one for one in _chosen(service, symbols, request.timeframe) if one.reader.model is not None]
        return _predicted(_only(with_model), request)

    @router.get("/model")
    async def model() -> dict[str, Any]:
        active = {key: one.state.model_id for key, one in service.series.items() if one.state.model_id}
        first = next(iter(active.values()), None)
        return {
            "active_version": first,
            "active": active,
            "registry_size": len(service.registry.known),
            "metrics": service.registry.known[first].manifest.scores if first else {},
        }

    @router.get("/models")
    async def models() -> list[dict[str, Any]]:
        active = {one.state.model_id for one in service.series.values()}
        return [
            {**msgspec.to_builtins(known.manifest), "stage": known.stage, "active": known.model_id in active}
            for known in reversed(service.registry.known.values())
        ]

    return router


async def _train_all(service: MlService, orders: list[Order], promote: bool) -> list[KnownModel] | BadMessage:
    """The models, or why there is none: an answer for who asked, and no reason for the service to end."""
    try:
        return [await service.trainings.train(order, promote) for order in orders]
    except BadMessage as error:
        return error


async def _answer(service: MlService, job: Job) -> JSONResponse:
    """The first model flat, and all of them. Raises BadMessage when there is none."""
    outcome = job.work.result()
    if isinstance(outcome, BadMessage):
        raise outcome
    answers = [await _trained(service, known) for known in outcome]
    return JSONResponse({**answers[0], "job_id": job.job_id, "models": answers})


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
        "metric_name": METRIC,
        "metric_value": known.manifest.scores[METRIC],
        "promoted": None if stage == "candidate" else stage == "champion",
        "message": messages[stage],
    }


def _accepted(job: Job) -> JSONResponse:
    body = {"job_id": job.job_id, "message": f"Still training: ask `GET /train/{job.job_id}`."}
    return JSONResponse(body, status_code=202)


def _chosen(service: MlService, symbols: list[str] | None, timeframe: str | None) -> list[Series]:
    """The series that a request names. Raises BadMessage when there is none of a symbol."""
    chosen: list[Series] = []
    for symbol in symbols or sorted({one.state.symbol for one in service.series.values()}):
        found = [
            one
            for one in service.series.values()
            if one.state.symbol == symbol and timeframe in (None, one.state.timeframe) and one.state.bars
        ]
        if not found:
            known = ", ".join(sorted(one.key for one in service.series.values())) or "none yet"
            raise BadMessage(f"There are no bars of {symbol!r} {timeframe or ''}. Known: {known}.")
        chosen += found
    if not chosen:
        raise HTTPException(409, "No bar has come yet: there is nothing to train on.")
    return chosen


def _only(series: list[Series]) -> Series:
    if not series:
        raise HTTPException(409, "There is no promoted model yet: train one with `POST /train`, or wait.")
    if len(series) > 1:
        names = ", ".join(one.key for one in series)
        raise BadMessage(f"Say which symbol and timeframe: there are models of {names}.")
    return series[0]


def _rows(request: PredictRequest) -> tuple[list[Features | None], datetime | None]:
    """The features of what was sent, and when its last bar opened if it says so. Raises BadMessage when too few."""
    if request.bars is None:
        returns = request.logret or []
        if len(returns) < LONG:
            raise BadMessage(f"A regime is read from at least {LONG} log returns, there were {len(returns)}.")
        return trends_of_returns(returns), None
    if len(request.bars) < WARMUP_BARS:
        raise BadMessage(f"A regime is read from at least {WARMUP_BARS} bars, there were {len(request.bars)}.")
    times = [bar.timestamp for bar in request.bars if bar.timestamp is not None]
    if times and (len(times) < len(request.bars) or sorted(set(times)) != times):
        raise BadMessage("The bars' timestamps must ascend, each bar with one, or none with one.")
    return features_of(request.bars), from_ms(times[-1]) if times else None


def _predicted(series: Series, request: PredictRequest) -> dict[str, Any]:
    """Of returns alone the trends can be told: the model is then asked what it says of those, the rest left out."""
    model = series.reader.model
    assert model is not None
    rows, as_of = _rows(request)
    used = model if request.bars is not None else marginal(model, TRENDS)
    last = forward_filter(used, [row for row in rows if row is not None])[-1]
    return {**_prediction(odds(used, last), series.state.model_id, as_of), "features": used.feature_schema}


def _latest(series: Series) -> dict[str, Any]:
    """What the service itself read of the last bar."""
    model = series.reader.model
    if model is None or not series.reader.filter.posterior:
        raise HTTPException(409, f"There is no promoted model of {series.key} yet, or it has seen too few bars.")
    closed_ms = series.state.last_ms + series.bar_ms
    return _prediction(odds(model, series.reader.filter), series.state.model_id, from_ms(closed_ms))


def _prediction(probabilities: tuple[float, float, float], model_id: str, as_of: datetime | None) -> dict[str, Any]:
    if not all(map(math.isfinite, probabilities)):
        raise HTTPException(500, "The odds are not finite.")
    confidence = max(probabilities)
    return {
        "probs": list(probabilities),
        "regime": NAMES[probabilities.index(confidence)],
        "confidence": confidence,
        "version_id": model_id,
        "as_of": None if as_of is None else as_of.isoformat(),
    }
