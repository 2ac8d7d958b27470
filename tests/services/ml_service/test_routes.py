"""What people ask of ml_service over HTTP: an error is an error, and never a regime."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from services.ml_service import train_routes as rooms
from shared.contracts.subjects import MODEL_TRAINED
from shared.contracts.times import to_ms
from shared.regimes.features import TRENDS, trends_of_returns
from shared.regimes.hmm import forward_filter, marginal, odds

from .conftest import A_MODEL, BARS, HISTORY, House, a_manifest, promoted

ROWS = [
    {
        "open": bar.open,
        "high": bar.high,
        "low": bar.low,
        "close": bar.close,
        "volume": bar.volume,
        "timestamp": to_ms(bar.opened_at),
    }
    for bar in BARS[:100]
]
RETURNS = [math.log(after.close / before.close) for before, after in pairwise(BARS[:100])]


async def up_without_training(house: House) -> None:
    """The service has seen the past, and believes that more of it is to come."""
    await house.up(patience_s=600.0)
    await house.tell(*BARS[:HISTORY])
    await house.until_kept(HISTORY)


async def test_without_a_model_every_prediction_is_a_conflict(house: House) -> None:
    await up_without_training(house)
    async with house.client() as client:
        for body in ({"bars": ROWS}, {"logret": RETURNS}, {"symbol": "BTC-USDT", "timeframe": "1m"}):
            answer = await client.post("/predict", json=body)
            assert answer.status_code == 409 and "no promoted model" in answer.json()["detail"]
        model = (await client.get("/model")).json()
    assert model["active_version"] is None and model["registry_size"] == 0


async def test_the_same_bars_sent_and_served_have_the_same_odds(model_in_use: House) -> None:
    model_id = a_manifest().model_id
    async with model_in_use.client(token="") as client:  # reading needs no token
        by_bars = (await client.post("/predict", json={"bars": ROWS})).json()
        served = (await client.post("/predict", json={"symbol": "BTC-USDT"})).json()
        model = (await client.get("/model")).json()
        models = (await client.get("/models")).json()
    assert by_bars["probs"] == served["probs"] and by_bars["features"] == A_MODEL.feature_schema
    assert by_bars["as_of"] == BARS[99].opened_at.isoformat() and served["as_of"] == BARS[99].closed_at.isoformat()
    assert sum(served["probs"]) == pytest.approx(1.0) and served["confidence"] == max(served["probs"])
    assert served["regime"] == ("BULL", "BEAR", "CHOP")[served["probs"].index(served["confidence"])]
    assert served["version_id"] == model["active_version"] == model_id
    assert model["metrics"] == a_manifest().scores and model["registry_size"] == 1
    assert [(one["model_id"], one["stage"], one["active"]) for one in models] == [(model_id, "champion", True)]


async def test_of_returns_alone_the_model_says_what_their_trends_tell(model_in_use: House) -> None:
    async with model_in_use.client(token="") as client:
        told = (await client.post("/predict", json={"logret": RETURNS})).json()
    trends = [row for row in trends_of_returns(RETURNS) if row is not None]
    few = marginal(A_MODEL, TRENDS)
    assert told["probs"] == list(odds(few, forward_filter(few, trends)[-1])) and told["as_of"] is None
    assert told["features"] == "trend_6,trend_48"


async def test_wrong_input_is_refused_and_never_read(model_in_use: House) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"bars": []},
        {"bars": ROWS[:96]},
        {"bars": [*ROWS[:99], {**ROWS[99], "close": -1.0}]},
        {"bars": [*ROWS[:99], {**ROWS[99], "high": ROWS[99]["low"] / 2}]},
        {"bars": [{"close": row["close"]} for row in ROWS]},
        {"bars": ROWS[::-1]},
        {"bars": ROWS, "logret": RETURNS},
        {"logret": RETURNS[:47]},
        {"logret": [[r] * 5 for r in RETURNS]},
        {"logret": RETURNS, "features": 5},
        {"symbol": "XRP-USDT"},
        {"symbol": "BTC-USDT", "timeframe": "1h"},
    ]
    async with model_in_use.client() as client:
        for body in wrong:
            answer = await client.post("/predict", json=body)
            assert answer.status_code == 422, (body, answer.text)


async def test_train_answers_with_the_figure_and_the_governors_verdict(house: House) -> None:
    await up_without_training(house)
    async with house.client() as client:
        asked = house.ask(client.post("/train", json={"seed": 11, "tag": "by hand", "window": 1_000}))
        trained = (await house.until_said(MODEL_TRAINED))[0]
        await house.tell(promoted(trained, BARS[HISTORY - 1].closed_at))
        answer = await asked
        kept = await client.post("/train", json={"seed": 12, "promote": False})
        models = (await client.get("/models")).json()
    assert answer.status_code == 200
    assert {k: answer.json()[k] for k in ("version_id", "metric_name", "metric_value", "promoted")} == {
        "version_id": trained.model_id,
        "metric_name": "log_likelihood",
        "metric_value": trained.metric_value,
        "promoted": True,
    }
    assert kept.json()["promoted"] is False and "not offered" in kept.json()["message"]
    assert len(house.said(MODEL_TRAINED)) == 1, "what is only kept is no candidate"
    assert [one["stage"] for one in models] == ["kept", "champion"]
    assert models[1]["tag"] == "by hand" and models[1]["trained_on"]["bars"] == 800


async def test_a_long_training_is_accepted_and_can_be_asked_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "TRAIN_WAIT_S", 0.0)
    monkeypatch.setattr(rooms, "VERDICT_WAIT_S", 0.01)
    await house.up(min_train_bars=1_300, train_bars=1_500, synthetic_bootstrap=False)
    await house.tell(*BARS[:1_250])
    await house.until_progress(lambda progress: bool(progress.at))
    async with house.client() as client:
        accepted = await client.post("/train", json={"symbols": ["BTC-USDT"]})
        assert accepted.status_code == 202
        job_id = accepted.json()["job_id"]
        await house.tell(*BARS[1_250:1_260])
        monkeypatch.setattr(rooms, "TRAIN_WAIT_S", 60.0)
        answer = await client.post("/train", json={"symbols": ["BTC-USDT"]})
        assert answer.status_code == 422 and "needs 1300 bars" in answer.json()["detail"]
        assert (await client.get(f"/train/{job_id}")).status_code == 422
        assert (await client.get("/train/nobody")).status_code == 404


async def test_training_is_for_who_has_the_token(house: House) -> None:
    tokens = {
        "viewer_token": "one that looks",
        "operator_token": "one that commands",
        "trainer_token": "one that trains",
    }
    await house.up(synthetic_bootstrap=False, **tokens)
    wrong = [("", 401), ("guess", 403), (tokens["viewer_token"], 403), (tokens["operator_token"], 403)]
    for token, status in [*wrong, (tokens["trainer_token"], 409)]:
        async with house.client(token) as client:
            assert (await client.post("/train", json={})).status_code == status
    async with house.client() as client:
        assert (await client.post("/train", json={"n_states": 0})).status_code == 422
        assert (await client.post("/train", json={"model": "x"})).status_code == 422
        assert (await client.post("/train", json={})).status_code == 409, "no bar has come yet"
