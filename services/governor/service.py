"""The shell: applicants and evidence in, promotions, refusals and the record out."""

from __future__ import annotations

from services.governor.enacting import enact
from services.governor.gate import profile
from services.governor.governor import Governor
from services.governor.memory import TABLES, keep_span, known_hash, recall
from services.governor.settings import GovernorSettings
from shared.contracts.governance import (
    ModelDrifted,
    ModelTrained,
    PresetCandidate,
)
from shared.contracts.jobs import EvidenceGiven
from shared.contracts.subjects import (
    EVIDENCE_GIVEN,
    MODEL_DRIFTED,
    MODEL_TRAINED,
    PRESET_CANDIDATE,
)
from shared.contracts.wire import Message, message_id
from shared.runtime.listening import Effects
from shared.runtime.service import Host, Service
from shared.trading.strategies import load_strategies


async def serve(host: Host[GovernorSettings]) -> None:
    """Candidate in, evidence ordered; evidence in, verdict out."""
    settings = host.settings
    governor = Governor(
        profile(settings.profile, settings.mode),
        load_strategies(settings.strategies_folder),
        settings.costs,
        manual_bars=settings.manual_bars,
        champions_per_sleeve=settings.champions_per_sleeve,
        is_live=settings.mode == "live",
        model_key=settings.signing_key,
    )
    await recall(host.store, governor)
    heard = await host.store.rows("select id from inbox order by stored_ms desc limit 256")
    host.progress.booked(*(row[0] for row in reversed(heard)))

    async def on_preset(said: PresetCandidate, effects: Effects) -> None:
        enact(host, governor.on_preset(said), effects)
        book(said, effects)

    async def on_model(said: ModelTrained, effects: Effects) -> None:
        enact(host, governor.on_model(said, await host.bus.get_artifact(said.model_id)), effects)
        book(said, effects)

    async def on_evidence(said: EvidenceGiven, effects: Effects) -> None:
        application = governor.awaiting(said.job_id)
        if application is not None and application.order is not None:
            known = await known_hash(host.store, application.order, said)
            enact(host, governor.on_evidence(said, known), effects)
            if said.span is not None:
                effects.add(keep_span(application.order, said.span))
        book(said, effects)

    async def on_drift(said: ModelDrifted, effects: Effects) -> None:
        enact(host, governor.on_drift(said), effects)
        book(said, effects)

    def book(said: Message, effects: Effects) -> None:
        effects.afterwards(lambda: host.progress.booked(message_id(said)))

    if host.web is not None:
        from services.governor.routes import routes  # FastAPI only where it serves

        for prefix in ("", "/api/v1"):
            host.web.include_router(routes(host, governor), prefix=prefix)
    await host.listen(
        {
            MODEL_TRAINED: on_model,
            PRESET_CANDIDATE: on_preset,
            MODEL_DRIFTED: on_drift,
            EVIDENCE_GIVEN: on_evidence,
        }
    )


SERVICE = Service("governor", GovernorSettings, serve, TABLES, synchronous="FULL")
