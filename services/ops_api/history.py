"""How the last bars were read, from the rows: what a chart draws, and what `regimes` counts."""

from __future__ import annotations

from typing import Any

import msgspec

from services.ops_api.regimes import DRIFT_BARS, Read, drift_line
from services.ops_api.versions import promises
from shared.runtime.store import Store


class RegimeHistory(msgspec.Struct, frozen=True, kw_only=True):
    """Readings by columns, oldest first. What was not known at a bar is None there."""

    symbol: str
    timeframe: str
    opened_ms: list[int]
    bull: list[float | None]
    bear: list[float | None]
    chop: list[float | None]
    regime: list[str]
    model_id: list[str]
    log_likelihood: list[float | None]  # of the bar given those before it, nats
    drift: list[float | None]  # mean of it over the last 48 bars that one model read
    promised: list[float | None]  # that mean on the model's held-out bars


async def regime_history(store: Store, symbol: str, timeframe: str, limit: int) -> RegimeHistory:
    """The last `limit` readings."""
    rows = await _rows(store, f"{symbol}.{timeframe}", limit + DRIFT_BARS - 1)
    columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(7)]
    opened_ms, bull, bear, chop, regime, model_id, log_likelihood = (column[-limit:] for column in columns)
    promised = await promises(store, set(model_id))
    return RegimeHistory(
        symbol=symbol,
        timeframe=timeframe,
        opened_ms=opened_ms,
        bull=bull,
        bear=bear,
        chop=chop,
        regime=regime,
        model_id=model_id,
        log_likelihood=log_likelihood,
        drift=drift_line(_reads(rows))[-limit:],
        promised=[promised.get(one) for one in model_id],
    )


async def reads_of(store: Store, symbol: str, timeframe: str, limit: int) -> list[Read]:
    """The last `limit` readings, oldest first."""
    return _reads(await _rows(store, f"{symbol}.{timeframe}", limit))


def _reads(rows: list[tuple[Any, ...]]) -> list[Read]:
    return [Read(regime, model_id, log_likelihood) for *_, regime, model_id, log_likelihood in rows]


async def _rows(store: Store, series: str, limit: int) -> list[tuple[Any, ...]]:
    rows = await store.rows(
        "select opened_ms, bull, bear, chop, regime, model_id, log_likelihood from readings where series = ?"
        " order by opened_ms desc limit ?",
        *(series, limit),
    )
    return list(reversed(rows))
