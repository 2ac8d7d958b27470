"""ml_service alone, on the memory bus: it reads, trains, waits for the governor, gives evidence, and resumes."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from services.ml_service.series import Series, SeriesState
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model, manifest_bytes, manifest_from_bytes, model_bytes
from shared.artifacts.signing import require_signature, signed
from shared.contracts.governance import Costs, ModelDemoted, ModelPromoted
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.market import GapFound
from shared.contracts.subjects import ALERT, EVIDENCE_GIVEN, MODEL_TRAINED, PARKED, REGIME_READING, REGIME_TRANSITION
from shared.contracts.times import to_ms
from tests.older import older_model

from .conftest import (
    A_MODEL,
    BARS,
    HISTORY,
    MINUTE,
    House,
    a_manifest,
    market,
    promoted,
    refused,
    trained_on_history,
    with_a_model,
)

LIVE_BAR = msgspec.structs.replace(BARS[101], is_history=False)


async def test_each_bar_is_read_once_and_the_past_without_a_model_is_not_told(house: House) -> None:
    await house.up(synthetic_bootstrap=False)
    await house.tell(*market(40, history=10))
    await house.tell(*market(40, history=10))  # and all of it again
    readings = await house.until_said(REGIME_READING, 30)
    await house.until_progress(lambda progress: progress.at.get("BTC-USDT.1m") == to_ms(BARS[39].opened_at))
    assert [one.opened_at for one in readings] == [bar.opened_at for bar in BARS[10:40]]
    assert {one.regime for one in readings} == {"UNKNOWN"}


async def test_the_past_is_trained_on_at_once_and_the_newest_bars_are_left_for_the_governor(house: House) -> None:
    trained = await trained_on_history(house)
    manifest = manifest_from_bytes(trained.manifest)
    assert load_model(house.server.artifacts[trained.model_id], trained.model_id).labels == manifest.labels
    assert trained.trained_on.bars == HISTORY * 0.8 and trained.trained_on.last == BARS[HISTORY * 8 // 10 - 1].opened_at
    assert manifest.held_out.last == trained.trained_on.last and not trained.is_synthetic
    assert trained.trained_at == BARS[HISTORY - 1].closed_at
    assert trained.metric_value == manifest.scores["log_likelihood"]


async def test_progress_is_held_until_the_governor_has_spoken(house: House) -> None:
    trained = await trained_on_history(house)
    await house.until_progress(lambda progress: progress.holding == "verdict BTC-USDT")
    assert all(progress.at == {} for progress in house.progress)
    await house.tell(refused(trained))
    await house.until_progress(lambda progress: progress.at == {"BTC-USDT.1m": to_ms(BARS[HISTORY - 1].opened_at)})
    assert house.progress[-1].holding == ""


async def test_that_a_holdout_was_opened_is_no_verdict(house: House) -> None:
    trained = await trained_on_history(house)
    await house.until_progress(lambda progress: progress.holding == "verdict BTC-USDT")
    line = msgspec.structs.replace(refused(trained), after="candidate", reasons=("holdout opened: 200 bars",))
    await house.tell(line)
    await house.until_progress(lambda progress: any("StageChanged" in one for one in progress.booked))
    assert house.progress[-1].holding == "verdict BTC-USDT"


async def test_a_promoted_model_reads_from_the_next_bar_on(house: House) -> None:
    trained = await with_a_model(house)
    await house.tell(*BARS[HISTORY:])
    readings = await house.until_said(REGIME_READING, len(BARS) - HISTORY)
    assert {one.model_id for one in readings} == {trained.model_id}
    assert len({one.regime for one in readings}) >= 2
    transitions = house.said(REGIME_TRANSITION)
    assert transitions[0].before == "UNKNOWN" and transitions[0].after == readings[0].regime


async def test_a_demoted_model_leaves_unknown_from_the_next_bar_on(model_in_use: House) -> None:
    await model_in_use.tell(BARS[100])
    read = (await model_in_use.until_said(REGIME_READING))[0]
    demoted = ModelDemoted(
        model_id=read.model_id,
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        reason="drift",
        demoted_at=BARS[100].closed_at,
    )
    await model_in_use.tell(demoted)
    await model_in_use.until_progress(lambda progress: any("ModelDemoted" in one for one in progress.booked))
    await model_in_use.tell(LIVE_BAR)
    assert [one.regime == "UNKNOWN" for one in await model_in_use.until_said(REGIME_READING, 2)] == [False, True]


async def test_the_past_is_not_over_while_the_ingester_holds_bars_that_were_not_told(house: House) -> None:
    house.held.update({(bar.symbol, to_ms(bar.opened_at)): bar for bar in BARS[:HISTORY]})
    await house.up()
    await house.tell(*BARS[:600])
    async with asyncio.timeout(20):
        await house.asked.wait()  # no bar came for a while: it asks what is still to come
    assert house.said(MODEL_TRAINED) == []
    await house.tell(*BARS[600:HISTORY])
    trained = (await house.until_said(MODEL_TRAINED))[0]
    assert trained.trained_on.last == BARS[HISTORY * 8 // 10 - 1].opened_at


async def test_a_restart_goes_on_with_the_bits_of_a_run_without_one(model_in_use: House) -> None:
    await model_in_use.tell(*BARS[100:160])
    await model_in_use.until_said(REGIME_READING, 60)
    await model_in_use.down()
    await model_in_use.up(synthetic_bootstrap=False, min_train_bars=2_000, train_bars=3_000)
    await model_in_use.tell(*BARS[160:220])
    readings = await model_in_use.until_said(REGIME_READING, 120)
    assert [one.opened_at for one in readings] == [bar.opened_at for bar in BARS[100:220]]

    whole = Series(SeriesState(venue="sim", symbol="BTC-USDT", timeframe="1m"))
    for bar in BARS[:100]:
        whole.on_bar(bar)
    whole.use(A_MODEL, readings[0].model_id, to_ms(BARS[99].closed_at), {})
    assert [one.reading_hash for one in readings] == [whole.on_bar(bar)[0].reading_hash for bar in BARS[100:220]]


async def test_a_restart_still_waits_for_the_governor(house: House) -> None:
    trained = await trained_on_history(house)
    await house.until_progress(lambda progress: progress.holding == "verdict BTC-USDT")
    await house.down()
    house.progress.clear()
    house.server.artifacts.clear()
    await house.up()
    await house.until_progress(lambda progress: progress.holding == "verdict BTC-USDT")
    assert trained.model_id in house.server.artifacts, "what the bucket lost is there again"
    await house.tell(promoted(trained, BARS[HISTORY - 1].closed_at))
    await house.until_progress(lambda progress: not progress.holding)
    await house.tell(BARS[HISTORY])
    assert (await house.until_said(REGIME_READING))[0].model_id == trained.model_id


async def test_a_new_training_is_due_after_so_many_bars_of_venue_time(house: House) -> None:
    await house.up(retrain_bars=100)
    await house.tell(*BARS[:HISTORY])
    first = (await house.until_said(MODEL_TRAINED))[0]
    await house.tell(refused(first))
    await house.until_progress(lambda progress: not progress.holding)
    await house.tell(*BARS[HISTORY : HISTORY + 100])
    second = (await house.until_said(MODEL_TRAINED, 2))[1]
    assert second.trained_at == BARS[HISTORY + 99].closed_at and second.model_id != first.model_id


async def test_a_successor_says_whose_names_it_carries_on_and_how_far_they_agree(house: House) -> None:
    await house.up(retrain_bars=100)
    await house.tell(*BARS[:HISTORY])
    first = (await house.until_said(MODEL_TRAINED))[0]
    await house.tell(promoted(first, BARS[HISTORY - 1].closed_at))
    await house.until_progress(lambda progress: not progress.holding)
    await house.tell(*BARS[HISTORY : HISTORY + 100])
    second = (await house.until_said(MODEL_TRAINED, 2))[1]
    manifest = manifest_from_bytes(second.manifest)
    assert manifest.matched_to == first.model_id and manifest.how in ("warm", "stepwise")
    assert manifest.agreement is not None and 0.5 < manifest.agreement <= 1.0
    assert manifest_from_bytes(first.manifest).agreement is None


async def test_with_too_few_bars_a_model_of_made_up_ones_is_marked(house: House) -> None:
    await house.up()
    await house.tell(*market(60, history=60))
    trained = (await house.until_said(MODEL_TRAINED))[0]
    assert trained.is_synthetic and manifest_from_bytes(trained.manifest).is_synthetic
    assert trained.trained_on.last < BARS[0].opened_at, "every real bar is unseen"


async def test_a_market_that_teaches_nothing_is_an_alert_and_holds_nothing_back(house: House) -> None:
    still = [msgspec.structs.replace(bar, open=100.0, high=100.0, low=100.0, close=100.0) for bar in BARS]
    await house.up()
    await house.tell(*still[:HISTORY])
    alert = (await house.until_said(ALERT))[0]
    assert "does not move" in alert.text and alert.name == "training_failed_BTC-USDT"
    await house.until_progress(lambda progress: "BTC-USDT.1m" in progress.at)


async def test_a_gap_is_passed_and_nothing_is_read_of_it(house: House) -> None:
    await house.up(synthetic_bootstrap=False)
    gap = GapFound(
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        first_opened_at=BARS[1].opened_at,
        last_opened_at=BARS[2].opened_at,
        bars=2,
        reason="absent",
    )
    await house.tell(BARS[0], gap)
    await house.until_progress(lambda progress: progress.at == {"BTC-USDT.1m": to_ms(BARS[2].opened_at)})
    assert house.said(REGIME_READING) == []


def job(model_id: str, first: int, last: int, job_id: str = "j1") -> EvidenceOrdered:
    return EvidenceOrdered(
        job_id=job_id,
        worker="ml_service",
        subject_id=model_id,
        venue="sim",
        strategy="",
        symbol="BTC-USDT",
        timeframe="1m",
        preset=b"",
        first=BARS[0].opened_at + first * MINUTE,
        last=BARS[0].opened_at + last * MINUTE,
        costs=Costs(fee_bps=10, slippage_bps=5),
        ordered_at=BARS[HISTORY - 1].closed_at,
    )


async def evidence(house: House, order: EvidenceOrdered) -> EvidenceGiven:
    await house.tell(order)
    await house.until(lambda: any(one.job_id == order.job_id for one in house.said(EVIDENCE_GIVEN)))
    return next(one for one in house.said(EVIDENCE_GIVEN) if one.job_id == order.job_id)


async def test_evidence_is_given_on_the_span_that_the_governor_chose(house: House) -> None:
    trained = await trained_on_history(house)
    given = await evidence(house, job(trained.model_id, 960, HISTORY - 1))
    assert given.failure == "" and given.span is not None
    assert (given.span.first, given.span.last) == (BARS[960].opened_at, BARS[HISTORY - 1].opened_at)
    assert given.span.bars == given.metrics["bars"] == 240
    assert given.metrics["log_likelihood"] > given.metrics["log_likelihood_one_gaussian"]
    assert sum(given.metrics[f"share_{name}"] for name in ("bull", "bear", "chop")) == pytest.approx(1.0)
    assert "agreement" not in given.metrics and given.trials == 1
    await house.tell(promoted(trained, BARS[HISTORY - 1].closed_at))
    again = await evidence(house, job(trained.model_id, 960, HISTORY - 1, "j2"))
    assert again.metrics == given.metrics, "the same bars give the same figures"


async def test_evidence_that_cannot_be_given_says_why_and_invents_nothing(model_in_use: House) -> None:
    known = a_manifest().model_id
    for number, (model_id, first, last, reason) in enumerate(
        (
            ("0" * 64, 0, 99, "neither in the registry"),
            (known, 5_000, 6_000, "no bars"),
            (known, 80, 99, "needs 48 bars"),
        )
    ):
        given = await evidence(model_in_use, job(model_id, first, last, f"j{number}"))
        assert reason in given.failure and given.metrics == {} and given.span is None


async def test_a_forged_model_is_parked_and_the_one_in_use_goes_on(model_in_use: House) -> None:
    sound = a_manifest().model_id
    forged = ModelPromoted(
        model_id="f" * 64,
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        manifest=manifest_bytes(msgspec.structs.replace(a_manifest(), model_id="f" * 64)),
        evidence_id="e",
        promoted_at=BARS[99].closed_at,
    )
    model_in_use.server.artifacts["f" * 64] = model_in_use.server.artifacts[sound]
    await model_in_use.tell(forged)
    assert "Expected the model ffff" in (await model_in_use.until_said(PARKED))[0].reason
    await model_in_use.tell(BARS[100])
    assert (await model_in_use.until_said(REGIME_READING))[0].model_id == sound


KEY = "the key of this house"


async def test_with_a_key_what_is_trained_is_signed_and_a_stranger_is_not_used(house: House) -> None:
    await house.up(model_key=KEY)
    await house.tell(*BARS[:HISTORY])
    trained = (await house.until_said(MODEL_TRAINED))[0]
    require_signature(manifest_from_bytes(trained.manifest), KEY.encode())
    stranger = a_manifest()
    await house.voice.put_artifact(stranger.model_id, model_bytes(A_MODEL))
    at = BARS[HISTORY - 1].closed_at
    by_a_stranger = msgspec.structs.replace(
        promoted(trained, at),
        model_id=stranger.model_id,
        manifest=manifest_bytes(signed(stranger, b"the key of somebody else")),
    )
    await house.tell(by_a_stranger, promoted(trained, at))
    assert "a signature that is not of this key" in (await house.until_said(ALERT))[0].text
    await house.until_progress(lambda progress: not progress.holding)
    await house.tell(BARS[HISTORY])
    assert (await house.until_said(REGIME_READING))[0].model_id == trained.model_id


async def test_a_model_that_was_not_signed_is_not_read_back_once_there_is_a_key(model_in_use: House) -> None:
    await model_in_use.down()
    await model_in_use.up(model_key=KEY, synthetic_bootstrap=False, min_train_bars=2_000, train_bars=3_000)
    assert "has no signature" in (await model_in_use.until_said(ALERT))[0].text
    await model_in_use.tell(LIVE_BAR)
    assert (await model_in_use.until_said(REGIME_READING))[0].regime == "UNKNOWN"


async def test_a_folder_whose_model_an_older_version_kept_is_read_without_it(model_in_use: House) -> None:
    await model_in_use.down()
    with closing(sqlite3.connect(model_in_use.folder / "ml_service.sqlite")) as kept, kept:
        (npz,) = kept.execute("select npz from models").fetchone()
        older = older_model(npz)
        kept.execute("update models set model_id = ?, npz = ?", (content_id(older), older))
        (blob,) = kept.execute("select state from series").fetchone()
        state = msgspec.msgpack.decode(blob, type=SeriesState)
        state.model_id = content_id(older)
        kept.execute("update series set state = ?", (msgspec.msgpack.encode(state),))
    await model_in_use.up(synthetic_bootstrap=False, min_train_bars=2_000, train_bars=3_000)
    assert "is read without it" in (await model_in_use.until_said(ALERT))[0].text
    await model_in_use.tell(LIVE_BAR)
    assert (await model_in_use.until_said(REGIME_READING))[0].regime == "UNKNOWN"


def fits_under_way() -> list[int]:
    """Processes of ours that fit."""
    found: list[int] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text()
            if is_ours and b"services.ml_service.fitting" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
    return found


async def test_a_stop_ends_a_training_with_its_process_and_a_start_begins_it_anew(house: House) -> None:
    await house.up(starts=50)
    await house.tell(*BARS[:HISTORY])
    await house.until_progress(lambda progress: progress.holding.startswith("training 1/50"))
    assert len(fits_under_way()) == 1
    await house.down()
    assert fits_under_way() == [] and house.said(MODEL_TRAINED) == []
    await house.up()
    await house.tell(msgspec.structs.replace(BARS[HISTORY], is_history=False))
    assert len(await house.until_said(MODEL_TRAINED)) == 1


async def test_a_training_waits_for_an_ingester_that_is_away(house: House) -> None:
    await house.up()
    house.ingester_is_away.set()
    await house.tell(*BARS[:HISTORY])
    await house.asked.wait()
    assert house.said(MODEL_TRAINED) == [] and house.said(ALERT) == []
    house.ingester_is_away.clear()
    assert len(await house.until_said(MODEL_TRAINED)) == 1
