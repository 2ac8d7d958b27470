"""How close the general loop comes to one written by hand for a single job, as a ratio of CPU time in one run.

pytest tests/benchmarks/test_scan.py -s
"""

from __future__ import annotations

import math
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pytest
from numba import njit

from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.compiled import Run, Terms, grid, scan
from shared.trading.indicators import Sma, is_ready, sma, sma_step, value
from shared.trading.kernel import kernel
from shared.trading.scales import Scale
from shared.trading.strategy import strategy
from shared.trading.values import Bar, Regime, Target, flat, long
from tests.benchmarks.conftest import Rounds

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


@njit(nogil=True, error_model="numpy")
def by_hand_in_floats(
    open: Any, close: Any, fast: int, slow: int, fee: float, slippage: float, size: float, cash: float, trades: Any
) -> tuple[float, float, float, int]:
    """Job J1 as one would write it for this strategy alone, in floats: equity, drawdown, Sharpe's sums, list of fills."""
    past_fast, past_slow = np.zeros(fast), np.zeros(slow)
    at_fast = at_slow = 0
    sum_fast = sum_slow = held = want = drawdown = returns = squares = 0.0
    was = peak = cash
    fills = 0
    for i in range(close.size):
        if want != 0.0:
            price = open[i] * (1.0 + slippage) if want > 0.0 else open[i] * (1.0 - slippage)
            paid = abs(want) * price * fee
            cash -= want * price + paid
            held += want
            if fills < len(trades):
                trades[fills, 0] = i
                trades[fills, 1] = want
                trades[fills, 2] = price
                trades[fills, 3] = paid
            fills += 1
            want = 0.0
        x = close[i]
        equity = cash + held * x
        change = equity / was - 1.0
        returns += change
        squares += change * change
        peak = max(peak, equity)
        drawdown = max(drawdown, (peak - equity) / peak)
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
        if i >= slow - 1:
            want = (size if sum_fast / fast > sum_slow / slow else 0.0) - held
    return was, drawdown, returns / math.sqrt(squares), fills


class Job(NamedTuple):
    """J1 or J2: the same strategy, costs and size over so many bars."""

    bars: Columns
    terms: Terms

    @classmethod
    def of(cls, count: int) -> Job:
        instrument = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
        costs = Costs(fee_bps=10, slippage_bps=5)
        return cls(minutes(count), Terms(instrument, "1m", costs, Decimal(1_000_000), size=Decimal(10)))

    def in_integers(self, fast: int, slow: int) -> Any:
        b, t = self.bars, self.terms
        scale = Scale.of(t.instrument)
        r, lots, cash = scale.rules(t.instrument, t.costs), scale.lots(Decimal(10)), scale.units(t.cash)
        return by_hand(b.open, b.high, b.low, b.close, fast, slow, r.ticks, r.unit, r.fee_ppm, r.slippage, lots, cash)

    def in_floats(self, fast: int, slow: int, with_list: bool) -> Any:
        trades = np.zeros((len(self.bars) if with_list else 0, 4))
        return by_hand_in_floats(self.bars.open, self.bars.close, fast, slow, 0.001, 0.0005, 10.0, 1e6, trades)

    def through_vectorbt(self, pairs: list[tuple[int, int]]) -> tuple[Any, int]:
        """Final equities and orders, drawdowns and Sharpe ratios computed: what a `Run` tells, the quickest way we know.

        Each average is made once, and columns are numpy's: with its own indexing by pairs it takes half as long again.
        """
        import vectorbt

        open, close = self.bars.open, self.bars.close
        lengths = sorted({length for pair in pairs for length in pair})
        averages = vectorbt.MA.run(close, lengths).ma.to_numpy().reshape(len(close), -1)
        fast, slow = (averages[:, [lengths.index(pair[side]) for pair in pairs]] for side in (0, 1))
        above = fast > slow
        before = np.vstack([np.zeros((2, above.shape[1]), bool), above])
        entries, exits = before[1:-1] & ~before[:-2], ~before[1:-1] & before[:-2]
        portfolio = vectorbt.Portfolio.from_signals(
            np.broadcast_to(close[:, None], above.shape),
            entries,
            exits,
            price=np.broadcast_to(open[:, None], above.shape),
            size=10.0,
            fees=0.001,
            slippage=0.0005,
            init_cash=1e6,
            freq="1min",
        )
        portfolio.max_drawdown(), portfolio.sharpe_ratio()
        return portfolio.final_value(), int(portfolio.orders.count().sum())


