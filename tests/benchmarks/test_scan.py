"""How close the general loop comes to one written by hand for a single job, as a ratio of CPU time in one run.

pytest tests/benchmarks/test_scan.py -s
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.compiled import Terms, scan
from shared.trading.indicators import Sma, is_ready, sma, sma_step, value
from shared.trading.kernel import kernel
from shared.trading.scales import Scale
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long

BARS = 1_000_000
GOAL = 1.15  # times the loop by hand


class Params(NamedTuple):
    fast: int = 20  # bars
    slow: int = 100  # bars


class State(NamedTuple):
    fast: Sma
    slow: Sma


@kernel
def start(p: Params) -> State:
    return State(sma(p.fast), sma(p.slow))


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Two moving averages, nothing else: the job that every backtester is asked to do first."""
    s = State(sma_step(s.fast, bar.close), sma_step(s.slow, bar.close))
    return s, long() if is_ready(s.slow) and value(s.fast) > value(s.slow) else flat()


TREND_CROSS = strategy(
    "trend_cross",
    Params,
    start,
    step,
    bounds={"fast": (2, 200), "slow": (5, 800)},
    rule=lambda p: p.fast < p.slow,
    warmup=lambda p: p.slow,
)


@njit(nogil=True, error_model="numpy")
def by_hand(
    open: Any,
    high: Any,
    low: Any,
    close: Any,
    fast: int,
    slow: int,
    ticks: float,
    unit: int,
    fee_ppm: int,
    slippage: float,
    lots: int,
    cash: int,
) -> tuple[int, int, int, float, float, float, int, int, int, float]:
    """Job J1 for this strategy alone: ten units, next-open fills, the integer ledger, and the same statistics."""
    past_fast, past_slow = np.zeros(fast), np.zeros(slow)
    at_fast = at_slow = 0
    sum_fast = sum_slow = 0.0
    held = want = fees = 0
    was = equity = peak = cash
    staked = cash
    drawdown = returns = squares = results = 0.0
    trades = wins = orders = 0
    risk = 0.0
    is_long = False
    for i in range(close.size):
        if want != 0:
            if want > 0:
                price = math.ceil(open[i] * ticks * (1.0 + slippage) - 1e-6)
                total, first = 0.0, max(i - 14, 0)
                before = close[first - 1] if first > 0 else math.nan
                for k in range(first, i):
                    total += max(high[k], before) - min(low[k], before)
                    before = close[k]
                risk = total / (i - first) * ticks * want * unit
            else:
                price = math.floor(open[i] * ticks * (1.0 - slippage) + 1e-6)
            notional = abs(want) * price * unit
            fee = notional // 1_000_000 * fee_ppm + (notional % 1_000_000 * fee_ppm + 500_000) // 1_000_000
            cash -= fee + (notional if want > 0 else -notional)
            fees += fee
            held += want
            orders += 1
            if held == 0:
                trades += 1
                wins += cash > staked
                results += (cash - staked) / risk
                staked = cash
            want = 0
        x = close[i]
        equity = cash + held * int(x * ticks + 0.5) * unit
        if equity != was:
            change = float(equity - was) / float(was)
            returns += change
            squares += change * change
            if equity > peak:
                peak = equity
            elif float(peak - equity) > drawdown * float(peak):
                drawdown = float(peak - equity) / float(peak)
            was = equity
        sum_fast += x - past_fast[at_fast]
        past_fast[at_fast] = x
        at_fast += 1
        if at_fast == fast:
            at_fast = 0
        sum_slow += x - past_slow[at_slow]
        past_slow[at_slow] = x
        at_slow += 1
        if at_slow == slow:
            at_slow = 0
        wants_long = i >= slow - 1 and sum_fast / fast > sum_slow / slow
        if wants_long != is_long:
            is_long = wants_long
            want = lots - held if wants_long else -held
    return cash, held, fees, drawdown, returns, squares, trades, wins, orders, results


def minutes(count: int) -> Columns:
    """One-minute bars of a random walk, 15 bps a bar."""
    rng = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0015, count)))
    open = np.concatenate([[100.0], close[:-1]])
    high = np.maximum(open, close) * (1.0 + 0.0005 * rng.random(count))
    low = np.minimum(open, close) * (1.0 - 0.0005 * rng.random(count))
    return Columns.of(np.arange(count) * 60_000, open, high, low, close, np.ones(count))


def cpu_seconds(job: Callable[[], object]) -> float:
    begun = time.thread_time()
    job()
    return time.thread_time() - begun


def test_the_general_loop_is_nearly_as_fast_as_one_written_by_hand() -> None:
    bars = minutes(BARS)
    instrument = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
    costs = Costs(fee_bps=10, slippage_bps=5)
    terms = Terms(instrument, "1m", costs, Decimal(1_000_000), max_quantity=Decimal(10))
    rules = Scale.of(instrument).rules(instrument, costs)
    cash, lots = Scale.of(instrument).units(terms.cash), Scale.of(instrument).lots(Decimal(10))
    prices = (bars.open, bars.high, bars.low, bars.close)

    def limit() -> Any:
        return by_hand(*prices, 20, 100, rules.ticks, rules.unit, rules.fee_ppm, rules.slippage, lots, cash)

    run = scan(TREND_CROSS, bars, {}, terms)  # both are compiled here
    hand = limit()
    s, b = run.stats, run.sleeve.book
    assert (b.cash, b.lots, b.fees, s.drawdown, s.returns, s.squares, s.trades, s.wins, s.fills, s.results) == hand

    general: list[float] = []
    by_hand_s: list[float] = []
    for _ in range(5):
        general.append(cpu_seconds(lambda: scan(TREND_CROSS, bars, {}, terms)))
        by_hand_s.append(cpu_seconds(limit))
    ratio = min(general) / min(by_hand_s)
    print(
        f"\nJ1: {min(general) * 1e9 / BARS:.2f} ns a bar, by hand {min(by_hand_s) * 1e9 / BARS:.2f}: "
        f"{ratio:.2f} x (goal {GOAL}), {s.fills} fills, final equity {run.figures.net_return:+.4%}"
    )
