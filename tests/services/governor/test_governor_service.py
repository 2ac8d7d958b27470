"""The governor among its neighbours: evidence ordered, verdicts told in order, once, and nothing forgotten by a kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal as signals
import sqlite3
import sys
from pathlib import Path

import msgspec
import pytest

from services.governor.record import verify
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import ModelPromoted, PresetCandidate, PresetPromoted, PresetRefused
from shared.contracts.jobs import EvidenceOrdered
from shared.contracts.wire import message_id
from tests.pure.governor.applicants import GOOD, a_preset, answer, candidate, trained

from .conftest import Around, House


async def admitted(around: Around, said: PresetCandidate, sharpe: float = 2.0) -> None:
    """This preset applies and shows this Sharpe ratio; returns when its line is written."""
    before = len(around.all(EvidenceOrdered))
    await around.tell(said)
    order = (await around.until_said(EvidenceOrdered, before + 1))[-1]
    await around.tell(answer(order, msgspec.structs.replace(GOOD, sharpe=sharpe)))
    await around.until(lambda: any(one.subject_id == said.preset_id for one in around.verdicts))


async def test_a_preset_goes_from_candidate_to_champion_by_evidence_that_the_governor_ordered(house: House) -> None:
    await house.up()
    await house.tell(candidate())
    (order,) = await house.until_said(EvidenceOrdered)
    await house.tell(answer(order))
    opened, line = await house.until_judged()

    assert (opened.after, opened.evidence_id) == ("candidate", order.job_id)
    (promoted,) = house.all(PresetPromoted)
    assert house.said.index(promoted) < house.said.index(line)
    assert promoted.evidence_id == line.evidence_id == order.job_id
    await house.until(
        lambda: (
            house.progress is not None
            and message_id(candidate()) in house.progress.booked
            and message_id(promoted) in house.progress.told
        )
    )


async def test_a_model_is_judged_only_when_its_bytes_are_there(house: House) -> None:
    await house.up()
    (missing, _), (there, content) = trained(shift=0.5), trained()
    await house.voice.put_artifact(there.model_id, content)
    await house.tell(missing, there)
    (order,) = await house.until_said(EvidenceOrdered)
    await house.tell(answer(order))
    lines = await house.until_judged(2)

    assert [(line.subject_id, line.after) for line in lines] == [
        (missing.model_id, "refused"),
        (there.model_id, "candidate"),
        (there.model_id, "champion"),
    ]
    assert lines[0].reasons[0].startswith("artifact: expected")
    assert [one.model_id for one in house.all(ModelPromoted)] == [there.model_id]


async def test_bars_that_change_between_two_reports_are_believed_no_more(house: House) -> None:
    await house.up()
    await admitted(house, candidate(a_preset(20)))
    await house.tell(candidate(a_preset(30)))
    order = (await house.until_said(EvidenceOrdered, 2))[-1]
    given = answer(order)
    assert given.span is not None
    await house.tell(msgspec.structs.replace(given, span=msgspec.structs.replace(given.span, data_sha256="f" * 64)))

    (refused,) = await house.until_said(PresetRefused)

    assert refused.reasons[0].startswith("evidence: these bars had the hash eeeeeeeeeeee before")


async def test_the_demo_gate_does_not_stand_in_live_mode(house: House) -> None:
    with pytest.raises(NeedsOperator, match="not for live trading"):
        await house.up(mode="live")


async def test_a_restart_in_the_middle_of_an_application_goes_on_with_it(house: House) -> None:
    await house.up()
    await admitted(house, candidate(a_preset(20)))
    await house.tell(candidate(a_preset(30)))
    order = (await house.until_said(EvidenceOrdered, 2))[-1]
    await house.down()
    await house.up()
    await house.tell(answer(order))

    lines = await house.until_judged(2)

    assert verify(lines)[1] is None
    assert len(house.all(PresetPromoted)) == 2


async def test_killed_at_any_point_each_verdict_is_given_once_and_the_chain_is_whole(
    tmp_path: Path, nats_server: Server, nats_bus: NatsBus
) -> None:
    around = Around(nats_bus)
    await around.begin()
    governor = Process(tmp_path / "killed", nats_server.url)
    await governor.start()
    for n, entry in enumerate((20, 30, 40)):
        await around.tell(candidate(a_preset(entry)))
        if n == 0:
            await governor.again()  # with an applicant in hand, or not yet
        order = (await around.until_said(EvidenceOrdered, n + 1))[-1]
        if n == 1:
            await governor.again()  # while it waits for evidence
        await around.tell(answer(order, msgspec.structs.replace(GOOD, sharpe=1.0 + n)))
        if n == 2:
            await governor.again()  # while it judges
    lines = await around.until_judged(3)
    await governor.kill()

    assert sorted(line.after for line in lines) == ["candidate"] * 3 + ["champion"] * 3
    assert verify(lines)[1] is None
    assert len(around.all(PresetPromoted)) == len(around.all(EvidenceOrdered)) == 3


class Process:
    """The service as the launcher starts it, to be killed."""

    def __init__(self, folder: Path, nats_url: str) -> None:
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "TRIMTAB_DATA_DIR": str(folder),
            "TRIMTAB_NATS_URL": nats_url,
            "TRIMTAB_PORT_BASE": "0",
            "TRIMTAB_GOVERNOR_PROFILE": "demo",
            "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cli",
            "run",
            "governor",
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self._process.stdout.readline():
                if json.loads(line)["event"] == "ready":
                    return
        raise AssertionError("It ended before it was ready.")

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signals.SIGKILL)
        await self._process.communicate()

    async def again(self) -> None:
        await self.kill()
        await self.start()


# routes


async def test_the_record_is_read_from_where_one_left_off_and_checked_from_disk(house: House) -> None:
    await house.up()
    for entry in (20, 30, 40):
        await admitted(
            house, candidate(a_preset(entry))
        )  # a line for the opening of its holdout, and one for the verdict
    async with house.client(token="") as client:
        whole = (await client.get("/governance/log")).json()
        rest = (await client.get("/api/v1/governance/log?after=2")).json()
        verdict = (await client.get("/governance/verify")).json()

    assert [line["sequence"] for line in whole["log"]] == [1, 2, 3, 4, 5, 6]
    assert rest["log"] == whole["log"][2:]
    assert whole["last_hash"] == whole["log"][-1]["hash"] == verdict["last_hash"]
    assert (verdict["valid"], verdict["lines"]) == (True, 6)


@pytest.mark.parametrize(
    ("tampering", "at"),
    [
        ("update record set body = replace(body, 'champion', 'refused') where sequence = 2", 2),
        ("delete from record where sequence = 6", 6),
        ("update record set body = '{}' where sequence = 1", None),
    ],
)
async def test_a_record_that_was_tampered_with_on_disk_is_found_out(
    house: House, tampering: str, at: int | None
) -> None:
    await house.up()
    for entry in (20, 30, 40):
        await admitted(house, candidate(a_preset(entry)))
    with sqlite3.connect(house.folder / "governor.sqlite") as forger:
        forger.execute(tampering)
    forger.close()
    async with house.client() as client:
        verdict = (await client.get("/governance/verify")).json()

    assert (verdict["valid"], verdict["fault_at"]) == (False, at)
    assert verdict["detail"]


async def test_a_person_demotes_and_promotes_with_a_reason_that_is_kept(house: House) -> None:
    await house.up()
    said = candidate()
    await admitted(house, said)
    path = f"/governance/preset/{said.preset_id}"
    body = {"reason": "it frightens me", "actor": "ann"}
    async with house.client() as client:
        demoted = await client.post(f"{path}/demote", json=body)
        champions = (await client.get("/governance/champions")).json()
        twice = await client.post(f"{path}/demote", json=body)
        back = await client.post(f"{path}/promote", json={"reason": "slept over it"})
    lines = await house.until_judged(3)

    assert demoted.json()["log"][0]["reasons"] == ["it frightens me"]
    assert champions["presets"] == []
    assert twice.status_code == 409
    assert back.status_code == 200
    assert [(line.after, line.actor) for line in lines] == [
        ("candidate", "gate"),
        ("champion", "gate"),
        ("demoted", "ann"),
        ("champion", "admin"),
    ]
    assert verify(lines)[1] is None


async def test_deciding_by_hand_is_for_those_with_the_token_and_about_those_who_applied(house: House) -> None:
    await house.up()
    body = {"reason": "because"}
    async with house.client(token="") as nobody, house.client(token="wrong") as somebody, house.client() as admin:
        statuses = [
            (await client.post("/governance/preset/abc/promote", json=body)).status_code
            for client in (nobody, somebody, admin)
        ]
        without_reason = await admin.post("/governance/preset/abc/promote", json={})
        strange_kind = await admin.post("/governance/person/abc/promote", json=body)

    assert statuses == [401, 403, 404]
    assert without_reason.status_code == strange_kind.status_code == 422
    assert house.said == []


async def test_who_is_admitted_and_who_waits_is_shown(house: House) -> None:
    await house.up()
    await admitted(house, candidate(a_preset(20)), sharpe=2.5)
    await house.tell(candidate(a_preset(30)))
    await house.until_said(EvidenceOrdered, 2)
    async with house.client() as client:
        shown = (await client.get("/governance/champions")).json()

    assert shown["gate"] == "demo/2"
    assert [(one["symbol"], one["score"]) for one in shown["presets"]] == [("BTC-USDT", 2.5)]
    assert [one["subject_id"] for one in shown["waiting"]] == [candidate(a_preset(30)).preset_id]
