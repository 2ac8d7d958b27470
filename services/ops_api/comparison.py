"""Regime twice, once: what the engine's own filter read, held against what ml_service said of the same bars.

Both stamp a hash of the posterior's exact bytes. The same model on the same bars must give the same bytes; where it does
not, `regime.mismatch` says so. For trading the engine's reading is right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

import httpx
import msgspec

from services.ops_api.now import series_of
from services.ops_api.readmodels import ReadModels
from services.ops_api.settings import OpsSettings
from shared.contracts.regime import RegimeMismatch, RegimeReading
from shared.contracts.subjects import REGIME_MISMATCH
from shared.contracts.times import from_ms
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.store import Store

PAUSE_S = 1.0  # between two rounds: the engine has better things to do than to answer us
PAGE = 1000  # readings asked for at once
TIMEOUT_S = 5.0


class Read(msgspec.Struct, frozen=True):
    """What one of the two read: a row of the engine's `/readings/{symbol}`, or of ours."""

    opened_ms: int
    regime: str
    model_id: str
    reading_hash: str


Pair = tuple[Read, Read]  # the engine's, ml_service's


class Series(msgspec.Struct):
    """How far one series was compared."""

    venue: str
    symbol: str
    timeframe: str
    compared_ms: int = 0  # last bar that both had read


class Comparison:
    """Compares on and on, a page at a time, whenever something new was read."""

    def __init__(self, host: Host[OpsSettings], models: ReadModels) -> None:
        self._host, self._models = host, models
        self._client = httpx.AsyncClient(base_url=host.settings.address_of("engine"), timeout=TIMEOUT_S)
        self._series: dict[str, Series] = {}
        self._read = asyncio.Event()
        host.closers.append(self._client.aclose)

    async def recover(self, store: Store) -> None:
        """Go on where the last process stopped."""
        for name, state in await store.rows("select series, state from compared"):
            self._series[name] = msgspec.msgpack.decode(state, type=Series)

    def heard(self, reading: RegimeReading) -> None:
        """ml_service has read a bar: there is something to compare."""
        name = series_of(reading)
        if name not in self._series:
            self._series[name] = Series(reading.venue, reading.symbol, reading.timeframe)
        self._read.set()

    async def compare_for_ever(self) -> None:
        """A round after something was read, and no sooner than `PAUSE_S` after the last."""
        while True:
            await self._read.wait()
            self._read.clear()
            try:
                for name in list(self._series):
                    await self._compare(name, self._series[name])
            except httpx.HTTPError as error:  # an engine that is away is told by its health; we ask again
                self._host.log.info("comparison.waits", error=repr(error))
                self._read.set()
            await asyncio.sleep(PAUSE_S)

    async def _compare(self, name: str, series: Series) -> None:
        """Whatever both have read and was not compared yet."""
        while True:
            rows = await self._host.store.rows(
                "select opened_ms, regime, model_id, reading_hash from readings"
                " where series = ? and opened_ms > ? order by opened_ms limit ?",
                *(name, series.compared_ms, PAGE),
            )
            if not rows:
                return
            ours = {row[0]: Read(*row) for row in rows}
            asked = {"after_ms": min(ours) - 1, "limit": PAGE}
            answer = (await self._client.get(f"/readings/{series.symbol}", params=asked)).raise_for_status()
            theirs = msgspec.json.decode(answer.content, type=list[Read])
            if not theirs:
                return
            series.compared_ms = min(max(ours), theirs[-1].opened_ms)  # beyond it, one of them has more to say
            compared, apart = differences([read for read in theirs if read.opened_ms <= series.compared_ms], ours)
            await self._host.act(partial(self._tell, name, series, compared, apart))

    async def _tell(self, name: str, series: Series, compared: int, apart: Sequence[Pair], effects: Effects) -> None:
        self._models.count(effects, "readings_compared", compared)
        state = msgspec.msgpack.encode(series)
        effects.execute(
            "insert into compared values (?, ?) on conflict (series) do update set state = excluded.state", name, state
        )
        for engine, service in apart:
            mismatch = RegimeMismatch(
                venue=series.venue,
                symbol=series.symbol,
                timeframe=series.timeframe,
                opened_at=from_ms(engine.opened_ms),
                model_id=engine.model_id,
                engine_hash=engine.reading_hash,
                service_hash=service.reading_hash,
            )
            effects.publish(REGIME_MISMATCH, mismatch)


def differences(engine: Sequence[Read], service: Mapping[int, Read]) -> tuple[int, list[Pair]]:
    """How many bars both read with the same model, and those of them on which the bytes differ.

    While a promotion is on its way the two may read one bar with different models: that is no mismatch.
    """
    pairs = [(read, service[read.opened_ms]) for read in engine if read.opened_ms in service]
    same = [(ours, theirs) for ours, theirs in pairs if ours.model_id == theirs.model_id]
    return len(same), [(ours, theirs) for ours, theirs in same if ours.reading_hash != theirs.reading_hash]
