"""Who may open the doors: the token, the page's session after a one-time login, and by which name we were called."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute

from services.ops_api.settings import OpsSettings
from shared.contracts.times import to_ms
from shared.runtime.clock import Clock
from shared.runtime.store import Statement, Store
from shared.runtime.web import allowed

COOKIE = "trimtab_session"
SESSION_DAYS = 7
HEADERS = {
    # No inline script, nothing from elsewhere, nobody frames us.
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a login link is never told to anyone
    "Cache-Control": "no-cache",
}


class GuardedRoute(APIRoute):
    """A route that answers only to our own names, and whose answers carry `HEADERS`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            settings: OpsSettings = request.app.state.settings
            called = _host_name(request.headers.get("host", ""))
            if called not in settings.allowed_hosts and called != settings.host:
                raise HTTPException(421, f"This is not {called!r}. Add the name to allowed_hosts if it is meant.")
            response = await handle(request)
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return guarded


class Access:
    """Sessions of the page, and the two questions that routes ask."""

    def __init__(self, settings: OpsSettings, store: Store, clock: Clock) -> None:
        self._settings, self._store, self._clock = settings, store, clock

    async def log_in(self, secret: str, response: Response) -> None:
        """Open a session by the one-time link. 403 when it is wrong or was used before."""
        wanted = self._settings.login_secret.get_secret_value()
        if not wanted or not hmac.compare_digest(secret.encode(), wanted.encode()):
            raise HTTPException(
                403, "This login link is not (or no longer) valid: take the one that `up` printed last."
            )
        if await self._store.row("select 1 from used_logins where sha256 = ?", _hash(wanted)):
            raise HTTPException(403, "This login link was used before: `trimtab up` prints a new one at each start.")
        session = secrets.token_urlsafe(32)
        now_ms = to_ms(self._clock.wall())
        await self._store.commit(
            [
                Statement("insert into used_logins values (?)", (_hash(wanted),)),
                Statement("delete from sessions where ends_ms < ?", (now_ms,)),
                Statement("insert into sessions values (?, ?)", (_hash(session), now_ms + SESSION_DAYS * 86_400_000)),
            ]
        )
        response.set_cookie(COOKIE, session, max_age=SESSION_DAYS * 86_400, httponly=True, samesite="strict", path="/")

    async def has_session(self, request: Request) -> bool:
        """Whether this request comes from the page, logged in."""
        cookie = request.cookies.get(COOKIE, "")
        if not cookie:
            return False
        return (
            await self._store.row(
                "select 1 from sessions where sha256 = ? and ends_ms >= ?", _hash(cookie), to_ms(self._clock.wall())
            )
            is not None
        )

    async def reader(self, request: Request) -> None:
        """A dependency: whoever may read."""
        if not self._settings.reads_are_open and not await self.has_session(request):
            await _VIEWER(request)

    async def operator(self, request: Request) -> str:
        """A dependency: whoever may command. Returns who it is."""
        if not await self.has_session(request):
            await _OPERATOR(request)
            return "token"
        if self._settings.dry_run:
            raise HTTPException(403, "DRY_RUN is set: nothing is changed.")
        origin = request.headers.get("origin", "")
        if origin and _host_name(origin.partition("://")[2]) != _host_name(request.headers.get("host", "")):
            raise HTTPException(403, "Commands are taken from our own page only.")
        return "page"


_VIEWER = allowed("viewer").dependency
_OPERATOR = allowed("operator").dependency


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _host_name(host: str) -> str:
    """`127.0.0.1:8002` -> `127.0.0.1`, `[::1]:8002` -> `::1`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
