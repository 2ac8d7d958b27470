"""All services on this machine: a real NATS beside a process for each service, watched, restarted, and stopped.

ops_api comes first, so that the page answers while the others still import; then the venue, then the rest. Children
live in sessions of their own, so that Ctrl-C reaches the launcher alone, which stops them in order. A launcher that is
killed takes its children with it: each holds a pipe whose end means stop, and on Linux the kernel tells it too.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import random
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from shared.bus.nats import NatsBus, connect_when_there
from shared.bus.server import LAUNCHER, Server, Users, die_with_parent
from shared.contracts.errors import NeedsOperator
from shared.runtime.logs import in_words
from shared.runtime.process import EXIT_NEEDS_OPERATOR
from shared.runtime.settings import PORTS

FIRST = "ops_api"
ORDER = (
    "ops_api",
    "venue_sim",
    "engine",
    "ingester",
    "ml_service",
    "param_controller",
    "governor",
    "backtest_suite",
    "notifier",
)
STOP_STAGES = (  # who orders first, then who decides, then who answers them
    ("engine", "ingester"),
    ("backtest_suite", "ml_service", "param_controller", "governor", "notifier"),
    ("venue_sim", "ops_api"),
)
LOCKSTEP = ("engine", "ml_service", "param_controller", "backtest_suite")
PATIENCE_S = 3.0  # between the first SIGTERM and SIGKILL
LEFT_FOR_LATER_S = 0.6  # of it, for each later stage
BACKOFF_S = (0.25, 10.0)
LONG_LIFE_S = 30.0  # after which the backoff begins anew
SOURCE = Path(__file__).resolve().parent.parent  # where `services` is found, installed or not
Say = Callable[[str, str], None]


@dataclass
class Child:
    """One service's process, and how often it was started."""

    name: str
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0
    backoff_s: float = BACKOFF_S[0]
    wants_operator: str = ""
    watcher: asyncio.Task[None] | None = field(default=None, repr=False)


