"""The model's own transition matrix, asked of ml_service: only there is the model itself.

A model never changes, so what was answered for one is remembered until another reads the series.
"""

from __future__ import annotations

from typing import NamedTuple

import httpx
import msgspec

from services.ops_api.settings import OpsSettings
from shared.regimes.labels import NAMES
from shared.regimes.transitions import Odds
from shared.runtime.service import Host

TIMEOUT_S = 2.0  # a page waits for it


class Expectation(NamedTuple):
    """How the model expects regimes to follow one another, or why that is not known."""

    model_id: str
    odds: Odds | None
    dwell_bars: tuple[float | None, ...]  # (3,) mean length of a spell; None where unknown or never left
    unknown: str  # "" when it is known


def unknown(model_id: str, why: str) -> Expectation:
    """What is expected when that cannot be known."""
    return Expectation(model_id, None, (None,) * len(NAMES), why)


class _Dwell(msgspec.Struct):
    model: tuple[float | None, float | None, float | None]


class _Answer(msgspec.Struct):
    """What is needed of ml_service's `/regime/{instrument}/transitions`."""

    model: Odds
    dwell_bars: _Dwell


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
            return unknown("", f"no model reads {series}")
        known = self._known.get(series)
        if known is not None and known.model_id == model_id:
            return known
        try:
            asked = {"timeframe": timeframe, "version_id": model_id}
            answer = await self._client.get(f"/regime/{symbol}/transitions", params=asked)
        except httpx.HTTPError as error:
            return unknown(model_id, f"ml_service at {self._client.base_url} does not answer: {error!r}")
        if answer.is_error:
            return unknown(model_id, f"ml_service answers {answer.status_code}: {answer.text[:200]}")
        try:
            said = msgspec.json.decode(answer.content, type=_Answer)
        except msgspec.DecodeError as error:
            return unknown(model_id, f"ml_service answers in other words than ours: {error}")
        self._known[series] = Expectation(model_id, said.model, said.dwell_bars.model, "")
        return self._known[series]
