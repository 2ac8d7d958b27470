"""`POST /predict`: the regime of bars, of returns, or of a symbol. An error is an error, never a regime."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel, ConfigDict, Field, model_validator

from services.ml_service.bars import is_sound
from services.ml_service.ml_service import MlService
from services.ml_service.series import Series
from shared.contracts.errors import BadMessage
from shared.contracts.times import from_ms
from shared.regimes.features import LONG, TRENDS, WARMUP_BARS, Candle, Features, features_of, trends_of_returns
from shared.regimes.hmm import forward_filter, marginal, odds
from shared.regimes.labels import NAMES

MAX_ROWS = 5_000

Price = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Return = Annotated[float, Field(ge=-20, le=20, allow_inf_nan=False)]


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


def routes(service: MlService) -> APIRouter:
    """The router of this service."""
    router = APIRouter()

    @router.post("/predict")
    async def predict(request: PredictRequest) -> dict[str, Any]:
        if request.bars is None and request.logret is None:
            return _latest(_only(_chosen(service, [request.symbol or ""], request.timeframe)))
        symbols = None if request.symbol is None else [request.symbol]
        with_model = [one for one in _chosen(service, symbols, request.timeframe) if one.reader.model is not None]
        return _predicted(_only(with_model), request)

    return router


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
