"""Reads the regime of every closed bar, trains models when they are due, and gives evidence on them when asked.

Which model is used is the governor's to say; the reading of a bar uses the model that was promoted before it.
"""

from __future__ import annotations

from services.ml_service import baskets, claims, transitions
from services.ml_service import registry as records
from services.ml_service.bars import Ingester
from services.ml_service.ml_service import MlService
from services.ml_service.registry import Registry
from services.ml_service.settings import MlSettings
from shared.contracts.subjects import (
    BAR_CLOSED,
    EVIDENCE_ORDERED,
    GAP_FOUND,
    MODEL_DEMOTED,
    MODEL_PROMOTED,
    STAGE_CHANGED,
)
from shared.runtime.service import Host, Service


async def serve(host: Host[MlSettings]) -> None:
    """Bars in, readings out; models when they are due; evidence when it is ordered."""
    registry = Registry(host.store, host.settings.signing_key)
    ingester = Ingester(host.settings.address_of("ingester"), host.settings.basket)
    host.closers.append(ingester.close)
    service = MlService(host, registry, await registry.recover(), ingester)
    await service.begin()
    if host.web is not None:
        from services.ml_service.model_routes import model_routes  # FastAPI only in a process that serves
        from services.ml_service.regime_routes import regime_routes
        from services.ml_service.routes import routes
        from services.ml_service.train_routes import train_routes

        for prefix in ("", "/api/v1"):
            for router in (routes(service), train_routes(service), model_routes(service), regime_routes(service)):
                host.web.include_router(router, prefix=prefix)
    await host.listen(
        {
            BAR_CLOSED: service.on_bar,
            GAP_FOUND: service.on_gap,
            MODEL_PROMOTED: service.on_promoted,
            MODEL_DEMOTED: service.on_demoted,
            STAGE_CHANGED: service.on_stage,
            EVIDENCE_ORDERED: service.on_evidence_ordered,
        }
    )
    host.spawn(service.trainings.train_on_history(), "train on history")


TABLES = (*records.TABLES, *transitions.TABLES, *claims.TABLES, *baskets.TABLES)
SERVICE = Service("ml_service", MlSettings, serve, TABLES)
