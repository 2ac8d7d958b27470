"""Backtests that people order: queued over the bus, done once and one at a time, whatever ends the service meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from services.backtest_suite import jobs as queue
from services.backtest_suite.candidates import candidates_in, written
from services.backtest_suite.driver import Experiment
from services.backtest_suite.panels import Panel
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.sources import held_bars
from services.backtest_suite.work import work
from shared.contracts.governance import Costs, SlippageModel
from shared.contracts.market import BarClosed
from shared.contracts.subjects import BACKTEST_ORDERED, PRESET_CANDIDATE
from shared.contracts.times import to_ms
from shared.trading.columns import Columns
from shared.trading.strategies import BUILT_IN, BUILT_IN_PORTFOLIOS
from tests.services.backtest_suite.conftest import BARS, HISTORY, PATIENCE_S, House

ONE: dict[str, Any] = {
    "strategy": "momentum",
    "symbol": "BTC-USDT",
    "timeframe": "1m",
    "params": {"entry": 20, "exit": 10},
}
GRID = {**ONE, "params": {}, "grid": {"entry": [10, 20, 40], "exit": [5, 8]}}


async def ask(house: House, body: dict[str, Any], key: str = "") -> dict[str, Any]:
    answer = await house.client.post("/backtest/run", json=body, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code == 202, answer.text
    return answer.json()


def columns_of(bars: Sequence[BarClosed]) -> Columns:
    return Columns.of(
        *zip(*((to_ms(bar.opened_at), bar.open, bar.high, bar.low, bar.close, bar.volume) for bar in bars), strict=True)
    )


async def over(house: House, job_id: str) -> dict[str, Any]:
    """Wait until this run is over, and what it told."""
    told = (await house.client.get(f"/runs/{job_id}", params={"wait_s": PATIENCE_S})).json()
    assert told["state"] in ("done", "failed", "canceled")
    return told


@pytest.fixture
async def suite(house: House) -> House:
    """A suite whose ingester holds bars of the past."""
    await house.up()
    await house.tell(*BARS[:HISTORY])
    return house


class Held:
    """Work that waits at its first sign of progress until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = asyncio.Event(), threading.Event()
        self.count = 0
        loop = asyncio.get_running_loop()

        def slow(order: Any, strategy: Any, columns: Any, folder: Any, on_progress: Callable[[float], None]) -> Any:
            self.count += 1
            on_progress(0.25)
            loop.call_soon_threadsafe(self.begun.set)
            assert self.go.wait(PATIENCE_S)
            return work(order, strategy, columns, folder, on_progress)

        monkeypatch.setattr(queue, "work", slow)


async def test_a_run_is_made_on_the_terms_that_were_asked_for(suite: House) -> None:
    terms = {
        "fill": "same-close", "exits": "at-venue", "size": "2", "shorts": False, "maker_bps": 2, "min_fee": "0.5",
        "fee_tiers": "500=8", "spread_bps": 4, "slippage_model": "volatility,noise=0.5", "volume_share": 1.0, "seed": 5,
    }  # fmt: skip
    bars = held_bars("BTC-USDT", "1m", columns_of(BARS[:HISTORY]), "test")
    costs = Costs(
        fee_bps=10, maker_bps=2, min_fee=Decimal("0.5"), tiers=((Decimal(500), 8.0),), slippage_bps=5, spread_bps=4,
        slippage_model=SlippageModel(size=False, noise=0.5, seed=5), max_volume_share=1.0,
    )  # fmt: skip
    same = Experiment.of(
        BUILT_IN["momentum"], bars, costs=costs, fill="same_close", exits="at_venue", size=Decimal(2), shorts=False, seed=5
    ).run(ONE["params"])  # fmt: skip
    told = await over(suite, (await ask(suite, {**ONE, **terms}))["id"])
    assert told["summary"]["equity_final"] == float(same.equity_final)
    assert told["run_id"].startswith(same.fingerprint[:12])
    for wrong, said in (
        ({"slippage_model": "windy"}, "A slippage model is crypto or shares"),
        ({"fee_tiers": "9"}, "Expected fee tiers such as"),
        ({"fill": "yesterday"}, "next-open"),
    ):
        answer = await suite.client.post("/backtest/run", json={**ONE, **wrong})
        assert answer.status_code == 422
        assert said in answer.text


