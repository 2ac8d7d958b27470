"""The ingester as a service: which symbols, followed how, kept where."""

from __future__ import annotations

import msgspec

from services.ingester.archive import Archive
from services.ingester.book import TABLES
from services.ingester.follow import Follower
from services.ingester.settings import IngesterSettings
from services.ingester.symbols import Universe
from shared.contracts.market import UniverseUpdated
from shared.contracts.subjects import UNIVERSE_UPDATED
from shared.runtime.listening import Effects
from shared.runtime.service import Host, Service


async def serve(host: Host[IngesterSettings]) -> None:
    """Candles in; bars, gaps and parts out."""
    universe = host.settings.universe
    host.log.info("universe", symbols=universe.symbols, source=universe.source)
    await _tell_universe(host, universe)
    archive = Archive(host, host.settings.data_dir / "bars")
    follower = Follower(host, archive)
    host.health.is_missing("venue")
    host.spawn(follower.run(universe.symbols), "follow")
    host.spawn(archive.run(), "archive")
    if host.web is not None:
        from services.ingester.routes import routes  # FastAPI only where it serves

        for prefix in ("", "/api/v1"):
            host.web.include_router(routes(host, follower, archive), prefix=prefix)


SERVICE = Service("ingester", IngesterSettings, serve, TABLES)


async def _tell_universe(host: Host[IngesterSettings], universe: Universe) -> None:
    """Say what is followed, when that is another choice than the last one."""
    chosen = msgspec.json.encode([host.settings.venue, *universe.symbols, universe.source])
    if await host.store.fact("universe") == chosen:
        return

    async def tell(effects: Effects) -> None:
        effects.keep_fact("universe", chosen)
        effects.publish(
            UNIVERSE_UPDATED,
            UniverseUpdated(
                venue=host.settings.venue, symbols=universe.symbols, source=universe.source, at=host.clock.now()
            ),
        )

    await host.act(tell)
