"""What tests stand on: real market data where it is to be had, a real nats-server, and a market built in a line."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.bus.nats import NatsBus
from shared.bus.server import Server

# Python's readline, in the process that starts those who share the suite, tells them of a terminal of 80 columns. There is
# none, and what is shown would be cut to it.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that ask for more time than others come first: so cores that share the suite come to its end together."""
    usual, limits = float(config.getini("timeout")), dict[Path, float]()
    for item in items:
        if (mark := item.get_closest_marker("timeout")) and mark.args[0] > usual:
            limits[item.path] = max(limits.get(item.path, usual), mark.args[0])
    items.sort(key=lambda item: -limits.get(item.path, usual))


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real market data, `TRIMTAB_TEST_DATA`. Where it is set a missing file is a failure, not a skip."""
    folder = os.environ.get("TRIMTAB_TEST_DATA")
    if not folder:
        pytest.skip("TRIMTAB_TEST_DATA is not set")
    path = Path(folder)
    assert path.is_dir(), f"TRIMTAB_TEST_DATA must name a folder, was {path}"
    return path


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[Server]:
    """A real nats-server on a free port, in a temporary folder."""
    server = Server(tmp_path / "nats")
    await server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
async def nats_bus(nats_server: Server) -> AsyncIterator[NatsBus]:
    """A bus on it, with all streams made."""
    bus = await NatsBus.connect(nats_server.url, "test")
    await bus.ensure_streams()
    try:
        yield bus
    finally:
        await bus.close()


@pytest.fixture(autouse=True)
def no_store_is_left_open() -> Iterator[None]:
    """A store that a test leaves open keeps its thread, and the thread keeps the whole run from ending: say which test."""
    before = set(threading.enumerate())
    yield
    left = [one.name for one in threading.enumerate() if one not in before and "_connection_worker_thread" in one.name]
    assert not left, f"this test opened a store and did not close it: {', '.join(left)}"