async def test_a_portfolio_trades_all_that_is_joined_on_one_account(suite: House) -> None:
    mirrored = [
        msgspec.structs.replace(
            bar, symbol="ETH-USDT", open=1e4 / bar.open, high=1e4 / bar.low, low=1e4 / bar.high, close=1e4 / bar.close
        )
        for bar in BARS[:HISTORY]
    ]
    suite.held += mirrored
    body = {**ONE, "strategy": "cross_sectional_momentum", "symbol": "BTC-USDT+ETH-USDT", "rebalance_band": 0.01}
    body["params"] = {"bars": 30, "top": 1, "every": 15}
    panel = Panel(
        (
            held_bars("BTC-USDT", "1m", columns_of(BARS[:HISTORY]), "test"),
            held_bars("ETH-USDT", "1m", columns_of(mirrored), "test"),
        )
    )
    same = Experiment.of(BUILT_IN_PORTFOLIOS["cross_sectional_momentum"], panel, rebalance_band=0.01).run(
        body["params"]
    )
    told = await over(suite, (await ask(suite, body))["id"])
    assert (told["state"], told["summary"]["equity_final"]) == ("done", float(same.equity_final))
    assert told["run_id"].startswith(same.fingerprint[:12])
    assert {trade["symbol"] for trade in told["trades"]} == {"BTC-USDT", "ETH-USDT"}
    best = await over(suite, (await ask(suite, {**body, "params": {"top": 1}, "grid": {"bars": [20, 30]}}))["id"])
    assert best["summary"]["combinations"] == 2


@pytest.mark.parametrize(
    ("strategy", "symbol", "said"),
    [
        ("pairs", "BTC-USDT", "takes 2 instruments, was asked for BTC-USDT"),
        ("momentum", "BTC-USDT+ETH-USDT", "takes 1 instrument, was asked for BTC-USDT+ETH-USDT"),
        ("pairs", "BTC-USDT+BTC-USDT", "each instrument once"),
        ("pairs", "BTC-USDT+ETH", "must look like BTC-USDT"),
    ],
)
async def test_a_strategy_is_given_as_many_instruments_as_it_takes(
    suite: House, strategy: str, symbol: str, said: str
) -> None:
    answer = await suite.client.post(
        "/backtest/run", json={**ONE, "strategy": strategy, "symbol": symbol, "params": {}}
    )
    assert answer.status_code == 422
    assert said in answer.text


async def test_a_run_is_queued_done_and_counted_in_the_runs_database(suite: House) -> None:
    asked = await ask(suite, ONE)
    assert asked["state"] == "ordered"
    told = await over(suite, asked["id"])
    assert (told["state"], told["progress"], told["detail"]) == ("done", 1.0, "")
    assert told["summary"]["bars"] == HISTORY
    assert told["summary"]["trades"] > 0
    assert told["run_id"] == told["summary"]["run_id"]
    results = [trade["result_r"] for trade in told["trades"]]
    assert sum(results) / len(results) == pytest.approx(told["summary"]["metrics"]["expectancy_r"])
    with RunStore(suite.folder / "backtests") as store:
        manifest = store.manifest(told["run_id"])
    assert manifest is not None
    assert manifest.params["entry"] == 20
    equity = (await suite.client.get(f"/api/v1/runs/{asked['id']}/equity")).json()
    assert equity["points"][-1][1] == pytest.approx(told["summary"]["equity_final"])
    assert len(equity["points"]) == HISTORY
    (ordered,) = suite.said(BACKTEST_ORDERED)  # it went over the bus
    assert ordered.job_id == asked["id"]


async def test_a_grid_tells_its_best_and_has_no_equity(suite: House) -> None:
    asked = await ask(suite, GRID)
    told = await over(suite, asked["id"])
    assert (told["summary"]["combinations"], told["summary"]["trials"]) == (6, 6)
    assert told["summary"]["best"]
    answer = await suite.client.get(f"/runs/{asked['id']}/equity")
    assert (answer.status_code, "no single equity" in answer.text) == (409, True)


async def test_the_same_key_is_the_same_run_and_another_backtest_under_it_is_refused(suite: House) -> None:
    first = await ask(suite, ONE, "mine")
    again = await ask(suite, ONE, "mine")
    assert first["id"] == again["id"] == "mine"
    other = await suite.client.post("/backtest/run", json=GRID, headers={"Idempotency-Key": "mine"})
    assert (other.status_code, "take a new one" in other.text) == (422, True)
    await over(suite, "mine")
    done_already = await ask(suite, ONE, "mine")
    assert done_already["state"] == "done"
    assert len(suite.said(BACKTEST_ORDERED)) == 1


async def test_run_ids_never_collide_even_when_the_same_is_asked_at_the_same_time(suite: House) -> None:
    asked = await asyncio.gather(*(ask(suite, ONE) for _ in range(5)))
    ids = {one["id"] for one in asked}
    assert len(ids) == 5
    told = [await over(suite, one) for one in sorted(ids)]
    assert len({one["run_id"] for one in told}) == 5
    listed = (await suite.client.get("/runs", params={"limit": 3})).json()["runs"]
    assert [one["id"].rpartition("-")[2] for one in listed] == ["5", "4", "3"]  # newest first


