"""Routes on a real socket, for tests that ask over HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI


@asynccontextmanager
async def listening(web: FastAPI | None, port: int = 0) -> AsyncIterator[str]:
    """These routes on a socket of 127.0.0.1, 0 for any port; at which address. Whoever asks at once waits in line."""
    assert web is not None
    with socket.create_server(("127.0.0.1", port)) as door:
        server = uvicorn.Server(uvicorn.Config(web, log_config=None, lifespan="off", timeout_graceful_shutdown=0))
        serving = asyncio.create_task(server.serve(sockets=[door]))
        try:
            yield f"http://127.0.0.1:{door.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving
