"""The suite's routes: backtests that are queued, and candidates for the governor. Reading is open, changing is not."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Header, HTTPException, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, Field

from services.backtest_suite.candidates import candidates_in
from services.backtest_suite.charges import costs_of
from services.backtest_suite.jobs import Job, Jobs
from services.backtest_suite.manifests import EXITS, FILLS
from services.backtest_suite.settings import BacktestSettings
from shared.contracts.errors import BadMessage
from shared.contracts.jobs import BacktestOrdered
from shared.contracts.subjects import PRESET_CANDIDATE
from shared.contracts.times import timeframe_length
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.web import allowed

Number = bool | int | float
NAME = r"^[A-Za-z0-9_-]{1,64}$"
MOST_VALUES = 10_000  # of one parameter of a grid
MOST_NAMED = 4_000  # characters of the names of all instruments


class Wanted(BaseModel, extra="forbid"):
    """A backtest on bars that the ingester holds. With `grid` every combination of its values."""

    strategy: str = Field(pattern=NAME)
    symbol: str = Field(
        max_length=MOST_NAMED,
        description="Those of a portfolio joined by +, in the order in which its strategy sees them.",
    )
    timeframe: str
    params: dict[str, Number] = Field(default_factory=dict)
    grid: dict[str, Annotated[list[Number], Field(min_length=1, max_length=MOST_VALUES)]] = Field(default_factory=dict)
    metric: str = "sharpe"
    first: AwareDatetime | None = Field(None, alias="from")
    last: AwareDatetime | None = Field(None, alias="to")
    fee_bps: float = Field(10.0, ge=0, le=1000)
    maker_bps: float | None = Field(None, ge=0, le=1000)
    min_fee: Decimal = Field(Decimal(0), ge=0, allow_inf_nan=False)
    fee_tiers: str = Field("", description="Such as 100000=8,1000000=6: bps from so much traded in the run on.")
    slippage_bps: float = Field(5.0, ge=0, le=1000)
    spread_bps: float = Field(0.0, ge=0, le=1000)
    slippage_model: str = Field("", description="crypto, shares, or such as volatility,size,weekend=1.5,noise=0.75.")
    borrow_bps: float | None = Field(None, ge=0, le=10_000)
    volume_share: float = Field(0.0, ge=0, le=1)
    cash: Decimal = Field(Decimal(10_000), gt=0, allow_inf_nan=False)
    size: Decimal | None = Field(None, gt=0, allow_inf_nan=False)
    exposure: float = Field(1.0, ge=0, le=1)
    shorts: bool = True
    rebalance_band: float = Field(0.0, ge=0, le=1)
    fill: Literal["next-open", "same-close", "next-close"] = "next-open"
    exits: Literal["on-close", "at-venue"] = "on-close"
    seed: int = Field(0, ge=0, lt=2**31)


class Proposed(BaseModel):
    proposed: list[str]  # preset ids, for the governor to judge


def routes(host: Host[BacktestSettings], jobs: Jobs) -> APIRouter:
    """What people and programs ask of the suite."""
    router = APIRouter()

    @router.post("/backtest/run", dependencies=[allowed("operator")], status_code=202)
    async def run(
        wanted: Wanted, idempotency_key: Annotated[str, Header(pattern=r"^[A-Za-z0-9_-]{0,64}$")] = ""
    ) -> Response:
        """Queue it. With an `Idempotency-Key` the same key is the same run, however often it is sent."""
        order = _order(wanted, idempotency_key or "new", host.clock.now())
        return _answer(_told(await jobs.order(order, is_new=not idempotency_key)), 202)

    @router.get("/runs")
    async def runs(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> Response:
        """What was ordered, newest first."""
        return _answer({"runs": [_told(job, is_whole=False) for job in await jobs.newest(limit)]})

    @router.get("/runs/{run_id}")
    async def one(run_id: str, wait_s: Annotated[float, Query(ge=0, le=30)] = 0.0) -> Response:
        """How far it is, and what came of it: `summary` is what `trimtab backtest --json` prints, `trades` its newest.

        With `wait_s` the answer comes when it is over, or after so many seconds.
        """
        return _answer(_told(_found(await jobs.when_over(run_id, wait_s), run_id)))

    @router.get("/runs/{run_id}/equity")
    async def equity(run_id: str) -> Response:
        """Equity at the bars' closes, at most 2,000 points."""
        job = _found(await jobs.find(run_id), run_id)
        if job.finding is None or not job.finding.equity:
            why = "a grid has no single equity" if job.order.grid else f"it is {job.state}"
            raise HTTPException(409, f"Run {run_id} has no equity: {why}.")
        return _answer({"id": run_id, "columns": ["opened_at_ms", "equity"], "points": job.finding.equity})

    @router.post("/runs/{run_id}/cancel", dependencies=[allowed("operator")])
    async def cancel(run_id: str) -> Response:
        """Take it out of the queue, or stop it. What is over stays as it is, and that is a 409."""
        job = _found(await jobs.cancel(run_id), run_id)
        if job.state != "canceled":
            raise HTTPException(409, f"Run {run_id} is {job.state} already.")
        return _answer(_told(job))

    @router.post("/candidates", dependencies=[allowed("trainer")])
    async def candidates(request: Request) -> Proposed:
        """Propose what `trimtab backtest presets` found. The same again changes nothing."""
        found = candidates_in(await request.body())
        for one in found:
            if one.venue != host.settings.venue:
                raise BadMessage(f"Expected candidates for the venue {host.settings.venue}, was {one.venue}.")

        async def work(effects: Effects) -> None:
            for one in found:
                effects.publish(PRESET_CANDIDATE, one)

        await host.act(work)
        return Proposed(proposed=[one.preset_id for one in found])

    return router