async def test_one_is_done_at_a_time_and_tells_how_far_it_is(suite: House, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    first, second = await ask(suite, ONE), await ask(suite, GRID)
    await held.begun.wait()
    told = (await suite.client.get(f"/runs/{first['id']}")).json()
    assert (told["state"], told["progress"]) == ("running", 0.25)
    assert (await suite.client.get(f"/runs/{second['id']}")).json()["state"] in ("ordered", "queued")
    assert held.count == 1
    held.go.set()
    assert (await over(suite, second["id"]))["state"] == "done"


async def test_what_is_canceled_in_the_queue_is_never_begun_and_what_runs_is_stopped(
    suite: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    running, queued, last = await ask(suite, GRID), await ask(suite, GRID), await ask(suite, ONE)
    await held.begun.wait()
    for one in (queued, running):
        answer = await suite.client.post(f"/runs/{one['id']}/cancel")
        assert answer.json()["state"] == "canceled"
        assert (await suite.client.post(f"/runs/{one['id']}/cancel")).status_code == 200  # again changes nothing
    held.go.set()
    assert (await over(suite, last["id"]))["state"] == "done"
    assert held.count == 2  # the queued one was never begun
    assert (await suite.client.get(f"/runs/{running['id']}")).json()["summary"] is None
    late = await suite.client.post(f"/runs/{last['id']}/cancel")
    assert (late.status_code, "is done already" in late.text) == (409, True)


async def test_a_restart_goes_on_with_what_was_under_way_and_what_was_queued(
    suite: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite.ingester_is_away = True
    first, second = await ask(suite, ONE), await ask(suite, GRID)
    await suite.asked.wait()
    await suite.down()
    suite.ingester_is_away = False
    await suite.up()
    assert (await over(suite, first["id"]))["state"] == "done"
    assert (await over(suite, second["id"]))["state"] == "done"


async def test_who_waits_for_a_run_has_its_state_when_the_time_is_over(
    suite: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    asked = await ask(suite, ONE)
    await held.begun.wait()
    told = (await suite.client.get(f"/runs/{asked['id']}", params={"wait_s": 0.05})).json()
    assert told["state"] == "running"
    waiting = asyncio.ensure_future(over(suite, asked["id"]))
    held.go.set()
    assert (await waiting)["state"] == "done"


async def test_a_run_that_ends_the_service_each_time_is_given_up(suite: House) -> None:
    suite.ingester_is_away = True
    poison, next_one = await ask(suite, ONE), await ask(suite, GRID)
    for _ in range(queue.MOST_ATTEMPTS):
        await suite.asked.wait()  # it was begun
        await suite.down()
        suite.asked.clear()
        await suite.up()
    told = await over(suite, poison["id"])
    assert (told["state"], "each time the service ended" in told["detail"]) == ("failed", True)
    suite.ingester_is_away = False
    assert (await over(suite, next_one["id"]))["state"] == "done"


async def test_a_run_that_cannot_be_done_fails_with_its_reason_and_the_next_goes_on(suite: House) -> None:
    nothing = await ask(suite, {**ONE, "symbol": "ETH-USDT"})
    told = await over(suite, nothing["id"])
    assert (told["state"], told["summary"]) == ("failed", None)
    assert "holds no bars of ETH-USDT 1m" in told["detail"]
    assert (await over(suite, (await ask(suite, ONE))["id"]))["state"] == "done"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({**ONE, "strategy": "momentun"}, "Expected a strategy among"),
        ({**ONE, "params": {"entry": 4000}}, "entry must be within"),
        ({**GRID, "grid": {"entri": [1]}}, "did you mean 'entry'"),
        ({**ONE, "symbol": "BTC/USDT"}, "symbol"),
        ({**ONE, "timeframe": "7m"}, "timeframe must be one of"),
        ({**ONE, "cash": "NaN"}, "cash"),
        ({**ONE, "from": "2024-02-01T00:00:00Z", "to": "2024-01-01T00:00:00Z"}, "first <= last"),
        ({**ONE, "sped": 1}, "Extra inputs"),
    ],
)
async def test_what_cannot_be_meant_is_refused_at_the_door(suite: House, body: dict[str, Any], reason: str) -> None:
    answer = await suite.client.post("/backtest/run", json=body)
    assert answer.status_code == 422, answer.text
    assert reason in answer.text
    assert (await suite.client.get("/runs")).json() == {"runs": []}


async def test_ordering_canceling_and_proposing_need_the_token_and_reading_does_not(suite: House) -> None:
    nobody = {"Authorization": ""}
    for path in ("/backtest/run", "/runs/x/cancel", "/candidates"):
        assert (await suite.client.post(path, json=ONE, headers=nobody)).status_code == 401, path
    assert (await suite.client.get("/runs", headers=nobody)).status_code == 200
    assert (await suite.client.get("/runs/nothing")).status_code == 404


async def test_whole_candidates_are_proposed_and_those_of_another_venue_are_not(suite: House) -> None:
    await suite.tell(BARS[HISTORY])
    found = (await suite.candidates())[0]
    mine = msgspec.structs.replace(found, trials=77, proposed_at=BARS[HISTORY + 1].closed_at)
    answer = await suite.client.post("/candidates", content=written([mine]))
    assert answer.json() == {"proposed": [mine.preset_id]}
    await suite.until(lambda: mine in suite.said(PRESET_CANDIDATE))
    elsewhere = msgspec.structs.replace(mine, venue="binance")
    assert candidates_in(written([elsewhere])) == [elsewhere]
    refused = await suite.client.post("/candidates", content=written([elsewhere]))
    assert (refused.status_code, "for the venue sim" in refused.text) == (422, True)
