"""The same service on a real nats-server: bars in, readings out, and a restart that forgets nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.ml_service.service import TABLES, serve
from services.ml_service.settings import MlSettings
from shared.bus.bus import Delivery, Outgoing
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.regime import RegimeReading
from shared.contracts.subjects import BAR_CLOSED, REGIME, REGIME_READING
from shared.contracts.wire import open_envelope, pack, unpack, wrap
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store

from .conftest import market


async def start(folder: Path, url: str) -> Host[MlSettings]:
    settings = MlSettings(data_dir=folder, synthetic_bootstrap=False)
    store = await Store.open(folder / "ml_service.sqlite", TABLES, "NORMAL")
    host: Host[MlSettings] = Host("ml_service", settings, await NatsBus.connect(url, "ml_service"), store, VenueClock())
    await host.start(serve)
    return host


async def test_every_bar_is_read_once_across_a_restart(nats_server: Server, nats_bus: NatsBus, tmp_path: Path) -> None:
    bars, readings, came = market(300), list[RegimeReading](), asyncio.Event()

    async def on_readings(batch: list[Delivery]) -> None:
        readings.extend(open_envelope(unpack(delivery.payload), RegimeReading) for delivery in batch)
        came.set()

    async def until(count: int) -> None:
        while len(readings) < count:
            came.clear()
            await came.wait()

    await nats_bus.consume("reader", REGIME, [REGIME_READING.wildcard], on_readings, lambda: None)
    async with asyncio.timeout(20.0):
        for part in (bars[:150], bars[140:]):  # ten bars are told twice
            host = await start(tmp_path, nats_server.url)
            envelopes = [wrap(bar, "test") for bar in part]
            batch = [Outgoing(BAR_CLOSED.of(bar), pack(one), one.id) for bar, one in zip(part, envelopes, strict=True)]
            await nats_bus.publish(batch)
            await until(bars.index(part[-1]) + 1)
            await host.stop()
    assert [reading.opened_at for reading in readings] == [bar.opened_at for bar in bars]
