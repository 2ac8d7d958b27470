"""How the house is: state, counts, each service's health and lag. Made from what is true now, without a query."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from services.ops_api.now import Now, series_of
from services.ops_api.settings import OpsSettings
from shared.contracts.errors import BadMessage
from shared.contracts.market import BarClosed
from shared.contracts.operations import Health
from shared.contracts.regime import MarketRegime, RegimeReading
from shared.contracts.risk import TradingState
from shared.contracts.subjects import SERVICES
from shared.contracts.times import timeframe_ms, to_ms
from shared.contracts.wire import open_envelope, unpack
from shared.runtime.clock import Clock

SILENT_AFTER_S = 3.5  # health is said each second
STALE_AFTER_BARS = 3  # a reading comes within a bar; what was read of an older market is not what it does now
REGIMES = ("BULL", "BEAR", "CHOP")
COUNTS = (
    "bars_closed",
    "gaps",
    "models_trained",
    "models_promoted",
    "models_refused",
    "presets_proposed",
    "presets_promoted",
    "presets_refused",
    "readings_compared",  # the engine's with ml_service's, read by the same model
    "mismatches",
    "decisions",
    "outcomes",
    "signals",
    "orders",
    "orders_rejected",
    "fills",
    "trades_closed",
    "halts",
    "rails",
    "alerts",
    "parked",
)


class ServiceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One service, by its own word; `silent` when it has said nothing for a while, `unheard` since we listen."""

    service: str
    health: Literal["ready", "waiting", "silent", "unheard"]
    waiting_for: tuple[str, ...] = ()
    holding: str = ""  # the work for which it holds its progress
    lag_bars: int | None = None  # behind the newest bar; None for one that handles no bars
    version: str = ""
    restarts: int = 0


class InstrumentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One series: its last price, how it is read, and by what."""

    symbol: str
    timeframe: str
    price: float
    bar_closed_at: datetime
    regime: str  # UNKNOWN without a model, and when the last reading is older than a few bars
    probability: float  # of that regime; NaN while it is unknown
    model_id: str
    note: str  # why it is unknown, and what that means here; "" when a model reads it


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """Everything at a glance. Counts are of what was heard since the data folder began, history left out."""

    venue: str
    market: str
    mode: str
    account: str
    venue_time: datetime
    state: TradingState
    state_reason: str
    state_until: datetime | None
    is_ready: bool  # every service that was heard of
    instruments: list[InstrumentStatus]
    markets: list[MarketRegime]  # how the basket was last read as one, a timeframe each; none without a basket
    services: list[ServiceStatus]
    regimes: dict[str, int]  # live bars by how they were read
    counts: dict[str, int]
    equity: str | None
    cash: str | None
    fees: str | None
    currency: str

    def flat(self) -> dict[str, object]:
        """The same with the counts on top, as `/status` answers."""
        plain = msgspec.structs.asdict(self)
        return {**plain.pop("counts"), **plain}


class Watch:
    """Hears health, which is not kept, and puts it beside what is true now."""

    def __init__(self, now: Now, settings: OpsSettings, clock: Clock) -> None:
        self._now, self._settings, self._clock = now, settings, clock
        self._health: dict[str, tuple[Health, float]] = {}
        self.undecodable = 0

    def on_health(self, _subject: str, payload: bytes) -> None:
        """A service's word on itself."""
        try:
            said = open_envelope(unpack(payload), Health)
        except BadMessage:
            self.undecodable += 1  # it is said again within a second
            return
        self._health[said.service] = said, self._clock.monotonic()

    def status(self) -> Status:
        """The house at this moment."""
        now, settings = self._now, self._settings
        services = [self._service(name) for name in SERVICES]
        portfolio, breaker = now.portfolio, now.breaker
        return Status(
            venue=settings.venue,
            market=settings.market_shown,
            mode=settings.mode,
            account=settings.account,
            venue_time=self._clock.now(),
            state=breaker.after if breaker else "active",
            state_reason=breaker.reason if breaker else "",
            state_until=breaker.until if breaker else None,
            is_ready=all(one.health == "ready" for one in services if one.health != "unheard"),
            instruments=[self._instrument(series) for series in sorted(now.bars)],
            markets=[now.markets[timeframe] for timeframe in sorted(now.markets)],
            services=services,
            regimes={name: now.counts[f"regime.{name}"] for name in REGIMES},
            counts={name: now.counts[name] for name in COUNTS},
            equity=str(portfolio.equity) if portfolio else None,
            cash=str(portfolio.cash) if portfolio else None,
            fees=str(portfolio.fees) if portfolio else None,
            currency=now.earnings.currency,
        )

    def _service(self, name: str) -> ServiceStatus:
        if name not in self._health:
            return ServiceStatus(service=name, health="unheard")
        health, heard_at = self._health[name]
        is_silent = self._clock.monotonic() - heard_at > SILENT_AFTER_S
        return ServiceStatus(
            service=name,
            health="silent" if is_silent else "ready" if health.ready else "waiting",
            waiting_for=health.waiting_for,
            holding=health.holding,
            lag_bars=self._lag(health.at),
            version=health.version,
            restarts=health.restarts,
        )

    def _lag(self, at: dict[str, int]) -> int | None:
        lags = [
            max(0, to_ms(bar.opened_at) - at[series]) // timeframe_ms(bar.timeframe)
            for series, bar in self._now.bars.items()
            if series in at
        ]
        return max(lags, default=None)

    def _instrument(self, series: str) -> InstrumentStatus:
        bar, reading, model = self._now.bars[series], self._now.readings.get(series), self._now.models.get(series)
        behind = self._unread_bars(bar, reading)
        if model is None:
            note = "No model yet: default presets trade, regime strategies stay flat."
        elif behind > STALE_AFTER_BARS:
            note = f"The last {behind} bars were not read: ml_service is behind or away. The engine reads on by itself."
        else:
            note = ""
        odds: dict[str, float] = {}
        if reading is not None and behind <= STALE_AFTER_BARS:
            odds = {"BULL": reading.bull, "BEAR": reading.bear, "CHOP": reading.chop}
        regime = reading.regime if reading is not None and odds else "UNKNOWN"
        return InstrumentStatus(
            symbol=bar.symbol,
            timeframe=bar.timeframe,
            price=bar.close,
            bar_closed_at=bar.closed_at,
            regime=regime,
            probability=odds.get(regime, float("nan")),
            model_id=model.model_id if model else "",
            note=note,
        )

    def _unread_bars(self, bar: BarClosed, reading: RegimeReading | None) -> int:
        """How many bars ml_service has not read, by its readings or by its own word: in a storm readings reach us late."""
        if reading is None:
            return 0  # none was ever made: that is for the model's note to tell
        said = self._health.get("ml_service")
        reached_ms = said[0].at.get(series_of(bar), -1) if said else -1
        read_ms = max(to_ms(reading.opened_at), reached_ms)
        return max(0, to_ms(bar.opened_at) - read_ms) // timeframe_ms(bar.timeframe)
