"""What ml_service answers about a regime: which one it is, and how regimes follow one another."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException

from services.ml_service.baskets import BASKET, coupled, joint, shared_bits
from services.ml_service.ml_service import MlService
from services.ml_service.series import Series
from services.ml_service.transitions import days_of, dwell_bars, model_odds, total
from shared.contracts.times import from_ms
from shared.regimes.hmm import odds
from shared.regimes.labels import NAMES
from shared.regimes.transitions import empirical_odds


def regime_routes(service: MlService) -> APIRouter:
    """The router of `/regime`."""
    router = APIRouter(prefix="/regime")

    @router.get("/{instrument}/coupling")
    async def coupling(instrument: str, timeframe: str = "") -> dict[str, Any]:
        """How an instrument's regime goes with the market's, and its odds when those of the market are known as well."""
        series = _series(service, instrument, timeframe)
        place = f"{series.state.venue}.{BASKET}.{series.state.timeframe}"
        market, index = service.series.get(place), service.markets.indexes.get(place)
        sums = None if index is None else index.state.pairs.get(instrument)
        if market is None or sums is None:
            raise HTTPException(
                409, f"{instrument} was not read together with a market yet. Basket: {service.markets.members}"
            )
        pairs = joint(sums)
        mine, theirs = _belief(series), _belief(market)
        known = None not in (mine, theirs) and series.state.last_ms == market.state.last_ms
        return {
            "instrument": instrument,
            "members": service.markets.members,
            "names": NAMES,
            "joint": pairs,  # rows: the market's regime
            "bars": sum(sums),
            "shared_bits": shared_bits(pairs),
            "probs": mine,
            "market_probs": theirs,
            "coupled_probs": coupled(mine, theirs, pairs) if known and mine and theirs else None,
        }

    @router.get("/{instrument}")
    async def regime(instrument: str, timeframe: str = "") -> dict[str, Any]:
        """The reading of the last closed bar. Without a model, or while it warms up, UNKNOWN, and no odds."""
        series = _series(service, instrument, timeframe)
        state = series.state
        belief = _belief(series)
        return {
            "instrument": instrument,
            "venue": state.venue,
            "timeframe": state.timeframe,
            "regime": state.regime,
            "probs": None if belief is None else dict(zip(NAMES, belief, strict=True)),
            "confidence": None if belief is None else max(belief),
            "version_id": state.model_id or None,
            "bars": state.bars,
            "as_of": from_ms(state.last_ms + series.bar_ms) if state.bars else None,
        }

    @router.get("/{instrument}/transitions")
    async def transitions(instrument: str, timeframe: str = "", version_id: str = "") -> dict[str, Any]:
        """Odds of the next bar's regime, given this one's: by the model's matrix, and as counted while it was in use."""
        series = _series(service, instrument, timeframe)
        version_id = version_id or series.state.model_id
        if not version_id:
            raise HTTPException(409, f"There is no promoted model of {series.key} yet: train one with `POST /train`.")
        if version_id not in service.registry.known:
            raise HTTPException(404, f"There is no model {version_id!r} here: `GET /models` names them.")
        days = await days_of(service.host.store, series.key, version_id)
        counts = total(days)
        expected, seen = model_odds(await service.model(version_id)), empirical_odds(counts)
        return {
            "instrument": instrument,
            "timeframe": series.state.timeframe,
            "version_id": version_id,
            "names": NAMES,
            "model": expected,
            "empirical": seen,
            "counts": counts,
            "dwell_bars": {"model": dwell_bars(expected), "empirical": dwell_bars(seen)},
            "days": [{"day": day.day, "counts": day.counts} for day in days],
        }

    return router


def _belief(series: Series) -> tuple[float, float, float] | None:
    """The odds after the last bar; None while UNKNOWN."""
    model = series.reader.model
    return None if model is None or series.state.regime == "UNKNOWN" else odds(model, series.reader.filter)


def _series(service: MlService, instrument: str, timeframe: str) -> Series:
    found = [
        one
        for one in service.series.values()
        if one.state.symbol == instrument and timeframe in ("", one.state.timeframe)
    ]
    if not found:
        known = ", ".join(sorted(one.key for one in service.series.values())) or "none yet"
        raise HTTPException(404, f"No bars of {instrument} {timeframe} are read here. Known: {known}.")
    if len(found) > 1:
        names = ", ".join(sorted(one.state.timeframe for one in found))
        raise HTTPException(422, f"Say which timeframe of {instrument}: there are {names}.")
    return found[0]
