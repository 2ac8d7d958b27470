"""What a training costs those who trade: from a bar on NATS to its order, with and without a fit beside. Ratios in one
run, recorded, never failing.

pytest tests/benchmarks/test_training_beside.py -s
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import pytest

from services.engine.executor import Executor
from services.engine.orders import Order
from services.ml_service.fit_lines import FitRequest
from services.ml_service.synthetic import made_up_bars
from services.ml_service.trainer import run_fit
from shared.bus.bus import Outgoing
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.subjects import BAR_CLOSED
from shared.contracts.times import to_ms
from shared.contracts.wire import pack, wrap
from shared.runtime.listening import Effects
from tests.benchmarks.conftest import Rounds
from tests.pure.engine.house import bars, house_of

pytestmark = pytest.mark.timeout(400)

FIT_BARS = 50_000
BLOCKS, BARS_A_BLOCK = 4, 250  # of each kind, in turn, so that what else the machine does falls on both
P50_GOAL, P99_GOAL = 1.2, 2.0
UNDER_WAY_S = 1.0


async def test_orders_are_hardly_later_while_a_model_is_fitted(
    nats_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rounds: Rounds
) -> None:
    blocks, sent = rounds(BLOCKS), list[float]()
    send = Executor.send

    async def timed_send(executor: Executor, orders: Iterable[Order], effects: Effects) -> None:
        sent.append(time.perf_counter())
        await send(executor, orders, effects)

    monkeypatch.setattr(Executor, "send", timed_send)
    took: dict[bool, list[float]] = {False: [], True: []}
    # An order on every other bar, and little lost by each: the account must last.
    market = iter(bars(*[99.99 if at % 4 < 2 else 100.01 for at in range(2 * blocks * BARS_A_BLOCK)]))
    async with house_of(tmp_path, monkeypatch) as house:
        bus = await NatsBus.connect(nats_server.url, "engine")
        await bus.ensure_streams()
        await house.up(bus=bus, daily_loss_pct=99.0, drawdown_pct=99.0, loss_streak=10_000, orders_per_minute=10_000)
        for block in range(2 * blocks):
            is_fitting = block % 2 == 1
            async with _fit() if is_fitting else nullcontext():
                for _ in range(BARS_A_BLOCK):
                    bar = next(market)
                    envelope, before = wrap(bar, "test"), len(sent)
                    told = time.perf_counter()
                    await bus.publish([Outgoing(BAR_CLOSED.of(bar), pack(envelope), envelope.id)])
                    ms = to_ms(bar.opened_at)
                    await house.until(lambda progress, ms=ms: progress.at.get("BTC-USDT.1m") == ms, is_told=False)
                    took[is_fitting] += [sent[before] - told] if len(sent) > before else []
    without, beside = (_percentiles(took[is_fitting]) for is_fitting in (False, True))
    print(
        f"\nbar on NATS -> order, {len(took[False])} without a fit: p50 {without[0] * 1e3:.2f} ms, p99 {without[1] * 1e3:.2f}"
        f"\n{len(took[True])} while {FIT_BARS} bars are fitted: p50 {beside[0] * 1e3:.2f} ms = {beside[0] / without[0]:.2f} "
        f"times (goal {P50_GOAL}), p99 {beside[1] * 1e3:.2f} ms = {beside[1] / without[1]:.2f} times (goal {P99_GOAL})"
    )
    assert min(map(len, took.values())) > blocks * BARS_A_BLOCK / 4


@asynccontextmanager
async def _fit() -> AsyncIterator[None]:
    """A fit is under way, in a process of its own as ever, and begun anew whenever it ends."""
    request = FitRequest(made_up_bars(FIT_BARS, 1), validation_bars=FIT_BARS // 5, states=(3,), starts=4, seed=7)

    async def for_ever() -> None:
        while True:
            await run_fit(request, 600.0, lambda said: None)

    fitting = asyncio.create_task(for_ever())
    await asyncio.sleep(UNDER_WAY_S)
    try:
        yield
    finally:
        assert not fitting.done(), fitting.exception()
        fitting.cancel()
        with suppress(asyncio.CancelledError):
            await fitting


def _percentiles(times: list[float]) -> tuple[float, float]:
    """p50 and p99."""
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]