def ratios(jobs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU seconds of each job, alternated."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            seconds.setdefault(name, []).append(cpu_seconds(job))
    return {name: min(found) for name, found in seconds.items()}


def test_j1_is_nearly_as_fast_as_a_loop_by_hand(rounds: Rounds) -> None:
    job = Job.of(BARS)
    run = scan(TREND_CROSS, job.bars, {}, job.terms, with_fills=True)  # all are compiled here
    hand, floats = job.in_integers(20, 100), job.in_floats(20, 100, True)
    s, b = run.stats, run.sleeve.book
    assert (b.cash, b.lots, b.fees, s.drawdown, s.returns, s.squares, s.trades, s.wins, s.fills, s.results) == hand
    assert floats[3] == s.fills
    assert math.isclose(floats[0], s.equity / 1e8, rel_tol=1e-3)  # prices are rounded to ticks there
    took = ratios(
        {
            "by hand, floats, list": lambda: job.in_floats(20, 100, True),
            "by hand, floats": lambda: job.in_floats(20, 100, False),
            "by hand, integers": lambda: job.in_integers(20, 100),
            "scan": lambda: scan(TREND_CROSS, job.bars, {}, job.terms),
            "scan, list": lambda: scan(TREND_CROSS, job.bars, {}, job.terms, with_fills=True),
        },
        rounds(9),
    )
    print(f"\nJ1, {BARS:,} bars, {s.fills} fills, final equity {run.figures.net_return:+.4%}")
    for name, seconds in took.items():
        print(f"  {name:22} {seconds * 1e9 / BARS:6.2f} ns a bar")
    print(f"  with list / floats with list {took['scan, list'] / took['by hand, floats, list']:.2f} (goal 1.4)")
    print(f"  without / integers           {took['scan'] / took['by hand, integers']:.2f} (goal {GOAL})")


def test_j2_is_nearly_as_fast_as_a_loop_by_hand(rounds: Rounds) -> None:
    job = Job.of(50_000)
    pairs = [(fast, slow) for fast in range(5, 45) for slow in range(60, 185, 5)]
    table = [{"fast": fast, "slow": slow} for fast, slow in pairs]
    runs = grid(TREND_CROSS, job.bars, table, job.terms, threads=1)
    assert [run.stats.fills for run in runs if isinstance(run, Run)] == [job.in_integers(*p)[8] for p in pairs]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time(), time.perf_counter()
    grid(TREND_CROSS, job.bars, table, job.terms, threads=2)
    spent, wall = time.process_time() - begun[0], time.perf_counter() - begun[1]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    took: dict[str, list[float]] = {}
    for _ in range(rounds(5)):
        for name, run in {
            "by hand, floats": lambda: [job.in_floats(*p, False) for p in pairs],
            "by hand, integers": lambda: [job.in_integers(*p) for p in pairs],
            "grid": lambda: grid(TREND_CROSS, job.bars, table, job.terms, threads=1),
        }.items():
            start = time.process_time()  # the grid works in a thread of its own
            run()
            took.setdefault(name, []).append(time.process_time() - start)
    least = {name: min(found) for name, found in took.items()}
    print(f"\nJ2, {len(pairs)} x {len(job.bars):,} bars")
    for name, seconds in least.items():
        print(f"  {name:22} {len(pairs) * len(job.bars) / seconds / 1e6:6.0f} M bar-evaluations a CPU second")
    print(f"  grid / floats {least['grid'] / least['by hand, floats']:.2f} (goal 1.6)")
    print(f"  grid / integers {least['grid'] / least['by hand, integers']:.2f} (goal {GOAL})")
    print(
        f"  two threads: {spent:.2f} CPU s in {wall:.2f} s; peak {peak / 1024:.0f} MiB, {(peak - before) / 1024:.1f} of it new"
    )


def spun(seconds: float) -> float:
    """CPU seconds that this process gets in so many seconds, doing nothing else."""
    ends, begun = time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < ends:
        pass
    return time.process_time() - begun


def test_j2_gets_on_two_cores_what_there_is_to_get() -> None:
    """Against two processes that only spin, in turns: on a machine that others use too, two cores are never there."""
    job = Job.of(50_000)
    table = [{"fast": fast, "slow": slow} for fast in range(5, 45) for slow in range(60, 185, 5)]
    grid(TREND_CROSS, job.bars, table, job.terms, threads=2)
    got: list[tuple[float, float]] = []
    with multiprocessing.get_context("spawn").Pool(2) as spinners:
        spinners.map(spun, [0.1, 0.1], chunksize=1)  # until both have started
        for _ in range(9):
            wall, cpu = time.perf_counter(), time.process_time()
            grid(TREND_CROSS, job.bars, table, job.terms, threads=2)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            got.append((cpu / wall, sum(spinners.map(spun, [wall, wall], chunksize=1)) / wall))
    ours, theirs = (sorted(cores)[len(got) // 2] for cores in zip(*got, strict=True))
    print(f"\nJ2 on two cores: {ours:.2f} of them, two that spin {theirs:.2f}: {ours / theirs:.2f} (goal 0.9)")


@pytest.mark.timeout(900)  # its first call compiles for half a minute
def test_j1_and_j2_beside_vectorbt(rounds: Rounds) -> None:
    one, many = Job.of(BARS), Job.of(50_000)
    pairs = [(fast, slow) for fast in range(5, 15) for slow in range(60, 110, 5)]
    table = [{"fast": fast, "slow": slow} for fast, slow in pairs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer's own
        equity, orders = one.through_vectorbt([(20, 100)])
        many.through_vectorbt(pairs)
        run = scan(TREND_CROSS, one.bars, {}, one.terms, with_fills=True)
        assert orders == run.stats.fills
        assert math.isclose(float(np.asarray(equity).item()), run.stats.equity / 1e8, rel_tol=1e-3)
        grid(TREND_CROSS, many.bars, table, many.terms, threads=1)
        took: dict[str, list[float]] = {}
        for _ in range(rounds(3)):
            for name, job in {
                "J1 vectorbt": lambda: one.through_vectorbt([(20, 100)]),
                "J1 scan, list": lambda: scan(TREND_CROSS, one.bars, {}, one.terms, with_fills=True),
                "J1 scan": lambda: scan(TREND_CROSS, one.bars, {}, one.terms),
                "J2 vectorbt, 100 pairs": lambda: many.through_vectorbt(pairs),
                "J2 grid, 100 pairs": lambda: grid(TREND_CROSS, many.bars, table, many.terms, threads=1),
            }.items():
                start = time.process_time()
                job()
                took.setdefault(name, []).append(time.process_time() - start)
    least = {name: min(found) for name, found in took.items()}
    print(f"\n  J1 {least['J1 vectorbt'] / least['J1 scan, list']:.1f} x vectorbt (goal 12)")
    print(f"  without the list {least['J1 vectorbt'] / least['J1 scan']:.1f} x (goal 18)")
    print(f"  J2 {least['J2 vectorbt, 100 pairs'] / least['J2 grid, 100 pairs']:.1f} x vectorbt in chunks (goal 55)")
    print({name: round(seconds, 4) for name, seconds in least.items()})
