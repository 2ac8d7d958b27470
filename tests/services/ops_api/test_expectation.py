"""How the model expects regimes to go over: asked of a real ml_service, once for each model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.ml_service.transitions import dwell_bars, model_odds
from shared.contracts.times import to_ms
from tests.browser.serving import served
from tests.services.ml_service.conftest import A_MODEL, BARS, House, a_manifest
from tests.serving import listening


@pytest.fixture
async def ml_service(tmp_path: Path) -> AsyncIterator[House]:
    """An ml_service that has read a hundred bars without a model, and trains none."""
    house = House(tmp_path, {})
    await house.up(synthetic_bootstrap=False, min_train_bars=2_000, train_bars=3_000)
    await house.tell(*BARS[:100])
    await house.until_progress(lambda progress: progress.at.get("BTC-USDT.1m") == to_ms(BARS[99].opened_at))
    yield house
    if house.host is not None:
        await house.down()


async def test_the_models_own_matrix_stands_beside_what_was_counted(
    ml_service: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ml_service.host is not None and ml_service.host.web is not None
    async with listening(ml_service.host.web) as address, asyncio.timeout(30):
        monkeypatch.setenv("TRIMTAB_ML_SERVICE_URL", address)
        async with (
            served(ml_service.server) as page,
            httpx.AsyncClient(base_url=page.address, verify=False) as client,
        ):

            async def told(model_id: str) -> dict[str, object]:
                """The transitions, once ops_api has heard that this model reads."""
                while True:
                    answer = await client.get("/regime/BTC-USDT/transitions")
                    if answer.status_code == 200 and answer.json()["model_id"] == model_id:
                        return answer.json()
                    await asyncio.sleep(0.05)

            cold = await told("")
            assert (cold["model"], cold["unknown"]) == (None, "no model reads BTC-USDT.1m")

            await ml_service.promote_a_known_model(BARS[99].closed_at)
            known = await told(a_manifest().model_id)

            expected = model_odds(A_MODEL)
            assert known["unknown"] == ""
            assert known["model"] == [pytest.approx(row) for row in expected if row]
            assert known["dwell_expected"] == pytest.approx(dwell_bars(expected))

            await ml_service.down()  # a model does not change: what it said of it still holds
            assert (await told(a_manifest().model_id))["model"] == known["model"]
