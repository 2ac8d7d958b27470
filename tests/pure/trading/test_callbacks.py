"""Three ways to say what to hold, one way to execute it: the same decisions earn the same, and fail at the same bar."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns, Floats
from shared.trading.compiled import Failure, Run, Terms, callback_targets, execute, loops, scan, vector_targets
from shared.trading.compiled.targets import Targets
from shared.trading.indicators import Sma, sma, sma_step, value
from shared.trading.kernel import kernel, same
from shared.trading.strategy import Strategy, strategy
from shared.trading.values import Bar, Regime, Target, flat, long
from tests.pure.trading.test_same_bits import EVERY, QUICK, any_bars, any_detailed_terms, any_terms

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
TERMS = Terms(BTC, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(10_000))


class Params(NamedTuple):
    bars: int = 8
    fails_at: float = 0.0  # a close


class State(NamedTuple):
    mean: Sma


@kernel
def start(p: Params) -> State:
    return State(sma(p.bars))


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Long above an average; divides by zero at one close."""
    s = State(sma_step(s.mean, bar.close))
    doubt = 1.0 / (bar.close - p.fails_at)
    return s, long() if bar.close > value(s.mean) and doubt != 0.0 else flat()


ABOVE = strategy(
    "above", Params, start, step, bounds={"bars": (1, 99), "fails_at": (0.0, 1e9)}, warmup=lambda p: p.bars
)


class Above:
    """The same as a person would write it who never heard of kernels."""

    def __init__(self, bars: int, fails_at: float = 0.0) -> None:
        self.past: list[float] = []
        self.bars, self.fails_at = bars, fails_at
        self.total = 0.0

    def __call__(self, bar: Bar) -> Target:
        dropped = self.past[-self.bars] if len(self.past) >= self.bars else 0.0
        self.total += bar.close - dropped
        self.past.append(bar.close)
        doubt = 1.0 / (bar.close - self.fails_at)
        is_long = len(self.past) >= self.bars and bar.close > self.total / self.bars and doubt != 0.0
        return Target(1.0 if is_long else 0.0)


def above(bars: Columns, length: int) -> Floats:
    """The same over whole columns, with the sums in the same order."""
    dropped = np.concatenate([np.zeros(length), bars.close])[: len(bars)]
    total = np.cumsum(bars.close - dropped)  # one after the other
    return np.where((np.arange(len(bars)) >= length - 1) & (bars.close > total / length), 1.0, 0.0)


def walk(count: int, seed: int = 1) -> Columns:
    rng = np.random.default_rng(seed)
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.004, count))), 2)
    open = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open, close), np.minimum(open, close)
    return Columns.of(np.arange(count) * 60_000, open, high, low, close, np.ones(count))


def decided_first(of: Strategy, bars: Columns, params: dict[str, Any], terms: Terms = TERMS) -> Run:
    """The run of a strategy that numba could not compile."""
    known, loops._loops = (
        loops._loops,
        {(of.source, events): loops.decided_loop(of, events) for events in (loops.PLAIN, loops.IN_DETAIL)},
    )
    try:
        return scan(of, bars, params, terms, with_fills=True)
    finally:
        loops._loops = known


def fused(of: Strategy, bars: Columns, params: dict[str, Any]) -> Run:
    return scan(of, bars, params, TERMS, with_fills=True)


def called_back(of: Strategy, bars: Columns, params: dict[str, Any]) -> Run:
    return execute(callback_targets(Above(**params), bars), bars, TERMS, trade_from=params["bars"] - 1, with_fills=True)


TIERS: dict[str, Callable[[Strategy, Columns, dict[str, Any]], Run]] = {
    "fused": fused,
    "decided first": decided_first,
    "callback": called_back,
}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 400), length=st.integers(1, 40))
def test_a_kernel_a_callback_and_a_function_over_columns_earn_the_same_to_the_last_unit(
    seed: int, count: int, length: int
) -> None:
    bars = walk(count, seed)
    one = fused(ABOVE, bars, {"bars": length})
    vector = execute(vector_targets(above, bars, length), bars, TERMS, trade_from=length - 1, with_fills=True)
    for other in (
        decided_first(ABOVE, bars, {"bars": length}),
        called_back(ABOVE, bars, {"bars": length}),
        vector,
    ):
        assert same(one.sleeve.book, other.sleeve.book)
        assert same(one.stats, other.stats)
        assert np.array_equal(one.fills, other.fills)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25, deadline=None)
@given(data=st.data(), bars=any_bars(), terms=any_terms() | any_detailed_terms())
def test_every_strategy_earns_the_same_when_python_decides_first(
    name: str, data: st.DataObject, bars: Columns, terms: Terms
) -> None:
    params = data.draw(QUICK[name])
    one = scan(EVERY[name], bars, params, terms, with_fills=True)
    other = decided_first(EVERY[name], bars, params, terms)
    assert same(one.sleeve, other.sleeve)
    assert same(one.stats, other.stats)
    assert np.array_equal(one.fills, other.fills)


