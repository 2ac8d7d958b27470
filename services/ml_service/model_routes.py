"""What ml_service answers about its models: which ones there are, where each comes from, and of what it consists."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, HTTPException, Path

from services.ml_service.ml_service import MlService
from services.ml_service.registry import KnownModel
from shared.artifacts.models import FLOATS
from shared.contracts.errors import BadMessage

Beginning = Annotated[str, Path(pattern=r"^[0-9a-f]{6,64}$")]


def model_routes(service: MlService) -> APIRouter:
    """The router of `/model` and `/models`."""
    router = APIRouter()

    @router.get("/model")
    async def model() -> dict[str, Any]:
        """The models in use, by series."""
        active = {key: one.state.model_id for key, one in service.series.items() if one.state.model_id}
        first = next(iter(active.values()), None)
        return {
            "active_version": first,
            "active": active,
            "registry_size": len(service.registry.known),
            "metrics": service.registry.known[first].manifest.scores if first else {},
        }

    @router.get("/models")
    async def models() -> list[dict[str, Any]]:
        """The manifest of each, newest first, with the governor's word on it."""
        return [shown(known) for known in reversed(service.registry.known.values())]

    @router.get("/models/{version_id}")
    async def version(version_id: Beginning) -> dict[str, Any]:
        """One version, by the beginning of its id: its manifest and its parameters."""
        found = [known for known in service.registry.known.values() if known.model_id.startswith(version_id)]
        if not found:
            raise HTTPException(404, f"There is no model {version_id} here: `GET /models` names them.")
        if len(found) > 1:
            names = ", ".join(known.model_id[:16] for known in found)
            raise BadMessage(f"Say more of the id than {version_id}: there are {names}.")
        parameters = await service.parameters(found[0].model_id)
        return {**shown(found[0]), "parameters": {name: getattr(parameters, name) for name in FLOATS}}

    def shown(known: KnownModel) -> dict[str, Any]:
        refusal = service.registry.distrust(known.model_id)
        return {
            **msgspec.to_builtins(known.manifest),
            "series": known.series,
            "stage": known.stage,
            "active": any(one.state.model_id == known.model_id for one in service.series.values()),
            "is_signed": bool(known.manifest.signature),
            "refusal": refusal or None,
        }

    return router