class DataFolder:
    """The folder where everything is kept, locked: two servers on one store would both start, without a word."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock: IO[str] = (path / "lock").open("a+", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.seek(0)
            holder = self._lock.read().strip() or "another process"
            self._lock.close()
            raise NeedsOperator(
                f"The data folder {path} is in use by {holder}. Stop that one, or pass another --data-dir."
            ) from error
        self._lock.truncate(0)
        self._lock.write(f"trimtab up, process {os.getpid()}")
        self._lock.flush()

    def token(self) -> str:
        """The API token, drawn at the first start and readable by its owner only."""
        file = self.path / "api-token"
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_urlsafe(32), encoding="utf-8")
        return file.read_text(encoding="utf-8").strip()

    def remember(self, **facts: Any) -> None:
        """Tell the other verbs (`trimtab status`) where the stack answers."""
        (self.path / "running.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")

    def close(self) -> None:
        (self.path / "running.json").unlink(missing_ok=True)
        self._lock.close()


class Launcher:
    """The supervisor. `start`, then `until_stopped` or your own wait, then `stop`."""

    def __init__(
        self,
        data_dir: Path,
        services: tuple[str, ...],
        environment: dict[str, str],
        port_base: int,
        say: Say,
        nats_url: str = "",
    ) -> None:
        self.folder = DataFolder(data_dir)
        self.say = say
        self.port_base = port_base
        self.login = secrets.token_urlsafe(16)
        self.token = self.folder.token()
        self._nats_url = nats_url
        self._server: Server | None = None
        self._users: Users | None = None
        self._stopping = False
        self._kill_at_once = asyncio.Event()
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._base = environment
        self.children = {name: Child(name, {}) for name in ORDER if name in services}

    def processes(self) -> dict[str, int]:
        """Name -> process id, the nats-server among them when it is ours."""
        found = {name: child.process.pid for name, child in self.children.items() if child.process is not None}
        return found if self._server is None else {**found, "nats": self._server.pid}

    @property
    def page(self) -> str:
        """Where a person looks."""
        return f"http://127.0.0.1:{self.port_base + PORTS[FIRST]}"

    async def start(self) -> None:
        """NATS, then ops_api, then the others once it answers. Raises NeedsOperator when a port is taken."""
        self._check_ports()
        await self._start_nats()
        for child in self.children.values():
            child.environment = self._environment_of(child.name)
        if FIRST in self.children:
            await self._launch(self.children[FIRST])
            await self._until_it_listens(FIRST)
        for name, child in self.children.items():
            if name != FIRST:
                await self._launch(child)
        self.folder.remember(
            page=self.page, port_base=self.port_base, nats=self._nats_url, pid=os.getpid(), services=list(self.children)
        )

    def _check_ports(self) -> None:
        for name in self.children:
            port = self.port_base + PORTS[name]
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError as error:
                    raise NeedsOperator(
                        f"Port {port}, where {name} should listen, is taken. "
                        f"Stop what uses it, or pass another --port-base (now {self.port_base})."
                    ) from error

    async def _start_nats(self) -> None:
        if self._nats_url:
            self.say("launcher", f"NATS: the one at {self._nats_url}")
            bus = await connect_when_there(self._nats_url, LAUNCHER, timeout_s=10)
        else:
            folder = self.folder.path / "nats"
            self._users = Users.load_or_draw(folder / "users.json")
            self._server = Server(folder, self._users)
            await self._server.start()
            self._nats_url = self._server.url
            self.say("launcher", f"NATS: {self._server.binary.origin}'s, on {self._nats_url}")
            bus = await NatsBus.connect(self._nats_url, LAUNCHER, LAUNCHER, self._users.passwords[LAUNCHER])
        await bus.ensure_streams()
        await bus.close()

    def _environment_of(self, name: str) -> dict[str, str]:
        environment = {
            **os.environ,
            **self._base,
            "TRIMTAB_DATA_DIR": str(self.folder.path.resolve()),
            "TRIMTAB_PORT_BASE": str(self.port_base),
            "TRIMTAB_NATS_URL": self._nats_url,
            "TRIMTAB_API_TOKEN": self.token,
            "TRIMTAB_STDIN_STOPS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        if self._users is not None:
            environment |= {"TRIMTAB_NATS_USER": name, "TRIMTAB_NATS_PASSWORD": self._users.passwords[name]}
        if name == FIRST:
            environment["TRIMTAB_OPS_API_LOGIN_SECRET"] = self.login
        return environment

    async def _launch(self, child: Child) -> None:
        child.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cli",
            "run",
            child.name,
            env={**child.environment, "TRIMTAB_RESTARTS": str(child.restarts)},
            cwd=SOURCE,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )
        child.watcher = asyncio.create_task(self._watch(child), name=f"watch {child.name}")

    async def _watch(self, child: Child) -> None:
        """Pass its lines on; when it ends and should not have, start it again, later each time."""
        process = child.process
        assert process is not None and process.stdout is not None
        loop = asyncio.get_running_loop()
        born = loop.time()
        rest, last = b"", ""
        while chunk := await process.stdout.read(65536):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                last = line.decode(errors="replace")
                self.say(child.name, last)
        code = await process.wait()
        if self._stopping:
            return
        if code == EXIT_NEEDS_OPERATOR:
            child.wants_operator = f"{child.name} stopped and needs a person: {in_words(last)}"
            if not self.failed.done():
                self.failed.set_exception(NeedsOperator(child.wants_operator))
            return
        if loop.time() - born > LONG_LIFE_S:
            child.backoff_s = BACKOFF_S[0]
        pause = child.backoff_s * (1 + random.random() / 4)
        child.backoff_s = min(child.backoff_s * 2, BACKOFF_S[1])
        child.restarts += 1
        self.say(
            "launcher", f"{child.name} ended with {code}; starting it again in {pause:.1f} s (no. {child.restarts})"
        )
        await asyncio.sleep(pause)
        if not self._stopping:
            await self._launch(child)

    async def _until_it_listens(self, name: str) -> None:
        port = self.port_base + PORTS[name]
        while not self.failed.done():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return
        self.failed.result()

    def kill_at_once(self) -> None:
        """A second Ctrl-C: no more patience."""
        self._kill_at_once.set()

    async def stop(self) -> None:
        """SIGTERM in stages, patience in all, SIGKILL to the whole group; NATS last."""
        self._stopping = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE_S
        hurry = asyncio.ensure_future(self._kill_at_once.wait())
        for later, stage in zip(range(len(STOP_STAGES) - 1, -1, -1), STOP_STAGES, strict=True):
            alive = [c for name in stage if (c := self.children.get(name)) and _is_alive(c)]
            for child in alive:
                _signal(child, signal.SIGTERM)
            if alive:
                ends = asyncio.gather(*(child.process.wait() for child in alive if child.process))
                patience = max(0.0, deadline - later * LEFT_FOR_LATER_S - loop.time())
                await asyncio.wait({ends, hurry}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        for child in self.children.values():
            if _is_alive(child):
                self.say("launcher", f"{child.name} did not stop in {PATIENCE_S:.0f} s and was killed")
            _signal(child, signal.SIGKILL)  # the group: a training is a child's child
            if child.process is not None:
                await child.process.wait()
            if child.watcher is not None:
                await asyncio.wait({child.watcher}, timeout=1)
                child.watcher.cancel()
        if self._server is not None:
            await asyncio.to_thread(self._server.stop)
        self.folder.close()


def _is_alive(child: Child) -> bool:
    return child.process is not None and child.process.returncode is None


def _signal(child: Child, number: signal.Signals) -> None:
    if child.process is None:
        return
    try:
        os.killpg(child.process.pid, number)
    except ProcessLookupError:
        pass
