"""kill -9 in the middle of a training, on a real nats-server: it is gone on with, and it is done once."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import msgspec
import pytest

from services.ml_service.claims import TrainingJob
from shared.bus.bus import Delivery, Outgoing
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.governance import ModelTrained
from shared.contracts.market import BarClosed
from shared.contracts.subjects import GOV, MODEL_TRAINED, subject_of
from shared.contracts.times import to_ms
from shared.contracts.wire import Message, open_envelope, pack, unpack, wrap
from shared.runtime.settings import PORTS
from tests.services.launcher.test_launcher import free_port_base

from .conftest import TOKEN, House, market, refused

pytestmark = pytest.mark.timeout(110)

HISTORY = 1_200  # bars: 20:00 is the close of the last
KILLS = 2
ML_SERVICE = """
import sys
from services.ml_service.service import SERVICE
from shared.runtime.process import run
sys.exit(run(SERVICE, SERVICE.settings.load()))
"""


class Process:
    """ml_service as a process of its own."""

    def __init__(self, folder: Path, nats_url: str) -> None:
        self.database, self._log = folder / "ml_service.sqlite", folder / "ml_service.log"
        base = free_port_base()
        self.address = f"http://127.0.0.1:{base + PORTS['ml_service']}"
        kept = {
            key: value for key, value in os.environ.items() if key == "TRIMTAB_INGESTER_URL" or key[:7] != "TRIMTAB"
        }
        self._environment = {
            **kept,
            "TRIMTAB_DATA_DIR": str(folder),
            "TRIMTAB_NATS_URL": nats_url,
            "TRIMTAB_PORT_BASE": str(base),
            "TRIMTAB_API_TOKEN": TOKEN,
            "TRIMTAB_ML_SERVICE_MIN_TRAIN_BARS": "400",
            "TRIMTAB_ML_SERVICE_STARTS": "1",
            "TRIMTAB_ML_SERVICE_PATIENCE_S": "0.2",
            "RETRAIN_CRON": "0 */2 * * *",
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", ML_SERVICE, env=self._environment, stdout=out, stderr=out
            )

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    def jobs(self) -> list[tuple[TrainingJob, str]]:
        """Every job that was taken, and the model that it came to, "" while it has not."""
        with closing(sqlite3.connect(self.database)) as store:
            rows = store.execute("select job, model_id from training_jobs").fetchall()
        return [(msgspec.msgpack.decode(job, type=TrainingJob), model_id) for job, model_id in rows]


@asynccontextmanager
async def ml_process(folder: Path, nats_url: str) -> AsyncIterator[Process]:
    process = Process(folder, nats_url)
    await process.start()
    try:
        yield process
    finally:
        await process.kill()


async def test_a_tick_and_a_job_that_kills_interrupt_are_each_done_once(
    nats_server: Server, nats_bus: NatsBus, house: House, tmp_path: Path
) -> None:
    chance, bars, trained, came = (
        random.Random(3),
        market(1_330, history=HISTORY),
        list[ModelTrained](),
        asyncio.Event(),
    )

    async def on_trained(batch: list[Delivery]) -> None:
        trained.extend(open_envelope(unpack(one.payload), ModelTrained) for one in batch)
        came.set()

    async def tell(*messages: Message) -> None:
        for message in messages:
            if isinstance(message, BarClosed):
                house.hold(message)  # an ingester holds a bar before it tells it, and none that is still to close
        envelopes = [(message, wrap(message, "test")) for message in messages]
        await nats_bus.publish([Outgoing(subject_of(m).of(m), pack(e), e.id) for m, e in envelopes])

    async def until_trained(count: int) -> None:
        while len(trained) < count:
            came.clear()
            await came.wait()

    await nats_bus.consume("reader", GOV, [MODEL_TRAINED.wildcard], on_trained, lambda: None)
    async with ml_process(tmp_path, nats_server.url) as service, asyncio.timeout(100.0):
        await tell(*bars[:HISTORY])
        await until_trained(1)
        await tell(refused(trained[0]), *bars[HISTORY:1_320])  # the last of them closes at 22:00
        async with httpx.AsyncClient(base_url=service.address, headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            asking = asyncio.ensure_future(client.post("/train", json={"seed": 99, "promote": False}, timeout=60.0))
            for _ in range(KILLS):
                house.asked.clear()
                await house.asked.wait()  # a training has begun to read its bars
                await asyncio.sleep(chance.uniform(0.0, 1.5))  # anywhere from here to the end of its fit
                await service.kill()
                await service.start()
            await asyncio.gather(asking, return_exceptions=True)
            await until_trained(2)
            await tell(msgspec.structs.replace(refused(trained[1]), sequence=2, hash="e" * 64), *bars[1_320:])
            kept = await client.post("/train", json={"seed": 99, "promote": False, "window": 500}, timeout=60.0)
        assert kept.status_code == 200  # one more, so that all that was taken before it has come to its end
        jobs = service.jobs()
    assert all(model_id for _, model_id in jobs)
    due = sorted(job.order.last_ms for job, _ in jobs if job.is_due)
    assert due == [to_ms(bars[HISTORY - 1].opened_at), to_ms(bars[1_319].opened_at)], "the tick of 22:00 is done once"
    assert [one.model_id for one in trained] == [model_id for job, model_id in sorted(jobs, key=by_bar) if job.is_due]


def by_bar(row: tuple[TrainingJob, str]) -> int:
    return row[0].order.last_ms
