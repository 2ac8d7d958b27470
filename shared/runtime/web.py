"""The routes that every service has, and who may use the others. FastAPI and uvicorn; imported only where served."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import Generator, Iterator
from typing import Any, Literal

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import SecretStr

from shared.contracts.errors import BadMessage, NeedsOperator, TryAgain
from shared.runtime.service import Host
from shared.runtime.settings import Settings
from shared.runtime.version import code_version

Role = Literal["viewer", "operator", "trainer", "admin"]


def web_application(host: Host[Any]) -> FastAPI:
    """An application with /health, /readyz, /metrics and /version; the service adds its own routes."""
    app = FastAPI(title=f"trimtab {host.name}", version=code_version(), docs_url=None, redoc_url=None)
    app.state.settings = host.settings
    registry = CollectorRegistry()
    registry.register(_HostFigures(host))

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return {"service": host.name, "ok": True, "connected": host.bus.is_connected, "venue_time": host.clock.now()}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        waiting = host.waiting_for()
        return JSONResponse({"ready": not waiting, "waiting_for": waiting}, status_code=503 if waiting else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/version")
    async def version() -> dict[str, str]:
        return {"service": host.name, "version": code_version()}

    @app.exception_handler(BadMessage)
    async def bad_message(_request: Request, error: BadMessage) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=422)

    @app.exception_handler(NeedsOperator)
    async def needs_operator(_request: Request, error: NeedsOperator) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=409)

    @app.exception_handler(TryAgain)
    async def try_again(_request: Request, error: TryAgain) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "1"})

    return app


def allowed(role: Role) -> Any:
    """A dependency for routes that change something: the bearer token must be one of this role.

    The house's own (`api_token`) has every role, `trainer_token` and the like have one. 401 without, 403 with another.
    """

    async def check(request: Request) -> str:
        settings: Settings = request.app.state.settings
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise HTTPException(401, f"This route is for the {role}: send `Authorization: Bearer TOKEN`.")
        if role not in roles_of(settings, token):
            raise HTTPException(403, f"This token may not act as {role}.")
        if settings.dry_run and role != "viewer":
            raise HTTPException(403, "DRY_RUN is set: nothing is changed.")
        return role

    return Depends(check)


def roles_of(settings: Settings, token: str) -> frozenset[Role]:
    """What who holds this token may do; nothing with one that nobody gave out."""
    given: dict[Role, SecretStr] = {
        "admin": settings.api_token,
        "trainer": settings.trainer_token,
        "operator": settings.operator_token,
        "viewer": settings.viewer_token,
    }
    for role, secret in given.items():
        wanted = secret.get_secret_value()
        if wanted and hmac.compare_digest(token.encode(), wanted.encode()):
            return frozenset(given) if role == "admin" else frozenset((role, "viewer"))
    return frozenset()


class _HostFigures(Collector):
    """The figures that every service has, read when asked for."""

    def __init__(self, host: Host[Any]) -> None:
        self._host = host

    def collect(self) -> Iterator[Any]:
        host = self._host
        yield _gauge("trimtab_ready", "1 when the service can do its work", float(host.is_ready))
        yield _gauge("trimtab_outbox_waiting", "messages kept and not yet told", host.listener.waiting_to_be_told)
        yield _gauge("trimtab_venue_time_seconds", "venue time", host.clock.now().timestamp())
        family = CounterMetricFamily("trimtab_messages", "messages by what became of them", labels=["outcome"])
        for outcome, count in sorted(host.listener.counters.items()):
            family.add_metric([outcome], count)
        yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


class _Server(uvicorn.Server):
    """uvicorn takes SIGINT and SIGTERM for itself while it serves; our service stops by its own word."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


async def serve_web(host: Host[Any], stop: asyncio.Event) -> None:
    """Serve the host's routes until `stop`. Raises NeedsOperator when the port is taken."""
    assert host.web is not None
    settings = host.settings
    config = uvicorn.Config(
        host.web,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
        ws="websockets-sansio",
        ws_per_message_deflate=False,  # frames are short and stay on this machine
    )
    try:
        listening = _bind(settings)
    except OSError as error:
        raise NeedsOperator(
            f"{host.name} cannot listen on {settings.host}:{settings.port}: {error.strerror or error}. "
            f"Stop what uses the port, or pass another --port-base."
        ) from error
    host.log.info("listening", port=listening.getsockname()[1])
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve(sockets=[listening]))
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        stopping.cancel()
        await serving
        listening.close()


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # The protocol is named so that asyncio sees TCP and switches Nagle's delay off (44 ms an answer otherwise).
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError:
        listening.close()
        raise
    listening.setblocking(False)
    return listening
