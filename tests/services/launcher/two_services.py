"""A stack of two real services, to be run as a process of its own: `python -m ... DATA_DIR PORT_BASE`."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from services.launcher import Launcher
from shared.contracts.errors import NeedsOperator

SERVICES = ("venue_sim", "param_controller")


def say(service: str, text: str) -> None:
    print(json.dumps({"service": service, "text": text}), flush=True)


async def main() -> int:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    launcher = Launcher(Path(sys.argv[1]), SERVICES, {"TRIMTAB_VENUE_SIM_HISTORY_BARS": "10"}, int(sys.argv[2]), say)
    try:
        await launcher.start()
        say("test", json.dumps({**launcher.processes(), "started": True}))
        await asyncio.wait({asyncio.ensure_future(stop.wait()), launcher.failed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await launcher.stop()
    launcher.failed.cancel()
    return 0


try:
    sys.exit(asyncio.run(main()))
except NeedsOperator as error:
    print(error, file=sys.stderr)
    sys.exit(78)
