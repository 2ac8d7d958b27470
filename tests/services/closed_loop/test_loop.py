"""The whole closed loop over history: every service as it is, one process, a replay clock. Nothing of the future enters."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest
import typer
from fastapi import FastAPI
from pyarrow import feather
from typer.testing import CliRunner

from services.backtest_suite.data import Bars
from services.closed_loop.command import loop
from services.closed_loop.house import IN_LOCKSTEP, VENUE, Plan, open_house
from services.closed_loop.replay import Market, Replay
from services.closed_loop.report import Outcome, outcome
from services.venue_sim.market import STARTS_AT, SimulatedSeries
from shared.bus.memory import MemoryBus, MemoryServer
from shared.contracts.errors import NeedsOperator
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.times import to_ms
from shared.trading.columns import Columns
from shared.trading.strategies import BUILT_IN

MINUTE = timedelta(minutes=1)
HISTORY, LIVE = 900, 260  # ml_service trains on 800; a search needs 300 by the setting below
PLAN = Plan(
    strategies=("trend_follow",),
    cash=Decimal(10_000),
    fee_bps=2.0,
    slippage_bps=1.0,
    profile="demo",
    seed=7,
    own={"backtest_suite": {"least_bars": 900, "window_bars": 1200, "search_bars": 100, "sets": 12}},
)


def simulated(bars: int, seed: int = 7) -> Bars:
    series = SimulatedSeries("BTC-USDT", seed)
    columns = Columns.of(*zip(*(series.candle(i) for i in range(bars)), strict=True))
    return Bars("BTC-USDT", "1m", columns, series.instrument, source="simulated")


def live_from(bars: Bars) -> datetime:
    return bars.first + HISTORY * MINUTE


async def played(bars: Bars, folder: Path) -> tuple[Outcome, dict[str, list[bytes]]]:
    """The outcome, and all that was decided: what the streams kept, byte for byte."""
    async with open_house(Market.of(VENUE, [bars]), PLAN, folder) as house:
        await house.play(house.replay.run(live_from(bars)))
        decided = {name: [one.payload for one in house.server.streams[name]] for name in ("GOV", "PARAM", "EXEC")}
        return outcome(house, PLAN, BUILT_IN, 0.0), decided


@pytest.mark.timeout(120)
async def test_the_same_loop_twice_is_the_same_and_a_longer_one_begins_as_the_shorter_did(tmp_path: Path) -> None:
    before_all, first, second, third = (tmp_path / name for name in ("before_all", "first", "second", "third"))
    for folder in (before_all, first, second, third):
        folder.mkdir()
    bars = simulated(HISTORY + LIVE)
    shorter = replace(bars, columns=bars.columns.part(0, HISTORY + LIVE - 100))
    # On the first bar a training and a search are due, and the record is in the order of their ends. A search that has to
    # compile ends later than any after it: so it is compiled before.
    await played(replace(bars, columns=bars.columns.part(0, HISTORY + 1)), before_all)

    told, decided = await played(bars, first)
    again, decided_again = await played(bars, second)
    _, before = await played(shorter, third)

    assert told.bars == LIVE
    assert (
        min(
            told.models_promoted + told.models_refused,
            told.presets_promoted + told.presets_refused,
            told.decisions,
            told.fills,
        )
        > 0
    )
    assert msgspec.json.encode(again) == msgspec.json.encode(told)  # NaN is NaN there
    assert decided_again == decided
    for stream, messages in before.items():
        assert messages  # the prefix of a longer history has the same prefix of decisions: law 2
        assert decided[stream][: len(messages)] == messages


async def test_what_was_not_told_yet_cannot_be_asked_for() -> None:
    bars = simulated(50)
    replay = Replay(Market.of(VENUE, [bars]), MemoryBus(MemoryServer()), ())
    application = FastAPI()
    application.include_router(replay.routes())
    transport = httpx.ASGITransport(application)
    asked = {"symbol": "BTC-USDT", "timeframe": "1m", "first": "2000-01-01", "last": "2100-01-01"}
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for told in (0, 10, 50):
            if told:
                replay.last_ms["BTC-USDT"] = int(bars.columns.opened_at_ms[told - 1])
            answer = await client.get("/bars", params=asked)
            assert feather.read_table(pa.BufferReader(answer.content)).num_rows == told


def test_instruments_are_told_together_and_an_outage_is_a_gap() -> None:
    bars = simulated(10)
    kept = np.delete(np.arange(10), [4, 5])
    holey = replace(bars, columns=Columns(*(column[kept] for column in bars.columns.all())))
    other = replace(simulated(10, seed=8), symbol="ETH-USDT")
    market = Market.of(VENUE, [holey, other])

    told = dict(market.messages(to_ms(STARTS_AT + 5 * MINUTE)))

    assert len(told) == 10
    at = to_ms(STARTS_AT + 6 * MINUTE)
    gap, bar, beside = told[at]
    assert isinstance(gap, GapFound)
    assert (gap.bars, gap.first_opened_at, gap.is_history) == (2, STARTS_AT + 4 * MINUTE, False)
    assert isinstance(bar, BarClosed) and isinstance(beside, BarClosed)
    assert (bar.symbol, beside.symbol) == ("BTC-USDT", "ETH-USDT")
    assert [one.is_history for one in told[at - 120_000]] == [True]


async def test_a_loop_that_waits_in_vain_says_for_whom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.closed_loop.replay.PATIENCE_S", 0.2)
    replay = Replay(Market.of(VENUE, [simulated(3)]), MemoryBus(MemoryServer()), IN_LOCKSTEP)
    await replay.begin()

    with pytest.raises(NeedsOperator, match=r"waits for engine \(has said nothing yet\)"):
        async with asyncio.timeout(5):
            await replay.run(STARTS_AT)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "engine.sqlite").touch()
    verbs = typer.Typer()
    verbs.command()(loop)

    refused = CliRunner().invoke(verbs, ["--data", "none.csv", "--output-dir", str(tmp_path)])

    assert "take an empty folder" in str(refused.exception)
