"""Asks this container's own service whether it is ready: `python -m shared.runtime.healthcheck`. Exit code 0 is yes.

Only the standard library: a slim image has no curl, and a check runs often.
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request
from pathlib import Path

PORTS = {  # as in settings.py, which would import pydantic for it; a test holds the two equal
    "ops_api": 8002,
    "engine": 8003,
    "ingester": 8013,
    "backtest_suite": 8014,
    "ml_service": 8015,
    "param_controller": 8016,
    "governor": 8017,
    "venue_sim": 8018,
    "notifier": 8019,
}


def service_of_this_container() -> str:
    """The last word of the first process's command line: `trimtab run SERVICE`."""
    for process in ("1", *sorted(entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit())):
        words = Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
        if "run" in words and (name := words[words.index("run") + 1]) in PORTS:
            return name
    return ""


def main() -> int:
    """0 when ready."""
    service = os.environ.get("TRIMTAB_SERVICE") or service_of_this_container()
    if service not in PORTS:
        return 1
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORTS[service]}/readyz", timeout=4) as answer:
            return 0 if answer.status == 200 else 1
    except (urllib.error.URLError, OSError):
        return 1


if __name__ == "__main__":
    sys.exit(main())
