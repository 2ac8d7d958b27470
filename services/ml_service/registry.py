"""What ml_service keeps: the bars that a reader resumes from, the state of each series, every model it made or used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from services.ml_service.drift import DriftTest
from services.ml_service.series import Series, SeriesState
from shared.artifacts.models import ModelManifest, load_model, manifest_bytes, manifest_from_bytes
from shared.artifacts.signing import require_signature
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Stage
from shared.regimes.features import Candle
from shared.regimes.hmm import RegimeModel
from shared.regimes.reader import BARS_TO_RESUME
from shared.runtime.listening import Effects
from shared.runtime.store import Store

TABLES = (
    """create table closes (
        series text not null, opened_ms integer not null, close real not null, primary key (series, opened_ms)
    ) without rowid""",
    "create table series (series text primary key, state blob not null) without rowid",
    """create table models (
        model_id text primary key, series text not null, stage text not null, manifest blob not null, npz blob not null
    )""",
    "drop table closes",  # features were of closes alone
    """create table bars (
        series text not null, opened_ms integer not null, open real not null, high real not null, low real not null,
        close real not null, volume real not null, primary key (series, opened_ms)
    ) without rowid""",
)
PRUNE_EVERY_BARS = 256

# `kept`: trained with promote=false, so the governor never heard of it.
ModelStage = Stage | Literal["kept"]


@dataclass(frozen=True)
class KnownModel:
    """A model in the registry."""

    model_id: str
    series: str
    stage: ModelStage
    manifest: ModelManifest


class Registry:
    """Models by id, in memory without their bytes; the bytes lie in the store."""

    def __init__(self, store: Store, key: bytes = b"") -> None:
        self._store, self._key = store, key
        self.known: dict[str, KnownModel] = {}
        self.refusals: dict[str, str] = {}  # series -> why the model that it used was not read back

    async def recover(self) -> dict[str, Series]:
        """Read back all models, and every series as it was after its last bar."""
        for model_id, series, stage, manifest in await self._store.rows(
            "select model_id, series, stage, manifest from models order by rowid"
        ):
            self.known[model_id] = KnownModel(model_id, series, stage, manifest_from_bytes(manifest))
        found: dict[str, Series] = {}
        for key, blob in await self._store.rows("select series, state from series order by series"):
            state = msgspec.msgpack.decode(blob, type=SeriesState)
            bars = await self._store.rows(
                "select opened_ms, open, high, low, close, volume from bars where series = ? "
                "order by opened_ms desc limit ?",
                key,
                BARS_TO_RESUME,
            )
            model = None
            try:
                model = await self.trusted_model(state.model_id) if state.model_id else None
            except BadMessage as error:  # the key of today does not vouch for it, or an older version of us kept it
                self.refusals[key] = str(error)
                state.model_id, state.posterior, state.drift = "", (), DriftTest()
                state.trained_ms = -1  # the next one is due at once
            found[key] = Series(state, [(int(ms), Candle(*prices)) for ms, *prices in reversed(bars)], model)
        return found

    async def npz(self, model_id: str) -> bytes | None:
        """A model's bytes, or None."""
        row = await self._store.row("select npz from models where model_id = ?", model_id)
        return None if row is None else bytes(row[0])

    async def model(self, model_id: str) -> RegimeModel | None:
        """A model that is kept here, or None. Raises BadMessage when it is none that this version reads."""
        npz = await self.npz(model_id)
        return None if npz is None else load_model(npz, model_id)

    async def trusted_model(self, model_id: str) -> RegimeModel | None:
        """The same, to be used: BadMessage also when the key of today does not vouch for it."""
        if refusal := self.distrust(model_id):
            raise BadMessage(refusal)
        return await self.model(model_id)

    def distrust(self, model_id: str) -> str:
        """Why the key of today does not vouch for this model, "" when it does or there is none."""
        if self._key and model_id not in self.known:
            return f"Model {model_id[:12]} has no manifest here that could be signed, and a model key is set: train it."
        try:
            if self._key:
                require_signature(self.known[model_id].manifest, self._key)
        except BadMessage as error:
            return str(error)
        return ""

    def keep_bar(self, effects: Effects, series: Series) -> None:
        """Keep what the last bar left behind, and forget what no reader resumes from."""
        opened_ms, bar = series.bars[-1]
        effects.execute("insert or replace into bars values (?, ?, ?, ?, ?, ?, ?)", series.key, opened_ms, *bar)
        if series.state.bars % PRUNE_EVERY_BARS == 0:
            oldest = series.bars[0][0]
            effects.execute("delete from bars where series = ? and opened_ms < ?", series.key, oldest)
        self.keep_state(effects, series)

    def keep_state(self, effects: Effects, series: Series) -> None:
        """Keep the state of a series."""
        effects.execute("insert or replace into series values (?, ?)", series.key, msgspec.msgpack.encode(series.state))

    def keep_model(self, effects: Effects, known: KnownModel, npz: bytes) -> None:
        """Keep a model and its bytes."""
        self.known[known.model_id] = known
        effects.execute(
            "insert or replace into models (model_id, series, stage, manifest, npz) values (?, ?, ?, ?, ?)",
            known.model_id,
            known.series,
            known.stage,
            manifest_bytes(known.manifest),
            npz,
        )

    def keep_stage(self, effects: Effects, model_id: str, stage: ModelStage) -> None:
        """Remember the governor's word on a model."""
        known = self.known[model_id]
        self.known[model_id] = KnownModel(known.model_id, known.series, stage, known.manifest)
        effects.execute("update models set stage = ? where model_id = ?", stage, model_id)
