"""Walk-forward: what is told was never tuned on, is traded on one account, and says how far it fell from its promise."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.backtest_suite.data import Bars
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.walk_forward import WalkForward, walk_forward
from services.backtest_suite.windows import Scheme, windows_of
from shared.contracts.errors import NeedsOperator
from shared.contracts.times import to_ms
from shared.trading.columns import Columns
from shared.trading.strategies import BUILT_IN
from tests.pure.backtest_suite.markets import HOUR_MS, START_MS, bars_at, experiment, trends

HOUR = timedelta(hours=1)
SCHEME = Scheme(train=400 * HOUR, test=200 * HOUR)
AXES = {"fast": (5, 10, 20), "slow": (30, 60)}


def hourly(count: int) -> Any:
    return START_MS + np.arange(count) * HOUR_MS


def walked(bars: Bars | None = None, scheme: Scheme = SCHEME, **given: Any) -> WalkForward:
    return walk_forward(experiment(bars=bars), scheme, AXES, **given)


def changed_from(bars: Bars, place: int, seed: int) -> Bars:
    """The same bars up to a place, and others from there on."""
    rng = np.random.default_rng(seed)
    factor = np.where(np.arange(len(bars)) < place, 1.0, np.exp(rng.normal(0.0, 0.3, len(bars)).cumsum() / 10))
    times, *prices, volume = bars.columns.all()
    open, high, low, close = (np.round(column * factor, 2) for column in prices)
    low, high = np.minimum.reduce([open, low, close]), np.maximum.reduce([open, high, close])
    return replace(bars, columns=Columns.of(times, open, high, low, close, volume))


@given(
    bars=st.integers(50, 400),
    train=st.integers(5, 200),
    test=st.integers(2, 100),
    embargo=st.integers(0, 20),
    anchored=st.booleans(),
)
def test_test_spans_lie_end_to_end_and_training_ends_an_embargo_before_each(
    bars: int, train: int, test: int, embargo: int, anchored: bool
) -> None:
    scheme = Scheme(train * HOUR, test * HOUR, anchored, embargo)
    if train + embargo + test > bars:
        with pytest.raises(NeedsOperator, match=f"needs {train + embargo + test} bars of 1h"):
            windows_of(hourly(bars), "1h", scheme)
        return
    windows = windows_of(hourly(bars), "1h", scheme)
    assert len(windows) == (bars - train - embargo) // test
    for before, after in pairwise(windows):
        assert before.test_end == after.test_from
    for window in windows:
        assert window.test_end - window.test_from == test
        assert window.test_from - window.train_end == embargo
        assert window.train_from == (0 if anchored else window.train_end - train)


def test_a_gap_shortens_its_window_and_moves_none() -> None:
    times = np.delete(hourly(1000), slice(450, 480))
    whole, gapped = windows_of(hourly(1000), "1h", SCHEME), windows_of(times, "1h", SCHEME)
    assert [times[window.test_from] for window in gapped] == [hourly(1000)[window.test_from] for window in whole]
    assert [window.test_end - window.test_from for window in gapped] == [170, 200, 200]


@settings(max_examples=15, deadline=None)  # the first one compiles
@given(seed=st.integers(0, 2**32), window=st.integers(0, 3), anchored=st.booleans(), embargo=st.integers(0, 30))
def test_bars_after_a_training_span_change_no_choice_made_in_it(
    seed: int, window: int, anchored: bool, embargo: int
) -> None:
    scheme = Scheme(400 * HOUR, 190 * HOUR, anchored, embargo)
    one = walked(scheme=scheme)
    end = one.steps[window].window.train_end
    other = walked(changed_from(trends(), end, seed), scheme)
    assert [step.chosen for step in one.steps[: window + 1]] == [step.chosen for step in other.steps[: window + 1]]
    # And no figure of an earlier test span: the future changes nothing that was earned before.
    earlier = [i for i, step in enumerate(one.steps) if step.window.test_end <= end]
    assert [one.steps[i].out_of_sample[:3] for i in earlier] == [other.steps[i].out_of_sample[:3] for i in earlier]


def test_sets_are_drawn_before_any_bar_is_looked_at() -> None:
    one = walk_forward(experiment(), SCHEME, sets=12)
    other = walk_forward(experiment(bars=changed_from(trends(), 0, 1)), SCHEME, sets=12)
    seeded = walk_forward(experiment(seed=8), SCHEME, sets=12)
    assert one.sets == other.sets == 12
    assert [step.chosen for step in seeded.steps] != [step.chosen for step in one.steps]


def test_a_single_window_is_the_plain_run_of_what_was_chosen_in_it() -> None:
    bars = trends(600)
    one = walked(bars)
    (step,) = one.steps
    assert step.chosen is not None
    plain = experiment(bars=bars, trade_from=400).run(step.chosen.params)
    assert one.result.run.fills is not None and plain.run.fills is not None
    assert len(one.result.trades) > 0
    mine, its = one.result.run.fills, plain.run.fills
    assert mine[:, :5].tolist() == its[:, :5].tolist()
    assert mine[:, 5].tolist() == pytest.approx(
        its[:, 5].tolist(), rel=1e-6
    )  # an ATR remembers bars before the warm-up
    assert one.result.equity_final == plain.equity_final


def test_bars_that_warm_up_are_stepped_and_not_traded() -> None:
    result = walked().result
    assert result.run.fills is not None
    assert result.run.fills[:, 0].min() > 400  # decided on the first close of the first test span, filled after it
    assert (result.equity[:400] == 10_000.0).all()


def test_what_the_windows_earned_compounds_to_what_the_whole_earned() -> None:
    one = walked()
    assert len(one.steps) == 4
    growth = math.prod(1.0 + step.out_of_sample.net_return for step in one.steps)
    assert growth == pytest.approx(float(one.result.equity_final) / 10_000, rel=1e-9)
    assert one.out_of_sample.net_return == pytest.approx(growth - 1.0)
    assert sum(step.out_of_sample.trades for step in one.steps) == len(one.result.trades)


def risen(*lengths: int) -> Bars:
    """Up and down by turns, 0.2 % a bar, for so many bars each."""
    signs = np.repeat([1.0 if i % 2 == 0 else -1.0 for i in range(len(lengths))], lengths)
    return bars_at((100.0 * np.exp(0.002 * signs.cumsum())).round(2).tolist())


def test_a_position_is_carried_into_the_next_window_when_its_choice_holds_it_too() -> None:
    # Train on [0, 400): up and down. The first test span [400, 600) falls, and rises from 450 on to the very end.
    rise = risen(150, 100, 100, 100, 550)
    one = walk_forward(experiment("momentum", bars=rise), SCHEME, {"entry": (10, 15), "exit": (10,)})
    assert [step.chosen is not None for step in one.steps] == [True] * 3
    assert one.result.orders == 1  # nothing was sold and bought again at a window's edge


def test_a_newcomer_enters_on_a_change_of_its_own_target() -> None:
    # The rise began before the first test span: whoever is chosen would be long already, and was not here then.
    late = risen(150, 100, 100, 20, 630)
    one = walk_forward(experiment("momentum", bars=late), SCHEME, {"entry": (10, 15), "exit": (10,)})
    assert one.steps[0].chosen is not None
    assert one.result.orders == 0


def test_degradation_is_what_came_less_what_was_promised() -> None:
    one = walked()
    for step in one.steps:
        assert step.degradation == step.out_of_sample.sharpe - step.in_sample.sharpe
    promised = sum(step.in_sample.sharpe for step in one.steps) / 4
    assert one.in_sample_sharpe == pytest.approx(promised)
    assert one.degradation == pytest.approx(one.result.metrics.sharpe - promised)
    # Efficiency by hand: growth a bar out of sample over growth a bar in sample.
    outside = math.log(float(one.result.equity_final) / 10_000) / 800
    inside = sum(math.log1p(step.in_sample.net_return) for step in one.steps) / 1600
    assert one.efficiency == pytest.approx(outside / inside)


def test_where_no_set_trades_nothing_is_chosen_and_nothing_is_traded() -> None:
    one = walked(bars_at([100.0] * 1000))
    assert [step.chosen for step in one.steps] == [None] * 3
    assert one.result.orders == 0
    assert math.isnan(one.efficiency)
    assert one.summary()["windows"][0]["params"] is None


def test_a_window_that_is_too_short_says_how_many_bars_are_needed() -> None:
    # trend_follow warms up for 61 bars with slow=60; two tuned parameters want 30 bars each beyond that.
    needed = BUILT_IN["trend_follow"].warmup(BUILT_IN["trend_follow"].params({"slow": 60})) + 60
    with pytest.raises(NeedsOperator, match=rf"Window 1 has 100 bars to train from 2024-01-01 .* needs {needed} "):
        walked(scheme=Scheme(100 * HOUR, 200 * HOUR))
    with pytest.raises(NeedsOperator, match=r"Window 1 has 9 bars to test from .* it needs 10\. Give a longer --test"):
        walked(scheme=Scheme(400 * HOUR, 9 * HOUR))
    with pytest.raises(NeedsOperator, match=r"needs 2,400 bars of 1h .*, there are 1,200"):
        walked(scheme=Scheme(2000 * HOUR, 400 * HOUR))
    with pytest.raises(NeedsOperator, match="train > 0"):
        Scheme(0 * HOUR, HOUR)


def test_every_set_of_every_window_is_a_trial_of_the_window_and_of_the_whole(tmp_path: Path) -> None:
    made = experiment()
    with RunStore(tmp_path) as store:
        one = walk_forward(made, SCHEME, AXES, store)
        assert [step.trials for step in one.steps] == [6] * 4
        assert one.result.trials == store.trials(made.bars.sha256, "trend_follow") == 6
        again = walk_forward(made, SCHEME, AXES, store)
        assert (one.computed, again.computed, again.result.trials) == (24, 0, 6)
        wider = walk_forward(made, SCHEME, {**AXES, "fast": (5, 10, 20, 25)}, store)
        assert (wider.computed, wider.result.trials) == (8, 8)
        assert store.run(made).trials == 9  # who then runs the defaults on the whole has tried nine
    assert wider.result.result_sha256  # it can be compared with another
    assert [step.chosen for step in one.steps] == [step.chosen for step in again.steps]


def test_the_window_of_a_trade_is_that_in_which_it_was_entered() -> None:
    one = walked()
    for step in one.steps:
        times = one.result.experiment.filled_at_ms
        last = times[step.window.test_end] if step.window.test_end < len(times) else math.inf
        inside = [t for t in one.result.trades if times[step.window.test_from] <= to_ms(t.entry_at) < last]
        assert step.out_of_sample.trades == len(inside)
