"""The suite's routes. Reading is open; proposing is for trainers."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

from services.backtest_suite.candidates import candidates_in
from services.backtest_suite.settings import BacktestSettings
from shared.contracts.errors import BadMessage
from shared.contracts.subjects import PRESET_CANDIDATE
from shared.runtime.listening import Effects
from shared.runtime.service import Host
from shared.runtime.web import allowed


class Proposed(BaseModel):
    proposed: list[str]  # preset ids, for the governor to judge


def routes(host: Host[BacktestSettings]) -> APIRouter:
    """What people and programs ask of the suite."""
    router = APIRouter()

    @router.post("/candidates", dependencies=[allowed("trainer")])
    async def candidates(request: Request) -> Proposed:
        """Propose what `trimtab backtest presets` found. The same again changes nothing."""
        found = candidates_in(await request.body())
        for one in found:
            if one.venue != host.settings.venue:
                raise BadMessage(f"Expected candidates for the venue {host.settings.venue}, was {one.venue}.")

        async def work(effects: Effects) -> None:
            for one in found:
                effects.publish(PRESET_CANDIDATE, one)

        await host.act(work)
        return Proposed(proposed=[one.preset_id for one in found])

    return router
