"""Presets from backtests: only what passed out of sample is proposed, with all that it takes to doubt it."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backtest_suite.candidates import candidates_in, written
from services.backtest_suite.driver import Experiment
from services.backtest_suite.presets import PresetSearch, Split, find_presets
from services.backtest_suite.run_store import RunStore
from services.governor.examination import preset_faults, preset_holdout
from shared.artifacts.presets import preset_from_bytes
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.times import timeframe_ms, to_ms
from shared.trading.strategies import BUILT_IN
from tests.pure.backtest_suite.markets import experiment, trends
from tests.pure.backtest_suite.test_walk_forward import changed_from

SPLIT = Split(least_trades=2)
AXES = {"entry": (10, 20, 40), "exit": (5, 10)}


def market(count: int = 2400) -> Experiment:
    return experiment("momentum", bars=trends(count))


def found(made: Experiment | None = None, split: Split = SPLIT, **given: Any) -> PresetSearch:
    return find_presets(made or market(), split, AXES, **given)


def test_only_what_passed_out_of_sample_becomes_a_candidate() -> None:
    search = found()
    assert 0 < len(search.passed) < len(search.tried) + 1
    for one, candidate in zip(search.passed, search.candidates("sim"), strict=True):
        test = one.found.test_figures
        assert test.net_return > 0 and test.sharpe > 0 and test.trades >= 2
        assert candidate.test_figures == test
        assert preset_from_bytes(candidate.preset, candidate.preset_id).params == one.found.params
    dear = Experiment.of(BUILT_IN["momentum"], trends(2400), costs=Costs(fee_bps=1000, slippage_bps=0))
    refused = found(dear)
    assert refused.candidates("sim") == []
    assert all("net return above 0" in one.fault for one in refused.tried)
    rare = found(split=Split(least_trades=15))
    assert all("trades at least 15" in one.fault for one in rare.tried)


def test_the_governor_finds_nothing_wrong_with_a_candidate_and_has_bars_of_its_own() -> None:
    made = market()
    candidate = found(made).candidates("sim")[0]
    assert preset_faults(candidate, BUILT_IN) == []
    assert candidate.train is not None and candidate.test is not None
    assert (candidate.train.bars, candidate.test.bars) == (1200, 600)
    assert candidate.train.last < candidate.test.first
    assert candidate.train.data_sha256 == made.bars.columns.part(0, 1200).sha256()
    assert preset_holdout(candidate, 500).bars == 600  # all that is left, up to the last bar that had closed


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_happens_in_the_holdout_changes_nothing_that_is_proposed(seed: int) -> None:
    one, other = found(), found(experiment("momentum", bars=changed_from(trends(2400), 1800, seed)))
    assert one.candidates("sim") == other.candidates("sim")


def test_what_happens_in_the_test_span_changes_no_choice_in_training() -> None:
    one, other = found(), found(experiment("momentum", bars=changed_from(trends(2400), 1200, 1)))

    def chosen(search: PresetSearch) -> list[Any]:
        return sorted(json.dumps(each.found.params) for each in search.tried)

    assert chosen(one) == chosen(other)


def test_horizons_compete_in_one_list_and_are_split_at_the_same_instants() -> None:
    search = found(timeframes=("1h", "2h"), split=Split(least_trades=2, best=20))
    assert {one.timeframe for one in search.tried} == {"1h", "2h"}
    passed = [one.found.test_figures.sharpe for one in search.passed]
    assert passed == sorted(passed, reverse=True)
    ends = {to_ms(one.found.train.last) + timeframe_ms(one.timeframe) for one in search.tried}
    assert len(ends) == 1  # training ends for both when the same bar closes
    assert {candidate.timeframe for candidate in search.candidates("sim")} <= {"1h", "2h"}
    assert search.trials == 12
    assert {candidate.trials for candidate in search.candidates("sim")} == {
        12
    }  # each is the best of both horizons' sets


def test_a_longer_bar_that_is_still_forming_at_the_split_belongs_to_the_test() -> None:
    odd = find_presets(
        market(2402), SPLIT, AXES, timeframes=("4h",)
    )  # 1,201 hours to train: 300 bars of 4h and one hour
    assert {one.found.train.bars for one in odd.tried} == {300}


def test_the_trial_count_comes_from_the_runs_database_and_only_grows(tmp_path: Path) -> None:
    with RunStore(tmp_path) as store:
        assert found(store=store).candidates("sim")[0].trials == 6
        assert found(store=store).candidates("sim")[0].trials == 6
        wider = find_presets(market(), SPLIT, {**AXES, "exit": (5, 10, 15)}, store)  # entry=10, exit=15 breaks the rule
        assert wider.candidates("sim")[0].trials == 8
        assert found(store=store).candidates("sim")[0].trials == 8  # the narrow search has not forgotten the wide one
        made = market()
        assert store.trials(made.bars.sha256, "momentum") == 8


def test_a_file_of_candidates_is_read_back_exactly_and_not_when_it_was_changed() -> None:
    candidates = found().candidates("sim")
    infinite = candidates[0].test_figures
    assert infinite is not None
    lossless = [
        msgspec.structs.replace(candidates[0], test_figures=msgspec.structs.replace(infinite, profit_factor=math.inf))
    ]
    assert candidates_in(written(candidates)) == candidates
    assert candidates_in(written(lossless)) == lossless  # JSON has no infinity: the message inside has
    told = json.loads(written(candidates))
    assert told["candidates"][0]["preset"]["strategy"] == "momentum"
    bent = bytearray(base64.b64decode(told["candidates"][0]["message"]))
    bent[len(bent) // 2] ^= 1
    told["candidates"][0]["message"] = base64.b64encode(bent).decode()
    for nonsense in (json.dumps(told).encode(), b"{}", b'{"candidates": []}', b'{"candidates": [{"message": "?"}]}'):
        with pytest.raises(BadMessage):
            candidates_in(nonsense)


def test_spans_that_are_too_short_or_leave_nothing_to_the_governor_are_refused() -> None:
    with pytest.raises(NeedsOperator, match=r"leave 0\.05 or more of the bars unseen"):
        Split(train=0.8, test=0.2)
    with pytest.raises(NeedsOperator, match=r"BTC-USDT 12h: there are 5 bars to test, 10 are needed"):
        found(market(240), timeframes=("12h",))