def _order(wanted: Wanted, name: str, now: datetime) -> BacktestOrdered:
    """The order as it travels. Raises BadMessage on a strange symbol or timeframe."""
    timeframe_length(wanted.timeframe)
    try:
        return BacktestOrdered(
            job_id=name,
            worker="backtest_suite",
            strategy=wanted.strategy,
            symbol=wanted.symbol,
            timeframe=wanted.timeframe,
            params=wanted.params,
            grid={axis: tuple(values) for axis, values in wanted.grid.items()},
            metric=wanted.metric,
            first=wanted.first,
            last=wanted.last,
            costs=costs_of(
                fee_bps=wanted.fee_bps,
                maker_bps=wanted.maker_bps,
                min_fee=wanted.min_fee,
                fee_tiers=wanted.fee_tiers,
                slippage_bps=wanted.slippage_bps,
                spread_bps=wanted.spread_bps,
                slippage_model=wanted.slippage_model,
                borrow_bps_year=wanted.borrow_bps,
                max_volume_share=wanted.volume_share,
                seed=wanted.seed,
            ),
            cash=wanted.cash,
            fill=FILLS[wanted.fill],
            exits=EXITS[wanted.exits],
            size=wanted.size,
            exposure=wanted.exposure,
            shorts=wanted.shorts,
            rebalance_band=wanted.rebalance_band,
            seed=wanted.seed,
            ordered_at=now,
        )
    except ValueError as error:
        raise BadMessage(str(error)) from error


def _found(job: Job | None, run_id: str) -> Job:
    if job is None:
        raise HTTPException(404, f"Nobody ordered a run {run_id!r}: GET /runs names those that were.")
    return job


def _told(job: Job, *, is_whole: bool = True) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": job.order.job_id,
        "state": job.state,
        "progress": job.progress,
        "detail": job.detail,
        "run_id": None if job.finding is None else job.finding.run_id or None,
        "order": job.order,
    }
    if is_whole:
        told["summary"] = None if job.finding is None else job.finding.summary
        told["trades"] = [] if job.finding is None else job.finding.trades
    return told


def _answer(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")
