"""Law 2, asked from outside: whatever sees the future is found, by its column and its first bar; what does not is clean.

Leaks are planted here in every form in which people write them without meaning to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
from hmmlearn.hmm import GaussianHMM
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from services import leakcheck as verb
from services.leakcheck import candles, feature_table, fitted_on, reading_table
from services.venue_sim.market import SimulatedSeries
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.regimes.features import WARMUP_BARS, features_of
from shared.regimes.hmm import RegimeModel
from shared.trading.columns import Columns, Floats
from shared.trading.compiled import Targets, Terms
from shared.trading.kernel import kernel
from shared.trading.leakcheck import AGAIN, Leak, leaks, other_future, strategy_tables
from shared.trading.strategies import BUILT_IN
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.00001"))
TERMS = Terms(BTC, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(10_000))


def simulated(count: int) -> Columns:
    series = SimulatedSeries("BTC-USDT", seed=7)
    return Columns.of(*zip(*map(series.candle, range(count)), strict=True))


BARS = simulated(600)


def first_leak(compute: Callable[[Columns], object], bars: Columns = BARS) -> Leak:
    """The only column that leaks."""
    (leak,) = leaks(compute, bars)
    return leak


def mean_of(close: Floats, back: int, ahead: int) -> Floats:
    """The mean of the window from `back` bars before to `ahead` bars after, NaN where it is not whole."""
    if len(close) <= back + ahead:
        return np.full(len(close), math.nan)
    window = np.lib.stride_tricks.sliding_window_view(close, back + ahead + 1).mean(axis=1)
    return np.concatenate([np.full(back, math.nan), window, np.full(ahead, math.nan)])


# each planted leak: what makes the columns, which of them leaks, and the first bar that knew too much
PLANTED: dict[str, tuple[Callable[[Columns], object], str, int]] = {
    "a centred window": (
        lambda b: {"trailing": mean_of(b.close, 4, 0), "centred": mean_of(b.close, 2, 2)},
        "centred",
        2,
    ),
    "a shift the wrong way": (lambda b: {"close": b.close, "next": np.append(b.close[1:], math.nan)}, "next", 0),
    "scaling by the whole sample": (lambda b: {"z": (b.close - b.close.mean()) / b.close.std()}, "z", 0),
    "a rank among all": (lambda b: {"rank": b.close.argsort().argsort() / len(b)}, "rank", 0),
    "filling gaps backwards": (lambda b: {"filled": filled_backwards(b.close, every=10)}, "filled", 1),
    "a higher bar that has not closed": (lambda b: {"hour": hourly_close(b, has_closed=False)}, "hour", 0),
    "one leaking bar of many": (lambda b: {"peek": np.where(np.arange(len(b)) == 333, b.close[-1], 0.0)}, "peek", 333),
}


def filled_backwards(close: Floats, every: int) -> Floats:
    """Every tenth value is known, and the others are taken from the next that is."""
    known = np.arange(len(close)) // every * every
    return close[np.minimum(known + every * (np.arange(len(close)) % every > 0), len(close) - 1)]


def hourly_close(bars: Columns, *, has_closed: bool) -> Floats:
    """The close of the hour that each minute is in; or of the last that has closed, as it should be."""
    hour = bars.opened_at_ms // 3_600_000
    last = np.searchsorted(hour, hour, side="right") - 1
    ended = np.where(np.arange(len(bars)) % 60 == 59, last, np.searchsorted(hour, hour) - 1)
    return bars.close[last] if not has_closed else np.where(ended >= 0, bars.close[np.maximum(ended, 0)], math.nan)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_leak_is_found_by_its_column_and_its_first_bar(planted: str) -> None:
    compute, column, bar = PLANTED[planted]
    leak = first_leak(compute)
    assert (leak.column, leak.bar, leak.opened_at_ms) == (column, bar, int(BARS.opened_at_ms[bar]))
    assert f"{column} sees the future, first at bar {bar} (2025-01-01 " in str(leak)


@given(back=st.integers(0, 20), ahead=st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_a_window_leaks_exactly_when_it_reaches_ahead(back: int, ahead: int) -> None:
    found = leaks(lambda b: {"mean": mean_of(b.close, back, ahead)}, BARS.part(0, 200), tolerance=1e-9)
    assert [leak.bar for leak in found] == ([back] if ahead else [])


@pytest.mark.parametrize(
    "compute",
    [
        lambda b: {"hour": hourly_close(b, has_closed=True)},
        lambda b: pl.DataFrame({"close": b.close}).select(
            pl.col("close").rolling_mean(5), past=pl.col("close").shift(3)
        ),
        lambda b: Targets.of(np.where(b.close > mean_of(b.close, 9, 0), 1.0, 0.0), stop=5.0),
        lambda b: np.cumsum(b.close),
        feature_table,
    ],
    ids=["closed hours", "a frame", "targets", "one array", "our features"],
)
def test_what_looks_back_only_is_clean(compute: Callable[[Columns], object]) -> None:
    assert leaks(compute, BARS) == []


def test_columns_that_only_the_future_brings_about_are_a_leak() -> None:
    leak = first_leak(lambda b: {f"above {int(b.high.max())}": np.zeros(len(b))})
    assert (leak.was, leak.expected, leak.bar) == ("there", "not there", 0)


def test_leaks_of_a_frame_are_named_by_its_columns() -> None:
    frame = leaks(
        lambda b: (
            pl.DataFrame({"ahead": b.close})
            .with_columns(behind=pl.col("ahead"))
            .select(pl.col("behind").shift(1), pl.col("ahead").shift(-1))
        ),
        BARS,
    )
    assert [leak.column for leak in frame] == ["ahead"]


@pytest.mark.parametrize("name", BUILT_IN)
def test_our_strategies_see_no_future_in_any_tier(name: str) -> None:
    made = BUILT_IN[name]
    for tier, compute in strategy_tables(made, made.params(), TERMS).items():
        assert leaks(compute, simulated(800)) == [], tier


class Nothing(NamedTuple):
    bars: int = 1


class Seen(NamedTuple):
    bars: int


CLOSES: dict[int, float] = {}  # what the planted strategy below has seen, of every run that it was in


@kernel
def nothing_seen(p: Nothing) -> Seen:
    return Seen(0)


@kernel
def remembers(s: Seen, bar: Bar, regime: Regime, p: Nothing) -> tuple[Seen, Target]:
    """Long when the next close is known to be higher, from a run before this one."""
    CLOSES[bar.opened_at_ms] = bar.close
    return Seen(s.bars + 1), long() if CLOSES.get(bar.opened_at_ms + 60_000, 0.0) > bar.close else flat()


def test_a_strategy_that_keeps_what_it_saw_outside_of_its_state_is_found() -> None:
    CLOSES.clear()
    kept = strategy("kept", Nothing, nothing_seen, remembers, bounds={"bars": (1, 2)}, warmup=lambda p: 1)
    (leak,) = leaks(strategy_tables(kept, kept.params(), TERMS)["stepped"], BARS)
    assert leak.column == "exposure"
    rises = np.flatnonzero(np.diff(BARS.close) > 0.0)
    assert leak.bar == rises[0]
    assert (leak.was, leak.expected) == (0.0, 1.0)  # the first run knew nothing, those after it knew


def test_what_changes_from_run_to_run_is_found_even_when_the_bars_stay() -> None:
    runs: list[int] = []

    def counted(bars: Columns) -> object:
        runs.append(len(bars))
        last = runs.count(len(BARS)) if len(bars) == len(BARS) and np.array_equal(bars.close, BARS.close) else 1
        return {"runs": np.full(len(bars), float(last))}

    leak = first_leak(counted)
    assert leak.how == AGAIN


@pytest.fixture(scope="module")
def model() -> RegimeModel:
    return fitted_on(candles(BARS)[:400])


def test_regime_readings_see_no_future_and_a_smoothed_posterior_does(model: RegimeModel) -> None:
    def smoothed(bars: Columns) -> object:
        rows = [row for row in features_of(candles(bars)) if row is not None]
        oracle = GaussianHMM(3, "full", implementation="log")
        oracle.startprob_, oracle.transmat_ = np.full(3, 1 / 3), np.array(model.transition)
        oracle.means_, oracle.covars_ = np.array(model.means), np.array(model.scales)
        odds = oracle.predict_proba(np.array(rows)) if rows else np.zeros((0, 3))
        return {"first state": np.concatenate([np.full(len(bars) - len(rows), math.nan), odds[:, 0]])}

    assert leaks(lambda bars: reading_table(model, 60_000, bars), BARS, cuts=6) == []
    with threadpool_limits(1):  # matrices of three by three
        leak = first_leak(smoothed)
    assert (leak.column, leak.bar) == ("first state", WARMUP_BARS - 1)  # the first bar with features


def test_another_future_is_one_that_could_have_been() -> None:
    changed = other_future(BARS, 400, np.random.default_rng(1), 0.3)  # Columns.of refuses what is no bar
    assert np.array_equal(changed.close[:400], BARS.close[:400])
    assert not np.any(changed.close[400:] == BARS.close[400:])
    assert np.array_equal(changed.opened_at_ms, BARS.opened_at_ms)


def test_a_function_that_loses_bars_is_told_so() -> None:
    with pytest.raises(NeedsOperator, match=r"Column value must have one value for each of the 600 bars, was \(599,\)"):
        leaks(lambda b: np.diff(b.close), BARS)
    with pytest.raises(NeedsOperator, match=r"Columns of 47 bars could not be made: ValueError: .* must say NaN"):
        leaks(lambda b: np.append(np.zeros(49), np.lib.stride_tricks.sliding_window_view(b.close, 50)[:, 0]), BARS)
    with pytest.raises(NeedsOperator, match="no future in 1 bars"):
        leaks(feature_table, BARS.part(0, 1))


LEAKING = "import numpy as np\n\ndef targets(bars):\n    return np.sign(np.append(np.diff(bars.close), 0.0))\n"


def test_the_verb_answers_with_its_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(LEAKING)
    assert verb.check(f"{file}:targets", (), "", "", 300, as_json=False) == verb.EXIT_LEAK
    assert "function: value sees the future, first at bar 0 (2025-01-01 00:00)" in capsys.readouterr().out
    assert verb.check("momentum", (), "", "", 300, as_json=True) == verb.EXIT_CLEAN
    assert '"checked": ["stepped", "compiled", "hosted"], "leaks": []' in capsys.readouterr().out
    file.write_text(LEAKING.replace("np.append(np.diff(bars.close), 0.0)", "np.diff(bars.close, prepend=100.0)"))
    assert verb.check(f"{file}:targets", (), "", "", 300, as_json=False) == verb.EXIT_CLEAN
    with pytest.raises(NeedsOperator, match=r"must have a function orders\(bars\), has targets"):
        verb.check(f"{file}:orders", (), "", "", 300, as_json=False)


def test_real_hours_are_read_without_a_look_ahead(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet"
    assert verb.check("regimes", [hours], "", "", 1_000, as_json=False) == verb.EXIT_CLEAN
    assert "on 1000 bars of BTC-USDT 1h" in capsys.readouterr().out
