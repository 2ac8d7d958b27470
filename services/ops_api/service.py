"""The shell: hear everything, fold it, and serve it."""

from __future__ import annotations

from services.ops_api.access import Access
from services.ops_api.backtests import Backtests, backtest_routes
from services.ops_api.commands import Commands
from services.ops_api.comparison import Comparison
from services.ops_api.expectation import Expectations
from services.ops_api.live import Pulse
from services.ops_api.now import Now
from services.ops_api.readmodels import ReadModels
from services.ops_api.regime_routes import regime_routes
from services.ops_api.routes import api_routes, page_routes
from services.ops_api.settings import OpsSettings
from services.ops_api.status import Watch
from services.ops_api.tables import TABLES
from shared.contracts.market import BarClosed
from shared.contracts.regime import RegimeReading
from shared.contracts.subjects import BAR_CLOSED, HEALTH, REGIME_READING
from shared.runtime.listening import Effects
from shared.runtime.service import Host, Service

LINGER_S = 0.2  # a page is read by people: whatever came together is one transaction


async def serve(host: Host[OpsSettings]) -> None:
    """Fold back what was kept, listen on, and open the doors."""
    settings = host.settings
    now = Now(settings.account, settings.timeframe)
    models = ReadModels(now, settings.bars_kept)
    await models.recover(host.store)
    watch = Watch(now, settings, host.clock)
    pulse = Pulse(lambda: watch.status().flat())
    commands = Commands(host)
    comparison = Comparison(host, models)
    await comparison.recover(host.store)
    models.stale, models.answered = pulse.stale, commands.answered

    if host.web is not None:
        access = Access(settings, host.store, host.clock)
        api = api_routes(host.store, now, watch, pulse, access, commands, settings, host.stopping)
        api.include_router(regime_routes(host.store, now, access, Expectations(host)))
        api.include_router(backtest_routes(Backtests(host), access))
        host.web.include_router(api)
        host.web.include_router(api, prefix="/api/v1")
        host.web.include_router(page_routes(access, settings))

    handlers = models.handlers()
    on_bar, on_reading = handlers[BAR_CLOSED], handlers[REGIME_READING]

    async def on_bar_reached(bar: BarClosed, effects: Effects) -> None:
        await on_bar(bar, effects)
        effects.afterwards(lambda: host.progress.reached(bar.venue, bar.symbol, bar.timeframe, bar.opened_at))

    async def on_reading_kept(reading: RegimeReading, effects: Effects) -> None:
        await on_reading(reading, effects)
        effects.afterwards(lambda: comparison.heard(reading))

    await host.bus.hear(HEALTH.wildcard, watch.on_health)
    await host.listen({**handlers, BAR_CLOSED: on_bar_reached, REGIME_READING: on_reading_kept}, lambda: LINGER_S)
    host.spawn(pulse.beat_for_ever(), "pulse")
    host.spawn(comparison.compare_for_ever(), "comparison")


SERVICE = Service("ops_api", OpsSettings, serve, TABLES)
