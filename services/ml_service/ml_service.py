"""What ml_service does with each message that it hears: what is read of a bar is `Series`, how models come about `Trainings`."""

from __future__ import annotations

from collections.abc import Sequence

from services.ml_service.bars import Ingester
from services.ml_service.jobs import EvidenceDesk
from services.ml_service.markets import Markets
from services.ml_service.registry import KnownModel, Registry
from services.ml_service.series import Series, SeriesState
from services.ml_service.settings import MlSettings
from services.ml_service.training import Trainings
from services.ml_service.transitions import counted
from shared.artifacts.models import load_model
from shared.artifacts.signing import trusted_manifest
from shared.contracts.errors import BadMessage
from shared.contracts.governance import ModelDemoted, ModelPromoted, StageChanged
from shared.contracts.jobs import EvidenceOrdered
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.regime import RegimeReading
from shared.contracts.subjects import (
    EVIDENCE_GIVEN,
    MARKET_REGIME,
    MODEL_DRIFTED,
    REGIME_READING,
    REGIME_TRANSITION,
)
from shared.contracts.times import timeframe_ms, to_ms
from shared.regimes.hmm import RegimeModel
from shared.regimes.reader import LIFE_BARS
from shared.runtime.listening import Effects
from shared.runtime.service import Host


class MlService:
    """Handlers. They run one at a time, in the order of their streams."""

    def __init__(
        self,
        host: Host[MlSettings],
        registry: Registry,
        series: dict[str, Series],
        ingester: Ingester,
    ) -> None:
        self.host, self.registry, self.series = host, registry, series
        self.trainings = Trainings(host, registry, series, ingester)
        self.markets = Markets(host)
        self._evidence = EvidenceDesk(registry, ingester, self.model)

    async def begin(self) -> None:
        """Go on where we were: nothing is heard before this is done."""
        await self.markets.recover()
        for key, refusal in self.registry.refusals.items():
            await self.host.alert(_refused(key), "critical", f"{refusal} {key} is read without it.")
        await self.trainings.put_again()
        await self.trainings.go_on()

    async def on_bar(self, bar: BarClosed, effects: Effects) -> None:
        """Read it; begin a training when one is due, before it is said that this bar is done."""
        reading = self._read(self._of(bar.venue, bar.symbol, bar.timeframe), bar, effects)
        if not bar.is_history or reading.regime != "UNKNOWN":  # thousands of UNKNOWN of the past help nobody
            effects.publish(REGIME_READING, reading)
        self._read_market(self.markets.on_bar(bar), effects)
        self.markets.keep(bar, effects)
        self.host.progress.reaches(effects, bar.venue, bar.symbol, bar.timeframe, bar.opened_at)

    async def on_gap(self, gap: GapFound, effects: Effects) -> None:
        """Nothing is read of bars that never were; the next one follows the last."""
        self._read_market(self.markets.on_gap(gap), effects)
        self.markets.keep(gap, effects)
        self.host.progress.reaches(effects, gap.venue, gap.symbol, gap.timeframe, gap.last_opened_at)

    def _read_market(self, complete: Sequence[BarClosed], effects: Effects) -> None:
        """Read the bars of the index that are complete now."""
        for bar in complete:
            reading = self._read(self._of(bar.venue, bar.symbol, bar.timeframe), bar, effects)
            market = self.markets.told(reading, self.series)
            if not bar.is_history or reading.regime != "UNKNOWN":
                effects.publish(MARKET_REGIME, market)

    def _read(self, series: Series, bar: BarClosed, effects: Effects) -> RegimeReading:
        """Read a bar, keep what it leaves behind, and begin a training that it makes due."""
        # Not known after a start between a promotion and its first bar: then this one pair counts for the newer model.
        named_by = series.state.model_id if series.last is None else series.last.model_id
        before = series.state.regime
        reading, transition, drift = series.on_bar(bar)
        if transition is not None:
            effects.publish(REGIME_TRANSITION, transition)
            if transition.after == "UNKNOWN" and series.reader.is_stale(series.state.last_ms):
                text = f"The model of {series.key} is more than {LIFE_BARS} bars old: its regime is UNKNOWN until another one is promoted."
                self.host.alert_in(effects, f"model_stale_{series.key}".replace(".", "_"), "warning", text)
        if drift is not None:
            effects.publish(MODEL_DRIFTED, drift)
            self.host.log.warning("model.drift", series=series.key, expected=drift.expected, seen=drift.seen)
        if pair := counted(series.key, before, named_by, reading):
            effects.add(pair)
        self.registry.keep_bar(effects, series)
        self.trainings.after_bar(series, bar.is_history, effects)
        return reading

    async def on_promoted(self, promoted: ModelPromoted, effects: Effects) -> None:
        """Read with this model from the next bar on, unless our key does not vouch for it: then the one before stays."""
        series = self._of(promoted.venue, promoted.symbol, promoted.timeframe)
        try:
            manifest = trusted_manifest(promoted.manifest, promoted.model_id, self.host.settings.signing_key)
        except BadMessage as error:
            self.host.alert_in(effects, _refused(series.key), "critical", f"{error} The model before it stays.")
            # That is the governor's word all the same.
            self.trainings.on_verdict(promoted.model_id, "champion", effects)
            self._book(effects)
            return
        npz = await self._npz(promoted.model_id)
        model = load_model(npz, promoted.model_id)
        if promoted.model_id not in self.registry.known:
            self.registry.keep_model(effects, KnownModel(promoted.model_id, series.key, "champion", manifest), npz)
        series.use(model, promoted.model_id, to_ms(promoted.promoted_at), manifest.scores)
        self.registry.keep_state(effects, series)
        self.trainings.on_verdict(promoted.model_id, "champion", effects)
        self._book(effects)
        self.host.log.info("model.promoted", series=series.key, model=promoted.model_id[:12])

    async def on_demoted(self, demoted: ModelDemoted, effects: Effects) -> None:
        """Read UNKNOWN from the next bar on, if this model was in use."""
        series = self._of(demoted.venue, demoted.symbol, demoted.timeframe)
        if series.drop(demoted.model_id):
            self.registry.keep_state(effects, series)
        self.trainings.on_verdict(demoted.model_id, "demoted", effects)
        self._book(effects)

    async def on_stage(self, change: StageChanged, effects: Effects) -> None:
        """A refusal ends the waiting here, as does a word on what was judged before; a promotion where it is applied."""
        is_verdict = change.after != "candidate"  # that the holdout was opened is none
        if change.kind == "model" and is_verdict and (change.after != "champion" or change.before == change.after):
            self.trainings.on_verdict(change.subject_id, change.after, effects)
        self._book(effects)

    async def on_evidence_ordered(self, job: EvidenceOrdered, effects: Effects) -> None:
        """Judge the model on the span that the governor chose."""
        if job.worker == "ml_service":
            series = self._of(job.venue, job.symbol, job.timeframe)
            effects.publish(EVIDENCE_GIVEN, await self._evidence.answer(job, series))
        self._book(effects)

    async def model(self, model_id: str) -> RegimeModel:
        """A model from the registry or the artifacts, checked. Raises BadMessage when it is in neither, not sound, or
        not signed where a key is set.
        """
        if refusal := self.registry.distrust(model_id):
            raise BadMessage(refusal)
        return await self.parameters(model_id)

    async def parameters(self, model_id: str) -> RegimeModel:
        """The same for who only looks: a model may be looked at, whoever signed it."""
        return load_model(await self._npz(model_id), model_id)

    async def _npz(self, model_id: str) -> bytes:
        npz = await self.registry.npz(model_id) or await self.host.bus.get_artifact(model_id)
        if npz is None:
            raise BadMessage(f"The model {model_id} is neither in the registry nor among the artifacts.")
        return npz

    def _of(self, venue: str, symbol: str, timeframe: str) -> Series:
        key = f"{venue}.{symbol}.{timeframe}"
        if key not in self.series:
            timeframe_ms(timeframe)  # raises BadMessage on one that nobody knows
            self.series[key] = Series(SeriesState(venue=venue, symbol=symbol, timeframe=timeframe))
        return self.series[key]

    def _book(self, effects: Effects) -> None:
        """Say, after the commit, that the message being handled was taken in."""
        if effects.cause is not None:
            message_id = effects.cause.id
            effects.afterwards(lambda: self.host.progress.booked(message_id))


def _refused(series: str) -> str:
    """The name of an alert, in which there are no dots."""
    return f"model_refused_{series}".replace(".", "_")
