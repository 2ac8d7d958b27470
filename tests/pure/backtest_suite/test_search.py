"""What a search proposes and what evidence says: decided by bars, settings and seed, and by nothing that comes later."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backtest_suite.bars import parse_columns, terms_for
from services.backtest_suite.draws import draw
from services.backtest_suite.evidence import evidence, first_needed, strategy_of
from services.backtest_suite.presets import PresetSearch, Split
from services.backtest_suite.search import Plan, search
from services.backtest_suite.settings import BacktestSettings
from shared.artifacts.presets import Preset, preset_bytes, preset_id
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.jobs import EvidenceOrdered
from shared.contracts.times import from_ms
from shared.trading.columns import Columns
from shared.trading.strategies import BUILT_IN

COSTS = Costs(fee_bps=10, slippage_bps=5)
PLAN = Plan(Split(tested=5, least_trades=2), sets=12, seed=7, threads=1)


def trends(bars: int = 1200, seed: int = 3) -> Columns:
    """Up for some hours, down for some hours, with noise: a market in which following a trend can earn."""
    rng = np.random.default_rng(seed)
    drift = 0.002 * np.where((np.arange(bars) // 60) % 2 == 0, 1.0, -1.0)
    close = 100.0 * np.exp(np.cumsum(drift + rng.normal(0.0, 0.001, bars)))
    open = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open, close) * 1.0002, np.minimum(open, close) * 0.9998
    return Columns.of(np.arange(bars) * 60_000, open, high, low, close, np.ones(bars))


def searched(bars: Columns, name: str = "momentum", plan: Plan = PLAN) -> PresetSearch:
    return search(BUILT_IN[name], bars, "BTC-USDT", "1m", COSTS, plan)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_same_bars_and_seed_give_the_same_candidates(name: str) -> None:
    one, two, other = (
        searched(trends(), name, plan) for plan in (PLAN, replace(PLAN, threads=2), replace(PLAN, seed=8))
    )
    assert one.tried
    assert one.candidates("sim") == two.candidates("sim")
    assert one.summary() == two.summary()
    assert one.summary() != other.summary()


def test_candidates_tell_what_training_and_test_showed_and_how_many_sets_were_tried() -> None:
    bars = trends()
    found = searched(bars)
    assert found.trials == 12
    assert len(found.passed) == 3
    shown = [one.found.test_figures.sharpe for one in found.passed]
    assert shown == sorted(shown, reverse=True)
    for one in found.candidates("sim"):
        assert one.train is not None and one.test is not None and one.test_figures is not None
        assert (one.trials, one.train.bars, one.test.bars, one.test_figures.bars) == (12, 600, 300, 300)
        assert one.train.last < one.test.first
        assert one.train.data_sha256 == bars.part(0, 600).sha256()


def test_the_best_in_training_is_not_proposed_when_it_fails_out_of_sample() -> None:
    bars = trends()
    plan = replace(PLAN, split=Split(tested=12, least_trades=2))
    best = max(searched(bars, plan=plan).tried, key=lambda one: one.found.train_figures.sharpe)
    assert best.fault == ""  # while the trends go on it passes
    turned = np.where((np.arange(len(bars)) >= 600) & (np.arange(len(bars)) % 2 == 0), 0.97, 1.0)  # only whipsaws now
    close = bars.close * turned
    open = np.concatenate([close[:1], close[:-1]])
    after = Columns.of(
        bars.opened_at_ms, open, np.maximum(open, close), np.minimum(open, close), close, np.ones(len(bars))
    )
    found = searched(after, plan=plan)
    again = max(found.tried, key=lambda one: one.found.train_figures.sharpe)
    assert again.found.params == best.found.params  # training has not changed
    assert "net return above 0" in again.fault
    assert again.found.params not in [one.found.params for one in found.passed]
    assert found.trials == 12  # what failed was tried all the same


def test_what_happens_in_the_holdout_changes_nothing_that_is_proposed() -> None:
    bars = trends()
    crash = np.where(np.arange(len(bars)) < 900, 1.0, 0.2)
    other = Columns.of(bars.opened_at_ms, *(column * crash for column in bars.all()[1:]))
    for name in BUILT_IN:
        assert searched(bars, name).summary() == searched(other, name).summary(), name


def test_a_market_in_which_nothing_trades_proposes_nothing() -> None:
    still = np.full(600, 100.0)
    found = searched(Columns.of(np.arange(600) * 60_000, still, still, still, still, still))
    assert (found.candidates("sim"), found.trials) == ([], 12)


def test_bars_that_are_too_few_to_be_split_are_refused_and_told_how_many_are_needed() -> None:
    with pytest.raises(NeedsOperator, match=r"there are 6 bars to train, 10 are needed"):
        searched(trends(12))


@given(seed=st.integers(0, 2**32), name=st.sampled_from(sorted(BUILT_IN)))
def test_every_drawn_set_is_one_that_the_strategy_takes(seed: int, name: str) -> None:
    strategy = BUILT_IN[name]
    drawn = draw(strategy, 20, np.random.default_rng(seed), most_warmup=300)
    assert drawn[0] == strategy.defaults
    assert len(set(drawn)) == len(drawn) == 20
    for params in drawn:
        assert strategy.params(params._asdict()) == params
        assert strategy.warmup(params) <= 300


def test_terms_are_so_fine_that_no_price_is_bent() -> None:
    for price in (0.00002, 0.7, 27_000.0):
        bars = trends()
        scaled = Columns.of(bars.opened_at_ms, *(column * (price / 100.0) for column in bars.all()[1:]))
        instrument = terms_for("BTC-USDT", "1m", scaled, COSTS).instrument
        assert price * 1e-7 < instrument.tick <= price * 1e-5
        assert price * float(instrument.lot) < 0.2


def ordered(bars: Columns, first: int, last: int, **preset: object) -> EvidenceOrdered:
    strategy = BUILT_IN["momentum"]
    made = msgspec.structs.replace(
        Preset(
            strategy=strategy.name,
            source_hash=strategy.source,
            schema_version=1,
            params={"entry": 20, "exit": 10},
            symbol="BTC-USDT",
            timeframe="1m",
            origin="backtest",
        ),
        **preset,
    )
    return EvidenceOrdered(
        job_id="job-1",
        worker="backtest_suite",
        subject_id=preset_id(made),
        venue="sim",
        strategy=strategy.name,
        symbol="BTC-USDT",
        timeframe="1m",
        preset=preset_bytes(made),
        first=from_ms(int(bars.opened_at_ms[first])),
        last=from_ms(int(bars.opened_at_ms[last])),
        costs=COSTS,
        ordered_at=from_ms(int(bars.opened_at_ms[last]) + 60_000),
    )


def test_evidence_is_on_the_governors_bars_alone_and_knows_what_slippage_does() -> None:
    bars = trends()
    order = ordered(bars, 900, 1199)
    strategy, params = strategy_of(order, BUILT_IN)
    given = evidence(order, strategy, params, bars, trials=40)
    assert given.span is not None and given.figures is not None and given.stressed is not None
    assert (given.span.bars, given.figures.bars, given.trials) == (300, 300, 40)
    assert given.span.data_sha256 == bars.part(900, 1200).sha256()
    assert given.figures.trades >= 2  # two of the rises lie within
    assert given.stressed.net_return < given.figures.net_return


def test_evidence_needs_no_more_of_the_past_than_it_asks_for() -> None:
    bars = trends()
    order = ordered(bars, 900, 1199)
    strategy, params = strategy_of(order, BUILT_IN)
    first = first_needed(order, strategy, params)
    assert order.first - first == timedelta(minutes=3 * 21)  # three warm-ups of a channel of 20 and the bar after it
    short = evidence(order, strategy, params, bars.part(900 - 3 * 21, 1200), 0)
    whole = evidence(order, strategy, params, bars, 0)
    assert short.span == whole.span
    assert short.figures is not None and whole.figures is not None
    assert short.figures.trades == whole.figures.trades
    assert short.figures.net_return == pytest.approx(whole.figures.net_return, rel=1e-3)


def test_a_preset_of_other_code_or_other_bounds_is_not_judged() -> None:
    bars = trends()
    with pytest.raises(BadMessage, match="the preset was made for 000000000000"):
        strategy_of(ordered(bars, 900, 1199, source_hash="0" * 64), BUILT_IN)
    with pytest.raises(BadMessage, match=r"entry must be within 5\.\.400, was 4000"):
        strategy_of(ordered(bars, 900, 1199, params={"entry": 4000}), BUILT_IN)
    with pytest.raises(BadMessage, match=r"Expected a strategy among .*momentum.*, was 'momentun'"):
        strategy_of(ordered(bars, 900, 1199, strategy="momentun"), BUILT_IN)


def test_a_span_without_bars_is_a_failure_and_not_a_zero() -> None:
    bars = trends()
    order = ordered(bars, 900, 1199)
    strategy, params = strategy_of(order, BUILT_IN)
    with pytest.raises(BadMessage, match="There are no bars of BTC-USDT"):
        evidence(order, strategy, params, bars.part(0, 800), 0)


def body(**columns: object) -> bytes:
    out = io.BytesIO()
    pyarrow.feather.write_feather(pa.table(columns), out, compression="uncompressed")
    return out.getvalue()


def test_an_answer_that_holds_no_bars_in_order_is_refused_with_the_bar() -> None:
    prices = {name: [1.0, 1.0] for name in ("open", "high", "low", "close")}
    with pytest.raises(BadMessage, match="Arrow file with the columns timestamp, open"):
        parse_columns(b"<html>")
    with pytest.raises(BadMessage, match="Arrow file with the columns timestamp, open"):
        parse_columns(body(timestamp=[0, 60_000]))
    with pytest.raises(BadMessage, match=r"Bar 1 .*a later time than the bar before"):
        parse_columns(body(timestamp=[60_000, 60_000], **prices, volume=[1.0, 1.0]))
    with pytest.raises(BadMessage, match=r"Bar 1 .*a finite volume"):
        parse_columns(body(timestamp=[0, 60_000], **prices, volume=[1.0, None]))


def test_a_window_that_leaves_nothing_for_the_governor_is_refused() -> None:
    with pytest.raises(ValueError, match="unseen for the governor"):
        BacktestSettings(train_share=0.7, test_share=0.3)
