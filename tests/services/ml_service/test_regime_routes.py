"""What a regime is asked over HTTP: which one, and how regimes follow one another, by the model and as counted."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from services.ml_service.transitions import model_odds
from shared.contracts.subjects import REGIME_READING, REGIME_TRANSITION

from .conftest import A_MODEL, BARS, House, a_manifest

NAMES = ("BULL", "BEAR", "CHOP")


async def test_a_regime_is_the_last_reading_and_unknown_without_a_model(house: House) -> None:
    await house.up(synthetic_bootstrap=False)
    await house.tell(*BARS[:60])
    await house.until_kept(60)
    async with house.client(token="") as client:
        answer = await client.get("/regime/BTC-USDT")
        assert answer.status_code == 200
        assert answer.json()["regime"] == "UNKNOWN" and answer.json()["probs"] is None
        assert answer.json()["version_id"] is None and answer.json()["bars"] == 60
        without_a_model = await client.get("/regime/BTC-USDT/transitions")
        assert without_a_model.status_code == 409 and "no promoted model" in without_a_model.json()["detail"]
        for path in ("/regime/XRP-USDT", "/regime/BTC-USDT?timeframe=1h", "/regime/XRP-USDT/transitions"):
            assert (await client.get(path)).status_code == 404, path


async def test_the_reading_that_is_answered_is_the_one_that_was_told(model_in_use: House) -> None:
    await model_in_use.tell(*BARS[100:130])
    told = (await model_in_use.until_said(REGIME_READING, 30))[-1]
    async with model_in_use.client(token="") as client:
        answer = (await client.get("/regime/BTC-USDT", params={"timeframe": "1m"})).json()
    assert answer["regime"] == told.regime and answer["version_id"] == told.model_id
    assert answer["probs"] == {"BULL": told.bull, "BEAR": told.bear, "CHOP": told.chop}
    assert answer["confidence"] == max(told.bull, told.bear, told.chop)


async def test_each_pair_of_bars_is_counted_once_also_over_a_restart(model_in_use: House) -> None:
    await model_in_use.tell(*BARS[100:300])
    await model_in_use.until_said(REGIME_READING, 200)
    await model_in_use.down()
    await model_in_use.up(synthetic_bootstrap=False, min_train_bars=2_000, train_bars=3_000)
    await model_in_use.tell(*BARS[250:600])  # some of them again
    readings = await model_in_use.until_said(REGIME_READING, 500)
    async with model_in_use.client(token="") as client:
        answer = (await client.get("/regime/BTC-USDT/transitions")).json()
        unknown = await client.get("/regime/BTC-USDT/transitions", params={"version_id": "x"})
    pairs = [(a.regime, b.regime) for a, b in pairwise(readings)]
    assert answer["counts"] == [[pairs.count((a, b)) for b in NAMES] for a in NAMES]
    assert answer["version_id"] == a_manifest().model_id and answer["names"] == list(NAMES)
    assert answer["model"] == [pytest.approx(row) for row in model_odds(A_MODEL) if row]
    assert [sum(row) for row in answer["empirical"] if row] == pytest.approx([1.0] * len({a for a, _ in pairs}))
    assert [day["day"] for day in answer["days"]] == ["2024-01-01"] and unknown.status_code == 404


async def test_a_transition_tells_how_surprising_it_was(model_in_use: House) -> None:
    await model_in_use.tell(*BARS[100:400])
    await model_in_use.until_said(REGIME_READING, 300)
    first, *others = model_in_use.said(REGIME_TRANSITION)
    assert first.before == "UNKNOWN" and math.isnan(first.surprise_bits)
    assert others and all(2.0**-one.surprise_bits == pytest.approx(one.model_probability) for one in others)
