"""Trainings that people ask for: of which bars, once however many ask, and what they are told."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest

from services.ml_service import train_routes as rooms
from shared.artifacts.models import ModelManifest, manifest_from_bytes
from shared.contracts.subjects import MODEL_TRAINED
from shared.contracts.times import from_ms, to_ms

from .conftest import BARS, HISTORY, House, market, refused

QUICK: dict[str, Any] = {"promote": False, "seed": 3}


async def up(house: House, **settings: Any) -> None:
    """The service has seen 1,200 bars, and believes that more of the past is to come: nothing is due."""
    await house.up(patience_s=600.0, starts=1, **settings)
    await house.tell(*BARS[:HISTORY])
    await house.until_kept(HISTORY)


async def trained(client: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    answer = await client.post("/train", json={**QUICK, **request})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def manifest_of(house: House, answer: dict[str, Any]) -> ModelManifest:
    assert house.host is not None
    row = await house.host.store.row("select manifest from models where model_id = ?", answer["version_id"])
    assert row is not None
    return manifest_from_bytes(row[0])


async def test_a_window_slides_or_expands_and_ends_where_as_of_says(house: House) -> None:
    await up(house, train_bars=600)
    as_of = BARS[1_000].opened_at
    async with house.client() as client:
        sliding = await manifest_of(house, await trained(client, window=500))
        expanding = await manifest_of(house, await trained(client, window="expanding"))
        earlier = await manifest_of(house, await trained(client, window=500, as_of=as_of.isoformat()))
    # a fifth of each is left for the governor
    assert (sliding.window, sliding.trained_on.bars, sliding.trained_on.first) == ("sliding", 400, BARS[700].opened_at)
    assert (expanding.window, expanding.trained_on.bars) == ("expanding", 960)
    assert expanding.trained_on.first == BARS[0].opened_at
    assert earlier.trained_on.first == BARS[500].opened_at and earlier.trained_on.bars == 400
    assert earlier.trained_on.last < as_of < earlier.trained_at == BARS[HISTORY - 1].closed_at, "it was asked for now"


async def test_the_manifest_names_the_stored_parts_that_were_read(house: House) -> None:
    await up(house)
    async with house.client() as client:
        manifest = await manifest_of(house, await trained(client, window="expanding"))
    assert [(part.first, part.last, part.data_sha256) for part in manifest.chunks] == [
        (BARS[0].opened_at, BARS[499].opened_at, "c" * 64)
    ]


async def test_any_symbol_that_the_ingester_holds_can_be_trained(house: House) -> None:
    await up(house)
    for bar in market(1_200, symbol="ETH-USDT", seed=9):
        house.hold(bar)
    async with house.client() as client:
        answer = await trained(client, symbols=["ETH-USDT", "BTC-USDT"])
        strange = await client.post("/train", json={"symbols": ["nonsense"]})
        empty = await client.post("/train", json={"symbols": ["XRP-USDT"]})
        ahead = await client.post("/train", json={"as_of": "2030-01-01T00:00:00Z"})
        naive = await client.post("/train", json={"as_of": "2024-01-01T12:00:00"})
    assert [one["series"] for one in answer["models"]] == ["sim.ETH-USDT.1m", "sim.BTC-USDT.1m"]
    assert answer["metrics"]["log_likelihood"] == answer["metric_value"]
    assert [one.status_code for one in (strange, empty, ahead, naive)] == [422] * 4
    assert "needs 400 bars" in empty.json()["detail"] and "must not be after" in ahead.json()["detail"]


async def test_two_who_ask_for_the_same_at_once_are_answered_by_one_training(house: House) -> None:
    await up(house)
    async with house.client() as client:
        first, second, other = await asyncio.gather(trained(client), trained(client), trained(client, seed=4))
        again = await trained(client)
    assert first == second == again and other["version_id"] != first["version_id"]
    assert house.times_asked == 2, "each order was trained once"


async def test_a_training_that_a_stop_interrupted_is_gone_on_with_and_can_still_be_asked_for(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "TRAIN_WAIT_S", 0.0)
    await up(house)
    house.ingester_is_away.set()
    async with house.client() as client:
        job_id = (await client.post("/train", json=QUICK)).json()["job_id"]
        await house.asked.wait()
    await house.down()
    house.ingester_is_away.clear()
    house.asked.clear()
    await house.up(patience_s=600.0, starts=1)
    await house.asked.wait()  # without anybody having asked again
    monkeypatch.setattr(rooms, "TRAIN_WAIT_S", 60.0)
    async with house.client() as client:
        await trained(client)
        answer = await client.get(f"/train/{job_id}")
    assert answer.status_code == 200 and answer.json()["message"].startswith("Trained and kept")
    assert house.times_asked == 1
    await house.down()
    await house.up(patience_s=600.0)
    async with house.client(token="") as client:
        assert (await client.get(f"/train/{job_id}")).json() == answer.json(), "what came of it is kept"
        assert (await client.get("/api/v1/train/nobody")).status_code == 404


SCHEDULE = {"retrain_cron": "0 */2 * * *", "patience_s": 0.2, "starts": 1, "min_train_bars": 400}


async def test_a_missed_tick_is_made_up_for_once_and_a_stop_in_the_middle_does_not_double_it(house: House) -> None:
    long = market(1_800, history=HISTORY)  # 20:00 is the close of the last bar of the past
    await house.up(**SCHEDULE)
    await house.tell(*long[:HISTORY])
    (first,) = await house.until_said(MODEL_TRAINED)
    await house.tell(refused(first))
    await house.until_progress(lambda progress: not progress.holding)
    await house.down()

    await house.up(**SCHEDULE)  # 22:00, 00:00 and 02:00 have passed when the next bars come
    house.ingester_is_away.set()
    house.asked.clear()
    for bar in long[HISTORY:1_590]:
        house.hold(bar)
    await house.tell(long[1_590])
    await house.asked.wait()
    await house.down()  # while it trains
    await house.up(**SCHEDULE)
    house.ingester_is_away.clear()
    await house.tell(*long[1_591:1_600])
    trained = await house.until_said(MODEL_TRAINED, 2)
    await house.tell(msgspec.structs.replace(refused(trained[1]), sequence=2, hash="e" * 64))
    await house.until_progress(lambda progress: not progress.holding)
    await house.tell(*long[1_600:1_670])  # not yet 04:00
    await house.until_progress(lambda p: p.at.get("BTC-USDT.1m") == to_ms(long[1_669].opened_at))
    times = [one.trained_at for one in house.said(MODEL_TRAINED)]
    assert times == [from_ms(to_ms(long[at].closed_at)) for at in (HISTORY - 1, 1_590)]
