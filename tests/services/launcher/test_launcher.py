"""A stack that starts, watches, restarts and stops its services, and leaves nothing behind."""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from services.launcher import DataFolder
from shared.contracts.errors import NeedsOperator
from shared.runtime import healthcheck, settings

ROOT = Path(__file__).parents[3]


def free_port_base() -> int:
    """A base above which none of our ports is taken (each service adds at most 19), this process's own until it ends."""
    for base in range(21000, 60000, 40):
        claim = socket.socket()  # other tests run beside these, and nobody listens here yet
        try:
            claim.bind(("127.0.0.1", base + 39))
            for number in settings.PORTS.values():
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + number))
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        return base
    raise AssertionError("no free ports")


class Stack:
    def __init__(self, folder: Path, base: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.launcher.two_services", str(folder), str(base)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.lines = self.process.stdout
        self.said: list[dict[str, str]] = []
        self.pids: dict[str, int] = json.loads(self.until("test", "started"))

    def until(self, service: str, word: str) -> str:
        """The first line of this service with this word in it, said before or yet to come."""
        for text in self._texts(service):
            if word in text:
                return text
        errors = self.process.stderr.read() if self.process.stderr else ""
        raise AssertionError(f"{service} never said {word}: {errors}")

    def _texts(self, service: str) -> Iterator[str]:
        yield from (said["text"] for said in list(self.said) if said["service"] == service)
        for line in self.lines:
            self.said.append(json.loads(line))
            if self.said[-1]["service"] == service:
                yield self.said[-1]["text"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Stack]]:
    stacks: list[Stack] = []

    def begin() -> Stack:
        stacks.append(Stack(tmp_path / "data", free_port_base()))
        return stacks[-1]

    yield begin
    for stack in stacks:
        if stack.process.poll() is None:
            stack.process.terminate()
        stack.process.wait(10)
        for pipe in (stack.process.stdout, stack.process.stderr):
            if pipe:
                pipe.close()


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until_gone(pids: dict[str, int], within_s: float) -> float:
    began = time.monotonic()
    while alive := [name for name, pid in pids.items() if name != "started" and is_alive(pid)]:
        assert time.monotonic() - began < within_s, f"{alive} still run after {within_s} s"
        time.sleep(0.02)  # another process's end, with no handle on it
    return time.monotonic() - began


def test_ctrl_c_stops_everything_within_five_seconds(start: Callable[[], Stack]) -> None:
    stack = start()
    stack.until("venue_sim", "ready")
    stack.until("param_controller", "ready")

    began = time.monotonic()
    os.killpg(stack.process.pid, signal.SIGINT)  # as a terminal does: the whole foreground group
    code = stack.process.wait(10)

    assert (code, time.monotonic() - began < 5.0) == (0, True)
    assert until_gone(stack.pids, 0.5) < 0.5


def test_a_launcher_that_is_killed_leaves_no_orphans(start: Callable[[], Stack]) -> None:
    stack = start()
    stack.until("venue_sim", "ready")

    stack.process.kill()
    stack.process.wait(5)

    until_gone(stack.pids, 10.0)


def test_a_service_that_is_killed_is_started_again(start: Callable[[], Stack]) -> None:
    stack = start()
    stack.until("venue_sim", "ready")

    stack.said.clear()
    os.kill(stack.pids["venue_sim"], signal.SIGKILL)

    assert "starting it again" in stack.until("launcher", "venue_sim ended with -9")
    stack.until("venue_sim", "ready")


def test_a_data_folder_serves_one_stack_at_a_time(tmp_path: Path) -> None:
    first = DataFolder(tmp_path)

    with pytest.raises(NeedsOperator, match=r"is in use by trimtab up, process \d+. Stop that one, or pass another"):
        DataFolder(tmp_path)

    first.close()
    DataFolder(tmp_path).close()


def test_a_taken_port_is_named_with_the_service_that_wanted_it(tmp_path: Path) -> None:
    base = free_port_base()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base + settings.PORTS["venue_sim"]))
        taken.listen()
        told = subprocess.run(
            [sys.executable, "-m", "tests.services.launcher.two_services", str(tmp_path), str(base)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert told.returncode == 78
    assert f"Port {base + 18}, where venue_sim should listen, is taken" in told.stderr


def test_a_wrong_setting_is_named_with_the_nearest_right_one_and_the_service_is_not_started_again() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "services.cli", "run", "venue_sim"],
        cwd=ROOT,
        env={**os.environ, "TRIMTAB_NATS_ULR": "nats://127.0.0.1:1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert told.returncode == 78
    assert "The variable TRIMTAB_NATS_ULR means nothing here. Did you mean TRIMTAB_NATS_URL?" in told.stderr


def test_the_health_check_asks_the_ports_that_the_services_listen_on() -> None:
    assert {name: settings.PORT_BASE + number for name, number in settings.PORTS.items()} == healthcheck.PORTS
