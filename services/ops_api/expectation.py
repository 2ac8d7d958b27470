"""The model's own transition matrix, asked of ml_service: only there is the model itself.

A model never changes, so what was answered for one is remembered until another reads the series.
"""

from __future__ import annotations

from typing import NamedTuple

import httpx
import msgspec

from services.ops_api.regimes import Odds
from services.ops_api.settings import OpsSettings
from shared.runtime.service import Host

TIMEOUT_S = 2.0  # a page waits for it


class Expectation(NamedTuple):
    """How the model expects regimes to follow one another, or why that is not known."""

    model_id: str
    odds: Odds | None
    unknown: str  # "" when it is known


class _Answer(msgspec.Struct):
    """What is needed of ml_service's `/regime/{instrument}/transitions`."""

    model: Odds


class Expectations:
    """ml_service, asked over HTTP once for each model."""

    def __init__(self, host: Host[OpsSettings]) -> None:
        self._client = httpx.AsyncClient(base_url=host.settings.address_of("ml_service"), timeout=TIMEOUT_S)
        self._known: dict[str, Expectation] = {}  # by series
        host.closers.append(self._client.aclose)

    async def of(self, symbol: str, timeframe: str, model_id: str) -> Expectation:
        """What this model expects of this series."""
        series = f"{symbol}.{timeframe}"
        if not model_id:
            return Expectation("", None, f"no model reads {series}")
        known = self._known.get(series)
        if known is not None and known.model_id == model_id:
            return known
        try:
            asked = {"timeframe": timeframe, "version_id": model_id}
            answer = await self._client.get(f"/regime/{symbol}/transitions", params=asked)
        except httpx.HTTPError as error:
            return Expectation(model_id, None, f"ml_service at {self._client.base_url} does not answer: {error!r}")
        if answer.is_error:
            return Expectation(model_id, None, f"ml_service answers {answer.status_code}: {answer.text[:200]}")
        try:
            odds = msgspec.json.decode(answer.content, type=_Answer).model
        except msgspec.DecodeError as error:
            return Expectation(model_id, None, f"ml_service answers in other words than ours: {error}")
        self._known[series] = Expectation(model_id, odds, "")
        return self._known[series]
