"""The doors to what is known of regimes and of the models that read them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, HTTPException, Query, Response

from services.ops_api.access import Access, GuardedRoute
from services.ops_api.expectation import Expectations
from services.ops_api.history import reads_of, regime_history
from services.ops_api.now import Now
from services.ops_api.regimes import (
    DWELL_FROM,
    Dwell,
    dwells,
    transition_counts,
)
from services.ops_api.routes import JsonResponse, known_series
from services.ops_api.versions import model_versions
from shared.contracts.instruments import check_symbol
from shared.contracts.regime import RegimeName
from shared.regimes.labels import NAMES
from shared.regimes.transitions import Odds, empirical_odds
from shared.runtime.store import Store

Bars = Annotated[int, Query(ge=1, le=5000)]


class Transitions(msgspec.Struct, frozen=True, kw_only=True):
    """How regimes follow one another: (3, 3) tables, from the regime of a row to that of a column, by `names`."""

    symbol: str
    timeframe: str
    names: tuple[RegimeName, ...]
    counts: list[list[int]]  # pairs of bars that one model named
    empirical: Odds
    model_id: str  # that reads now; "" when none does
    model: Odds | None  # None when it is not known, and then `unknown` says why
    unknown: str
    dwell_from: tuple[int, ...]  # bars: where each column of a histogram begins
    dwell: dict[RegimeName, Dwell]
    dwell_expected: tuple[float | None, ...]  # bars, by the model; None where it is not known


def regime_routes(store: Store, now: Now, access: Access, expectations: Expectations) -> APIRouter:
    """What people and programs ask of the regime."""
    readers = APIRouter(route_class=GuardedRoute, dependencies=[Depends(access.reader)])

    @readers.get("/regime/{instrument}")
    async def regime(instrument: str, timeframe: str = "") -> Response:
        series = known_series(now, instrument, timeframe)
        reading = now.readings.get(series)
        if reading is None:
            raise HTTPException(404, f"{series} was not read yet: ml_service reads each closed bar.")
        return JsonResponse(reading)

    @readers.get("/regime/{instrument}/history")
    async def history(instrument: str, timeframe: str = "", limit: Bars = 500) -> Response:
        symbol, _, frame = known_series(now, instrument, timeframe).rpartition(".")
        return JsonResponse(await regime_history(store, symbol, frame, limit))

    @readers.get("/regime/{instrument}/transitions")
    async def transitions(instrument: str, timeframe: str = "", limit: Bars = 5000) -> Response:
        series = known_series(now, instrument, timeframe)
        symbol, _, frame = series.rpartition(".")
        reads = await reads_of(store, symbol, frame, limit)
        reader = now.models.get(series)
        expected = await expectations.of(symbol, frame, reader.model_id if reader else "")
        counts = transition_counts(reads)
        return JsonResponse(
            Transitions(
                symbol=symbol,
                timeframe=frame,
                names=NAMES,
                counts=counts,
                empirical=empirical_odds(counts),
                model_id=expected.model_id,
                model=expected.odds,
                unknown=expected.unknown,
                dwell_from=DWELL_FROM,
                dwell=dwells(reads),
                dwell_expected=expected.dwell_bars,
            )
        )

    @readers.get("/models")
    async def models(
        symbol: str = "", timeframe: str = "", limit: Annotated[int, Query(ge=1, le=200)] = 50
    ) -> Response:
        series = known_series(now, check_symbol(symbol), timeframe) if symbol else ""
        return JsonResponse({"models": await model_versions(store, now, series, limit)})

    return readers
