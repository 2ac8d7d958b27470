"""A service in a process of its own, from start to stop.

It stops on SIGTERM, on SIGINT, or at the end of stdin where the launcher asks for it. What fails ends the process; the
launcher starts it again, unless the error says that a person must act (exit code 78).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

import structlog

from shared.contracts.errors import NeedsOperator
from shared.runtime.clock import VenueClock
from shared.runtime.logs import set_up_logs
from shared.runtime.service import Host, Service
from shared.runtime.settings import Settings
from shared.runtime.store import Store
from shared.runtime.version import code_version

EXIT_NEEDS_OPERATOR = 78  # EX_CONFIG: starting again would not help


def run(service: Service[Any], settings: Settings) -> NoReturn:
    """Run a service in this process until it is told to stop, and end the process.

    Everything that counts is committed by then. A thread that still computes is not waited for: what it was asked is
    asked again at the next start.
    """
    code = _run(service, settings)
    sys.stdout.flush()
    os._exit(code)


def _run(service: Service[Any], settings: Settings) -> int:
    set_up_logs(service.name, settings.log_format, settings.log_level)
    log: Any = structlog.get_logger(service.name)
    try:
        import uvloop  # not on every system

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    try:
        runner.run(_live(service, settings))
    except NeedsOperator as error:
        log.error("needs_operator", error=str(error))
        return EXIT_NEEDS_OPERATOR
    except Exception:
        log.exception("service.failed")
        return 1
    return 0


async def _live(service: Service[Any], settings: Settings) -> None:
    from shared.bus.nats import connect_when_there  # nats-py only where a bus is wanted
    from shared.runtime.web import serve_web, web_application  # FastAPI only in a process that serves

    stop = asyncio.Event()
    _listen_for_stop(stop)
    path = settings.data_dir / f"{service.name}.sqlite"
    store = await Store.open(path, service.tables, service.synchronous)
    clock = VenueClock()
    bus = await connect_when_there(
        settings.nats_url, service.name, settings.nats_user, settings.nats_password.get_secret_value()
    )
    if not settings.nats_user:  # a server without users: nobody else makes the streams
        await bus.ensure_streams()
    host: Host[Any] = Host(service.name, settings, bus, store, clock)
    host.web = web_application(host)
    bus.on_reconnect(host.listener.wake)
    stopped = asyncio.ensure_future(stop.wait())
    failed = asyncio.ensure_future(host.failed())
    web = asyncio.ensure_future(serve_web(host, stop))
    try:
        start = asyncio.ensure_future(host.start(service.serve))
        await asyncio.wait({start, stopped, web, failed}, return_when=asyncio.FIRST_COMPLETED)
        if start.done():
            start.result()
            host.log.info("ready", version=code_version())
            await asyncio.wait({stopped, failed, web}, return_when=asyncio.FIRST_COMPLETED)
        else:
            start.cancel()
            await asyncio.gather(start, return_exceptions=True)
        for task in (failed, web):
            if task.done():
                task.result()
    finally:
        host.stopping.set()
        stop.set()
        failed.cancel()
        await asyncio.gather(web, return_exceptions=True)
        await host.stop()
        host.log.info("stopped")


def _listen_for_stop(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):
            loop.add_signal_handler(name, stop.set)
    if os.environ.get("TRIMTAB_STDIN_STOPS"):  # the launcher's pipe: its end means that the launcher is gone

        def on_stdin() -> None:
            if not os.read(sys.stdin.fileno(), 1024):
                loop.remove_reader(sys.stdin.fileno())
                stop.set()

        loop.add_reader(sys.stdin.fileno(), on_stdin)
