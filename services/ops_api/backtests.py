"""Backtests at this door: passed on to backtest_suite as they came, once it is known that they may."""

from __future__ import annotations

from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, Header, Path, Request, Response

from services.ops_api.access import Access, GuardedRoute
from services.ops_api.settings import OpsSettings
from shared.contracts.errors import TryAgain
from shared.runtime.service import Host

TIMEOUT_S = 40.0  # a run may be waited for during 30
RunId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Backtests:
    """backtest_suite, asked over HTTP."""

    def __init__(self, host: Host[OpsSettings]) -> None:
        settings = host.settings
        self._token = settings.api_token.get_secret_value()
        self._client = httpx.AsyncClient(base_url=settings.address_of("backtest_suite"), timeout=TIMEOUT_S)
        host.closers.append(self._client.aclose)

    async def read(self, path: str, query: str = "") -> Response:
        """What it answers. Raises TryAgain when it does not."""
        return await self._ask("GET", f"{path}?{query}" if query else path)

    async def change(self, path: str, body: bytes = b"", key: str = "") -> Response:
        """Have it change something, in the house's name: who asks was let in before."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        return await self._ask("POST", path, body, headers | ({"Idempotency-Key": key} if key else {}))

    async def _ask(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Response:
        try:
            answer = await self._client.request(method, path, content=body, headers=headers)
        except httpx.HTTPError as error:
            raise TryAgain(f"backtest_suite at {self._client.base_url} does not answer: {error!r}.") from error
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


def backtest_routes(backtests: Backtests, access: Access) -> APIRouter:
    """The routes of backtest_suite that people use."""
    readers = APIRouter(route_class=GuardedRoute, dependencies=[Depends(access.reader)])
    operators = APIRouter(route_class=GuardedRoute, dependencies=[Depends(access.operator)])

    @readers.get("/runs")
    async def runs(request: Request) -> Response:
        return await backtests.read("/runs", request.url.query)

    @readers.get("/runs/{run_id}")
    async def one(run_id: RunId, request: Request) -> Response:
        return await backtests.read(f"/runs/{run_id}", request.url.query)

    @readers.get("/runs/{run_id}/equity")
    async def equity(run_id: RunId) -> Response:
        return await backtests.read(f"/runs/{run_id}/equity")

    @operators.post("/backtest/run")
    async def run(request: Request, idempotency_key: Annotated[str, Header()] = "") -> Response:
        return await backtests.change("/backtest/run", await request.body(), idempotency_key)

    @operators.post("/runs/{run_id}/cancel")
    async def cancel(run_id: RunId) -> Response:
        return await backtests.change(f"/runs/{run_id}/cancel")

    both = APIRouter()
    both.include_router(readers)
    both.include_router(operators)
    return both
