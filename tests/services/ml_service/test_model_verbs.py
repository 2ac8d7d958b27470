"""`trimtab models` against a running ml_service and a running governor, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from services.governor.service import SERVICE as GOVERNOR
from services.governor.settings import GovernorSettings
from services.model_verbs import differences
from shared.bus.memory import MemoryBus
from shared.contracts.subjects import MODEL_PROMOTED, MODEL_TRAINED, STAGE_CHANGED
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.settings import PORTS
from shared.runtime.store import Store
from shared.runtime.web import web_application
from tests.services.launcher.test_launcher import free_port_base
from tests.serving import listening

from .conftest import BARS, HISTORY, TOKEN, House


@asynccontextmanager
async def stack(house: House, folder: Path) -> AsyncIterator[Path]:
    """ml_service and the governor, with the two files by which a stack is found."""
    store = await Store.open(folder / "governor.sqlite", GOVERNOR.tables)
    settings = GovernorSettings(data_dir=folder, api_token=TOKEN, profile="demo")
    governor = Host("governor", settings, MemoryBus(house.server), store, VenueClock())
    governor.web = web_application(governor)
    base = free_port_base()
    (folder / "running.json").write_text(json.dumps({"port_base": base}), encoding="utf-8")
    (folder / "api-token").write_text(TOKEN, encoding="utf-8")
    ml_service = await house.up(patience_s=600.0, starts=1)
    await governor.start(GOVERNOR.serve)
    try:
        async with (
            listening(ml_service.web, base + PORTS["ml_service"]),
            listening(governor.web, base + PORTS["governor"]),
        ):
            yield folder
    finally:
        await governor.stop()


async def said_to(folder: Path, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, output and complaints of a verb."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.cli", "models", *arguments, "--data-dir", str(folder)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "COLUMNS": "200"},
    )
    out, complaints = await process.communicate()
    return process.returncode, out.decode(), complaints.decode()


async def told(folder: Path, *arguments: str) -> Any:
    code, out, complaints = await said_to(folder, *arguments, "--json")
    assert code == 0, complaints
    return json.loads(out)


async def stages(folder: Path) -> dict[str, str]:
    return {one["model_id"]: one["stage"] for one in await told(folder, "list")}


async def train(house: House, **request: Any) -> str:
    async with house.client() as client:
        answer = await client.post("/train", json=request)
    assert answer.status_code == 200, answer.text
    version: str = answer.json()["version_id"]
    return version


async def test_versions_are_listed_compared_promoted_and_rolled_back_and_the_record_says_who(
    house: House, tmp_path: Path
) -> None:
    async with stack(house, tmp_path) as folder:
        await house.tell(*BARS[:HISTORY])
        await house.until_kept(HISTORY)
        first, second = await train(house, seed=1, tag="the calm one"), await train(house, seed=2, window=700)

        listed = await told(folder, "list", "--symbol", "BTC-USDT")
        assert [one["model_id"] for one in listed] == [second, first] and listed[1]["tag"] == "the calm one"
        shown = await told(folder, "show", first[:8])
        assert shown["model_id"] == first and len(shown["parameters"]["means"]) == 3
        compared = await told(folder, "diff", first[:12], second)
        named = {each["what"]: (each["first"], each["second"]) for each in compared["differences"]}
        assert named["seed"] == (1, 2) and named["trained_on.bars"] == (960, 560)
        assert named["scores.log_likelihood"][0] == shown["scores"]["log_likelihood"] and "symbol" not in named

        for version in (first, second):  # by hand, unless the gate has just said so
            if not (await told(folder, "show", version))["active"]:
                await told(folder, "promote", version, "--reason", f"try {version[:6]}")
                await house.until(lambda version=version: house.said(MODEL_PROMOTED)[-1].model_id == version)
        back = await told(folder, "rollback", "BTC-USDT", "--reason", "the new one misses crashes")
        assert [(one["subject_id"], one["after"]) for one in back["log"]] == [
            (first, "champion"),
            (second, "demoted"),
        ]
        await house.until(lambda: any("misses crashes" in line.reasons[0] for line in house.said(STAGE_CHANGED)))
        await house.until(lambda: house.said(MODEL_PROMOTED)[-1].model_id == first)
        assert await stages(folder) == {first: "champion", second: "demoted"}
        again = await told(folder, "rollback", "BTC-USDT")
        assert again["log"][0]["subject_id"] == second, "the one before is now the newer one"

        for arguments in (["list"], ["show", first], ["diff", first, second]):
            code, printed, complaints = await said_to(folder, *arguments)
            assert code == 0 and first[:12] in printed, (printed, complaints)
        for arguments, reason in (
            (["show", "000000"], "There is no model 000000 here"),
            (["promote", second], "is a champion already"),
            (["rollback", "ETH-USDT"], "No model read ETH-USDT"),
        ):
            code, _, complaints = await said_to(folder, *arguments)
            assert code == 78 and reason in complaints, complaints
    assert len(house.said(MODEL_TRAINED)) == 2


def test_states_are_compared_by_their_names_whatever_their_order() -> None:
    def version(labels: list[str], means: list[list[float]], transition: list[list[float]]) -> dict[str, Any]:
        parameters = {"transition": transition, "means": means, "center": [0.0, 1.0]}
        return {"model_id": "a", "feature_schema": "x,y/1", "labels": labels, "parameters": parameters}

    one = version(["BULL", "CHOP", "CHOP"], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [[0.8, 0.1, 0.1]] * 3)
    other = version(["CHOP", "BULL", "CHOP"], [[3.0, 4.0], [1.0, 2.5], [5.0, 6.0]], [[0.1, 0.8, 0.1]] * 3)
    assert differences(one, other) == [
        ("label map", "0: BULL, 1: CHOP, 2: CHOP", "0: CHOP, 1: BULL, 2: CHOP"),
        ("means[BULL][y]", 2.0, 2.5),
    ]
    assert differences(one, one) == []
    assert msgspec.json.encode(differences(one, other))


async def test_without_a_stack_a_verb_says_how_to_start_one(tmp_path: Path) -> None:
    code, _, complaints = await said_to(tmp_path, "list")
    assert code == 78 and "Start it with `trimtab up`" in complaints
