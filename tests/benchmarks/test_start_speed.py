"""From `trimtab up` to everybody ready, against the CPU time of the imports alone: a ratio in one run, recorded, never failing.

pytest tests/benchmarks/test_start_speed.py -s
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from services.launcher import ORDER, SOURCE
from tests.benchmarks.conftest import Rounds
from tests.services.launcher.test_launcher import free_port_base

GOAL = 1.5  # times the services' import CPU over the cores
# What `trimtab run NAME` imports until it serves.
IMPORTS = """
import importlib, sys, time
name = sys.argv[1]
import services.cli, shared.bus.nats, shared.runtime.web, uvicorn, uvloop
for module in (f"services.{name}.service", f"services.{name}.routes"):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
print(time.process_time())
"""


@pytest.mark.timeout(300)
def test_all_services_are_ready_soon_after_their_imports(tmp_path: Path, rounds: Rounds) -> None:
    imports: list[float] = []
    took: list[float] = []
    for at in range(rounds(3)):
        imports.append(sum(import_seconds(name) for name in ORDER))
        took.append(ready_seconds(tmp_path / f"data-{at}"))
    cores = os.cpu_count() or 1
    least = median(imports) / cores
    ratio = median(ready / (spent / cores) for ready, spent in zip(took, imports, strict=True))
    print(
        f"\nall {len(ORDER)} services ready {median(took):.1f} s after `up` = {ratio:.2f} times their import CPU "
        f"({median(imports):.1f} s) over {cores} cores, {least:.1f} s (goal {GOAL}); load {os.getloadavg()[0]:.1f}"
    )


def import_seconds(service: str) -> float:
    """CPU seconds of a process that imports what this service imports, the interpreter's own start included."""
    told = subprocess.run([sys.executable, "-c", IMPORTS, service], cwd=SOURCE, capture_output=True, check=True)
    return float(told.stdout)


def ready_seconds(data: Path) -> float:
    """What `up` prints of a stack on an empty data folder."""
    command = [sys.executable, "-m", "services.cli", "up", "--data-dir", data, "--port-base", str(free_port_base())]
    with subprocess.Popen(command, cwd=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as up:
        assert up.stdout is not None
        told: list[str] = []
        try:
            for line in up.stdout:
                told.append(line)
                found = re.search(r"services are ready after ([0-9.]+) s", line)
                if found:
                    return float(found[1])
        finally:
            up.send_signal(signal.SIGINT)
    raise AssertionError(f"`up` ended with {up.returncode} before all services were ready: {''.join(told)}")