@pytest.mark.parametrize("tier", TIERS)
def test_a_division_by_zero_is_told_by_its_bar_time_and_values_in_every_tier(tier: str) -> None:
    bars = walk(25_000)
    at = 20_017  # in the second portion of bars that Python is handed
    params = {"bars": 8, "fails_at": float(bars.close[at])}
    first = int(np.argmax(bars.close == bars.close[at]))
    with pytest.raises(Failure) as told:
        TIERS[tier](ABOVE, bars, params)
    assert isinstance(told.value.__cause__, ZeroDivisionError)
    assert str(told.value).endswith(
        f" raised ZeroDivisionError at bar {first} "
        f"({np.datetime_as_string(np.datetime64(first, 'm'), 'm').replace('T', ' ')}, "
        f"open={bars.open[first]!s} high={bars.high[first]!s} low={bars.low[first]!s} close={bars.close[first]!s} "
        f"volume=1.0): float division by zero"
    )


def test_a_failure_late_in_the_portion_names_the_right_bar() -> None:
    bars = walk(45_000)

    def fails_late(bar: Bar) -> Target:
        return flat() if bar.opened_at_ms < 41_234 * 60_000 else long(1.0 / 0.0)

    with pytest.raises(Failure, match=r"raised ZeroDivisionError at bar 41234 "):
        callback_targets(fails_late, bars)


def test_a_sleeve_that_refused_before_its_strategy_raised_is_told_as_refused_in_every_tier() -> None:
    class Greedy(NamedTuple):
        nothing: int = 0

    @kernel
    def begin(p: Greedy) -> Seen:
        return Seen(0)

    @kernel
    def twice_then_raise(s: Seen, bar: Bar, regime: Regime, p: Greedy) -> tuple[Seen, Target]:
        """Asks for twice its equity on bar 5, and raises on bar 9."""
        doubt = 1.0 / float(9 - s.bars)
        return Seen(s.bars + 1), long(2.0 if s.bars == 5 and doubt > 0.0 else 0.0)

    greedy = strategy("greedy", Greedy, begin, twice_then_raise, bounds={"nothing": (0, 1)}, warmup=lambda p: 0)
    for tier in (fused, decided_first):
        with pytest.raises(Failure, match=r"exposure must be a number in -1\.\.1, at bar 5 ") as told:
            tier(greedy, walk(20), {})
        assert "greedy Greedy(nothing=0)" in str(told.value)


class Seen(NamedTuple):
    bars: int


def test_a_callback_that_says_no_target_is_told_which_bar_it_was() -> None:
    def half(bar: Bar) -> Any:
        return 0.5 if bar.opened_at_ms == 7 * 60_000 else flat()

    with pytest.raises(Failure, match=r"half raised TypeError at bar 7 .* must say a Target, said 0\.5"):
        callback_targets(half, walk(20))


def test_a_callback_may_say_every_kind_of_exit() -> None:
    bars = walk(600)

    def decide(bar: Bar) -> Target:
        is_long = bar.opened_at_ms // 60_000 % 40 < 30
        return long(0.5, stop=0.8, take_profit=1.5, trail=1.0, max_bars=12) if is_long else flat()

    minute = np.arange(600) % 40 < 30
    by_hand = Targets.of(
        np.where(minute, 0.5, 0.0),
        np.where(minute, 0.8, math.nan),
        np.where(minute, 1.5, math.nan),
        np.where(minute, 1.0, math.nan),
        np.where(minute, 12, 0),
    )
    told = callback_targets(decide, bars)
    for mine, expected in zip(told.all(), by_hand.all(), strict=True):
        assert np.array_equal(mine, expected, equal_nan=True)
    assert execute(told, bars, TERMS).stats.trades > 10


@pytest.mark.parametrize(
    ("decide", "said"),
    [
        (lambda bars: np.where(np.arange(len(bars)) < 3, np.nan, 1.0), r"gave nan at bar 0 \(1970-01-01 00:00, open="),
        (lambda bars: np.where(np.arange(len(bars)) == 4, -1.5, 1.0), r"gave -1\.5 at bar 4 "),
        (lambda bars: np.ones(len(bars) - 1), r"one exposure for each of the 30 bars, gave \(29,\)"),
        (lambda bars: bars.closes, r"raised AttributeError, given 30 bars from 1970-01-01 00:00 to 1970-01-01 00:29: "),
    ],
)
def test_a_function_over_columns_hears_what_is_wrong_with_its_answer(
    decide: Callable[[Columns], Any], said: str
) -> None:
    with pytest.raises(Failure, match=said):
        vector_targets(decide, walk(30))


def test_a_function_over_columns_may_say_targets_with_exits() -> None:
    bars = walk(300)

    def decide(bars: Columns) -> Targets:
        return Targets.of(above(bars, 5), stop=0.5)

    assert execute(vector_targets(decide, bars), bars, TERMS).stats.trades > 10
