"""The service on a bus, with an ingester that answers real HTTP and a governor's voice."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from shared.artifacts.presets import preset_from_bytes
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import PresetCandidate, PresetPromoted, PresetRefused, StageChanged
from shared.contracts.jobs import EvidenceOrdered
from shared.contracts.subjects import EVIDENCE_GIVEN, PRESET_CANDIDATE
from shared.contracts.times import to_ms
from shared.trading.strategies import BUILT_IN
from tests.services.backtest_suite.conftest import BARS, HISTORY, MINUTE, PATIENCE_S, START, House


def place(candidate: PresetCandidate) -> dict[str, str]:
    """Whose preset it is."""
    names = ("preset_id", "venue", "strategy", "symbol", "timeframe")
    return {name: getattr(candidate, name) for name in names}


def promoted(candidate: PresetCandidate) -> PresetPromoted:
    at = candidate.proposed_at
    return PresetPromoted(**place(candidate), preset=candidate.preset, evidence_id="e", promoted_at=at)


def refused(candidate: PresetCandidate) -> PresetRefused:
    return PresetRefused(
        **place(candidate), reasons=("sharpe at least 1, was 0.2",), evidence_id="e", refused_at=candidate.proposed_at
    )


def judged_before(candidate: PresetCandidate) -> StageChanged:
    return StageChanged(
        sequence=1,
        kind="preset",
        subject_id=candidate.preset_id,
        venue=candidate.venue,
        strategy=candidate.strategy,
        symbol=candidate.symbol,
        timeframe=candidate.timeframe,
        before="refused",
        after="refused",
        reasons=("judged before",),
        profile="demo/1",
        evidence_id="e",
        actor="gate",
        changed_at=candidate.proposed_at,
        previous_hash="",
        hash="f" * 64,
    )


async def test_the_first_live_bar_makes_a_search_due_and_its_best_are_proposed(house: House) -> None:
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    found = await house.candidates()
    preset = preset_from_bytes(found[0].preset, found[0].preset_id)
    assert (preset.strategy, preset.source_hash) == ("momentum", BUILT_IN["momentum"].source)
    assert BUILT_IN["momentum"].params(preset.params)
    assert (found[0].trials, found[0].origin, found[0].proposed_at) == (10, "backtest", BARS[HISTORY].closed_at)
    train, test = found[0].train, found[0].test
    assert train is not None and test is not None
    assert (train.first, train.bars, test.bars) == (BARS[1].opened_at, 600, 300)  # the window ends at the live bar
    assert test.last < BARS[HISTORY].opened_at - 100 * MINUTE  # the governor's holdout is left alone


async def test_progress_is_held_until_the_governor_has_spoken_on_every_candidate(house: House) -> None:
    await house.up()
    await house.tell(*BARS[:HISTORY])
    await house.until_at(BARS[HISTORY - 1])
    await house.tell(BARS[HISTORY])
    first, second, third = await house.candidates()
    await house.until(lambda: house.progress[-1].holding == "verdict momentum BTC-USDT")
    await house.tell(promoted(first), refused(second))
    await house.until(lambda: len([one for one in house.progress[-1].booked if "Preset" in one]) == 2)
    assert house.progress[-1].at["BTC-USDT.1m"] == to_ms(BARS[HISTORY - 1].opened_at)
    await house.tell(judged_before(third))
    await house.until_at(BARS[HISTORY])
    assert house.progress[-1].holding == ""


async def test_the_next_search_comes_after_its_time_in_the_market_and_not_before(house: House) -> None:
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    await house.tell(*[refused(one) for one in await house.candidates()])
    await house.until_at(BARS[HISTORY])
    await house.tell(*BARS[HISTORY + 1 : HISTORY + 100])
    await house.until_at(BARS[HISTORY + 99])
    assert len(house.said(PRESET_CANDIDATE)) == 3
    assert house.progress[-1].idle_until["BTC-USDT.1m"] == to_ms(BARS[HISTORY + 100].opened_at)  # nobody need wait
    await house.tell(BARS[HISTORY + 100])
    again = await house.candidates(6)
    assert again[-1].proposed_at == BARS[HISTORY + 100].closed_at


async def test_a_restart_does_the_search_that_was_under_way_again_on_the_same_bars(house: House) -> None:
    house.ingester_is_away = True
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    async with asyncio.timeout(PATIENCE_S):
        await house.asked.wait()
    await house.down()
    assert house.said(PRESET_CANDIDATE) == []

    house.ingester_is_away = False
    await house.tell(*BARS[HISTORY + 1 : HISTORY + 5])
    await house.up()
    found = await house.candidates()
    assert {one.proposed_at for one in found} == {BARS[HISTORY].closed_at}
    assert found[0].train is not None
    assert found[0].train.first == BARS[1].opened_at

    await house.down()
    house.progress.clear()
    await house.up()
    await house.until(lambda: bool(house.progress) and house.progress[-1].holding == "verdict momentum BTC-USDT")
    assert house.said(PRESET_CANDIDATE) == found


async def test_evidence_is_given_on_the_span_that_was_ordered_or_the_reason_why_not(house: House) -> None:
    await house.up()
    await house.tell(*BARS[: HISTORY + 1])
    candidate = (await house.candidates())[0]
    order = EvidenceOrdered(
        job_id="job-1",
        worker="backtest_suite",
        subject_id=candidate.preset_id,
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        preset=candidate.preset,
        first=BARS[901].opened_at,
        last=BARS[HISTORY].opened_at,
        costs=candidate.costs or pytest.fail("a candidate tells its costs"),
        ordered_at=candidate.proposed_at,
    )
    strange = msgspec.structs.replace(order, job_id="job-2", preset=b"{}")
    early = msgspec.structs.replace(
        order, job_id="job-3", first=START - timedelta(days=9), last=START - timedelta(days=8)
    )
    await house.tell(order, strange, early)
    await house.until(lambda: len(house.said(EVIDENCE_GIVEN)) == 3)
    given, no_preset, no_bars = house.said(EVIDENCE_GIVEN)
    assert given.span is not None and given.figures is not None and given.stressed is not None
    assert (given.failure, given.span.bars, given.figures.bars, given.trials) == ("", 300, 300, 10)
    assert given.stressed.net_return <= given.figures.net_return
    assert (no_preset.figures, no_bars.figures) == (None, None)
    assert "Expected the preset" in no_preset.failure
    assert "There are no bars of BTC-USDT" in no_bars.failure


async def test_a_strategy_that_nobody_knows_stops_the_service_with_the_nearest_name(house: House) -> None:
    with pytest.raises(NeedsOperator, match="Did you mean 'momentum'"):
        await house.up(strategies="momentun")
