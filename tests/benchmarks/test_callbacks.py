"""J4: what a Python callback per bar costs, as a ratio of CPU time to a bare Python engine in the same run.

pytest tests/benchmarks/test_callbacks.py -s

The bare engine is the least that can be done in Python: next-open fills at a fixed size, costs, a mark a bar, in floats.
`callback_targets` and `execute` do more (integer ledger, statistics, exits), on bars as people want to see them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal

import numpy as np

from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.compiled import Terms, callback_targets, execute, scan
from shared.trading.compiled.callbacks import stepped_targets
from shared.trading.compiled.loops import UNKNOWN_COLUMN
from shared.trading.strategies import BUILT_IN
from shared.trading.values import Bar, Target, flat, long
from tests.benchmarks.conftest import Rounds

BARS = 300_000
FEW = 10_000  # for what takes microseconds a bar
NULL_GOAL = 3.0  # times the bare engine
SMA_GOAL = 1_000_000  # bars/s
LOTS = 10.0
LONG, FLAT = long(), flat()


def bare_engine(
    opens: list[float], closes: list[float], decide: Callable[[float], bool], cash: float, fee: float, slippage: float
) -> tuple[float, float, int]:
    """Equity at the end, deepest drawdown, orders."""
    held = want = drawdown = 0.0
    peak = cash
    orders = 0
    for open, close in zip(opens, closes, strict=True):
        if want != held:
            lots = want - held
            price = open * (1.0 + slippage) if lots > 0.0 else open * (1.0 - slippage)
            cash -= lots * price + abs(lots) * price * fee
            held = want
            orders += 1
        equity = cash + held * close
        if equity > peak:
            peak = equity
        elif peak - equity > drawdown * peak:
            drawdown = (peak - equity) / peak
        want = LOTS if decide(close) else 0.0
    return cash + held * closes[-1], drawdown, orders


class Cross:
    """SMA 20/100 by a person in a hurry."""

    __slots__ = ("at_fast", "at_slow", "fast", "past_fast", "past_slow", "seen", "slow")

    def __init__(self, fast: int = 20, slow: int = 100) -> None:
        self.past_fast, self.past_slow = [0.0] * fast, [0.0] * slow
        self.at_fast = self.at_slow = self.seen = 0
        self.fast = self.slow = 0.0

    def is_long(self, close: float) -> bool:
        at = self.at_fast
        past = self.past_fast
        self.fast = fast = self.fast + (close - past[at])
        past[at] = close
        self.at_fast = at + 1 if at + 1 < len(past) else 0
        at = self.at_slow
        past = self.past_slow
        self.slow = slow = self.slow + (close - past[at])
        past[at] = close
        self.at_slow = at + 1 if at + 1 < len(past) else 0
        self.seen = seen = self.seen + 1
        return seen >= len(past) and fast / len(self.past_fast) > slow / len(past)

    def decide(self, bar: Bar) -> Target:
        return LONG if self.is_long(bar.close) else FLAT


def minutes(count: int) -> Columns:
    rng = np.random.default_rng(7)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0015, count)))
    open = np.concatenate([[100.0], close[:-1]])
    high, low = np.maximum(open, close), np.minimum(open, close)
    return Columns.of(np.arange(count) * 60_000, open, high, low, close, np.ones(count))


def cpu_seconds(job: Callable[[], object]) -> float:
    begun = time.process_time()
    job()
    return time.process_time() - begun


def test_a_callback_costs_little_more_than_the_barest_loop_in_python(rounds: Rounds) -> None:
    bars = minutes(BARS)
    opens, closes = bars.open.tolist(), bars.close.tolist()
    btc = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
    terms = Terms(btc, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(1_000_000), max_quantity=Decimal(int(LOTS)))
    momentum, few = BUILT_IN["momentum"], bars.part(0, FEW)

    def bare(decide: Callable[[float], bool]) -> tuple[float, float, int]:
        return bare_engine(opens, closes, decide, 1e6, 0.001, 0.0005)

    jobs: dict[str, Callable[[], object]] = {
        "bare engine, null": lambda: bare(lambda close: False),
        "callback, null": lambda: execute(callback_targets(lambda bar: FLAT, bars), bars, terms),
        "bare engine, SMA": lambda: bare(Cross().is_long),
        "callback, SMA": lambda: execute(callback_targets(Cross().decide, bars), bars, terms),
        "momentum, interpreted": lambda: stepped_targets(momentum, momentum.params(), few, [UNKNOWN_COLUMN] * 3),
        "momentum, compiled": lambda: scan(momentum, bars, {}, terms),
    }
    run = execute(callback_targets(Cross().decide, bars), bars, terms, trade_from=99)  # compiled here
    equity, drawdown, orders = bare(Cross().is_long)
    assert orders == run.stats.fills
    assert abs(run.stats.equity / 1e8 / equity - 1.0) < 1e-3  # cents are rounded there and not here
    assert abs(run.figures.max_drawdown - drawdown) < 1e-3

    counts = {name: FEW if "interpreted" in name else BARS for name in jobs}
    taken = {name: min(times) * 1e9 / counts[name] for name, times in _rounds(jobs, rounds(5)).items()}  # ns a bar
    for name, each in taken.items():
        print(f"\n{name:24} {each:7.0f} ns a bar, {1e3 / each:6.2f} M bars/s", end="")
    null = taken["callback, null"] / taken["bare engine, null"]
    sma = taken["callback, SMA"] / taken["bare engine, SMA"]
    print(
        f"\nJ4: null {null:.2f} x the bare engine (goal {NULL_GOAL}), SMA {sma:.2f} x, {run.stats.fills} fills; "
        f"a strategy that does not compile is {taken['momentum, interpreted'] / taken['momentum, compiled']:.0f} x slower"
    )


def _rounds(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Alternated, so that what the machine does meanwhile falls on all alike."""
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            taken[name].append(cpu_seconds(job))
    return taken
