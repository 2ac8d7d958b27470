"""One instrument and timeframe: what is read of each bar, and when a training is due. Pure."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import msgspec

from services.ml_service.drift import Drift, DriftTest
from services.ml_service.schedule import newest_tick
from services.ml_service.settings import MlSettings
from services.ml_service.transitions import surprise_bits
from shared.contracts.governance import ModelDrifted
from shared.contracts.market import BarClosed
from shared.contracts.regime import RegimeName, RegimeReading, RegimeTransition
from shared.contracts.times import from_ms, timeframe_ms, to_ms
from shared.regimes.context import CONTEXT_SCHEMA
from shared.regimes.features import Candle
from shared.regimes.hmm import FilterState, RegimeModel
from shared.regimes.reader import BARS_TO_RESUME, Reading, RegimeReader

Training = Literal["market", "synthetic"]


class SeriesState(msgspec.Struct, kw_only=True):
    """What a restart must know, besides the last closes and the models."""

    venue: str
    symbol: str
    timeframe: str
    bars: int = 0  # seen, ever
    last_ms: int = -1  # opened-at of the last bar
    trained_ms: int = -1  # opened-at of the last bar at the last training
    is_bootstrapped: bool = False  # a model of made-up bars was made
    pending: str = ""  # the model on which the governor has not spoken yet
    model_id: str = ""  # the one in use
    promoted_ms: int | None = None  # and when it was promoted
    posterior: tuple[float, ...] = ()
    log_likelihood: float = math.nan
    regime: RegimeName = "UNKNOWN"
    drift: DriftTest = msgspec.field(default_factory=DriftTest)  # of the model in use


class Heard(NamedTuple):
    """What one bar says."""

    reading: RegimeReading
    transition: RegimeTransition | None  # if the regime is another than a bar ago
    drift: ModelDrifted | None  # if the model no longer sees the market as it promised


class Series:
    """Closed bars in, readings out; says when to train."""

    def __init__(
        self, state: SeriesState, bars: Iterable[tuple[int, Candle]] = (), model: RegimeModel | None = None
    ) -> None:
        kept = list(bars)
        self.state = state
        self.bar_ms = timeframe_ms(state.timeframe)
        self.bars = deque(kept, maxlen=BARS_TO_RESUME)
        self.reader = RegimeReader.resume(
            self.bar_ms,
            kept,
            model,
            state.model_id,
            FilterState(state.posterior, state.log_likelihood),
            state.promoted_ms,
        )
        self.last: Reading | None = None  # of this process's life
        self.is_training = False

    @property
    def key(self) -> str:
        """`sim.BTC-USDT.1m`"""
        return f"{self.state.venue}.{self.state.symbol}.{self.state.timeframe}"

    def on_bar(self, bar: BarClosed) -> Heard:
        """What this bar says."""
        state, opened_ms = self.state, to_ms(bar.opened_at)
        reading = self.reader.on_bar(opened_ms, bar)
        before, self.last = state.regime, reading
        self.bars.append((opened_ms, Candle(bar.open, bar.high, bar.low, bar.close, bar.volume)))
        state.bars += 1
        state.last_ms = opened_ms
        state.posterior, state.log_likelihood = self.reader.filter
        state.regime = reading.regime
        drift = state.drift.on_bar(reading.log_likelihood)
        return Heard(
            self._message(bar, reading),
            self._transition(bar, before, reading.regime),
            None if drift is None else self._drifted(bar, drift),
        )

    def use(self, model: RegimeModel, model_id: str, promoted_ms: int, scores: Mapping[str, float]) -> None:
        """Read with this model from the next bar on, and hold it to what it promised on its held-out bars."""
        self.reader.use(model, model_id, promoted_ms)
        self.state.promoted_ms = promoted_ms
        self._remember_model()
        self.state.drift = DriftTest(
            scores.get("log_likelihood", math.nan), scores.get("log_likelihood_deviation", math.nan)
        )

    def drop(self, model_id: str) -> bool:
        """Read UNKNOWN from the next bar on, if this is the model in use."""
        if self.state.model_id != model_id:
            return False
        self.reader.drop()
        self._remember_model()
        self.state.drift = DriftTest()
        self.state.trained_ms = -1  # the next one is due at once
        return True

    def due(self, settings: MlSettings) -> Training | None:
        """Which training is due after the last bar, by the market's time: none, of its bars, or of made-up ones."""
        state = self.state
        if self.is_training or state.pending or state.bars == 0:
            return None
        if state.trained_ms >= 0 and settings.retrain_cron:
            return "market" if self._tick_came(settings.retrain_cron) else None
        if state.trained_ms >= 0:
            bars_since = (state.last_ms - state.trained_ms) // self.bar_ms
            return "market" if bars_since >= settings.retrain_bars else None
        if state.bars >= settings.min_train_bars:
            return "market"
        if settings.synthetic_bootstrap and not state.is_bootstrapped:
            return "synthetic"
        return None

    def _tick_came(self, expression: str) -> bool:
        """Whether the schedule named a moment since the close of the last bar that was trained on: one for all."""
        now, trained = (from_ms(ms + self.bar_ms) for ms in (self.state.last_ms, self.state.trained_ms))
        tick = newest_tick(expression, now)
        return tick is not None and tick > trained

    def _remember_model(self) -> None:
        self.state.model_id = self.reader.model_id
        self.state.posterior, self.state.log_likelihood = self.reader.filter

    def _message(self, bar: BarClosed, reading: Reading) -> RegimeReading:
        return RegimeReading(
            venue=bar.venue,
            symbol=bar.symbol,
            timeframe=bar.timeframe,
            opened_at=bar.opened_at,
            regime=reading.regime,
            bull=reading.bull,
            bear=reading.bear,
            chop=reading.chop,
            model_id=reading.model_id,
            context=reading.context,
            context_schema=CONTEXT_SCHEMA,
            reading_hash=reading.reading_hash,
            log_likelihood=reading.log_likelihood,
            is_history=bar.is_history,
        )

    def _drifted(self, bar: BarClosed, drift: Drift) -> ModelDrifted:
        return ModelDrifted(
            model_id=self.state.model_id,
            venue=bar.venue,
            symbol=bar.symbol,
            timeframe=bar.timeframe,
            expected=drift.expected,
            seen=drift.seen,
            bars=drift.bars,
            at=bar.closed_at,
        )

    def _transition(self, bar: BarClosed, before: RegimeName, after: RegimeName) -> RegimeTransition | None:
        if before == after:
            return None
        probability = math.nan if before == "UNKNOWN" else self.reader.probability_of(after)
        return RegimeTransition(
            venue=bar.venue,
            symbol=bar.symbol,
            timeframe=bar.timeframe,
            opened_at=bar.opened_at,
            before=before,
            after=after,
            model_probability=probability,
            surprise_bits=surprise_bits(probability),
            model_id=self.reader.model_id,
        )
