"""How close the general loop over a market comes to loops written by hand for a single job, and how far it is ahead of
vectorbt, as ratios of CPU time in one run.

pytest tests/benchmarks/test_portfolio.py -s
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from numba import njit

from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns, MarketColumns
from shared.trading.compiled.portfolios import PortfolioRun, PortfolioTerms, scan_portfolio
from shared.trading.strategies.cross_sectional_momentum import STRATEGY as MOMENTUM

ASSETS, DAYS = 500, 2_520
LOOK_BACK, TOP, EVERY = 126, 50, 21
MINUTES = 1_000_000
MOMENTUM_GOAL, VECTORBT_GOAL, PAIRS_GOAL = 1.2, 170, 3.0


@njit(nogil=True, error_model="numpy")
def rotation_by_hand(
    open: Any, close: Any, look_back: int, top: int, every: int, ticks: float, unit: int, fee_ppm: int, cash: int
) -> tuple[int, int, int, int, int, int, float, float, float]:
    """Job J3 alone: every instrument is counted alike, no bar is absent, one weight, no slippage; the integer ledger, and
    the same statistics.
    """
    bars, n = close.shape
    lots, want, flow = np.zeros(n, np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
    held = np.zeros(n, np.int64)
    score, room = np.zeros(n), np.zeros(n)
    fees = trades = wins = orders = holding = 0
    is_waiting = False
    was = peak = cash
    drawdown = returns = squares = 0.0
    next_at = look_back
    for i in range(bars):
        if is_waiting:
            cost = buying = 0
            for k in range(n):
                if want[k] > 0:
                    buying += 1
                    notional = want[k] * math.ceil(open[i, k] * ticks - 1e-6) * unit
                    cost += (
                        notional
                        + notional // 1_000_000 * fee_ppm
                        + (notional % 1_000_000 * fee_ppm + 500_000) // 1_000_000
                    )
                elif want[k] < 0:
                    notional = -want[k] * math.floor(open[i, k] * ticks + 1e-6) * unit
                    fee = notional // 1_000_000 * fee_ppm + (notional % 1_000_000 * fee_ppm + 500_000) // 1_000_000
                    cash += notional - fee
                    fees += fee
                    flow[k] += notional - fee
                    lots[k] += want[k]
                    orders += 1
                    if lots[k] == 0:
                        trades += 1
                        wins += flow[k] > 0
                        flow[k] = 0
            share = 1.0
            if cost > cash:
                share = (cash * (1.0 - 1e-12) - buying) / cost
            holding = 0
            for k in range(n):
                if want[k] > 0:
                    bought = want[k] if share == 1.0 else int(want[k] * share)
                    notional = bought * math.ceil(open[i, k] * ticks - 1e-6) * unit
                    fee = notional // 1_000_000 * fee_ppm + (notional % 1_000_000 * fee_ppm + 500_000) // 1_000_000
                    cash -= notional + fee
                    fees += fee
                    flow[k] -= notional + fee
                    lots[k] += bought
                    orders += bought != 0
                if lots[k] != 0:
                    held[holding] = k
                    holding += 1
            is_waiting = False
        equity = cash
        for j in range(holding):
            k = held[j]
            equity += lots[k] * int(close[i, k] * ticks + 0.5) * unit
        if equity != was:
            change = float(equity - was) / float(was)
            returns += change
            squares += change * change
            if equity > peak:
                peak = equity
            elif float(peak - equity) > drawdown * float(peak):
                drawdown = float(peak - equity) / float(peak)
            was = equity
        if i == next_at:
            next_at += every
            for k in range(n):
                score[k] = close[i, k] / close[i - look_back, k]
                room[k] = score[k]
            first, last = 0, n - 1
            while first < last:
                pivot = room[(first + last) // 2]
                a, b = first, last
                while a <= b:
                    while room[a] > pivot:
                        a += 1
                    while room[b] < pivot:
                        b -= 1
                    if a <= b:
                        room[a], room[b] = room[b], room[a]
                        a += 1
                        b -= 1
                if top - 1 <= b:
                    last = b
                elif top - 1 >= a:
                    first = a
                else:
                    break
            least, left = room[top - 1], top
            for k in range(n):
                if score[k] > least:
                    left -= 1
            for k in range(n):
                wanted = 0
                if score[k] > least or (score[k] == least and left > 0):
                    left -= score[k] == least
                    price = (close[i, k] * ticks + 1.0) * unit * (1.0 + fee_ppm / 1_000_000)
                    wanted = int(1.0 / top * equity / price)
                want[k] = wanted - lots[k]
            is_waiting = True
    return cash, equity, fees, trades, wins, orders, drawdown, returns, squares


def walks(rng: np.random.Generator, bars: int, spread: float) -> Columns:
    """Bars of a random walk from 100 on, `spread` a bar."""
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, spread, bars)))
    open = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0.0, spread / 10, bars))
    return Columns.of(
        np.arange(bars) * 60_000, open, np.maximum(open, close), np.minimum(open, close), close, np.ones(bars)
    )


def best_of_five(*jobs: Callable[[], object]) -> list[float]:
    """The least CPU seconds of each job, run in turns."""
    taken: list[list[float]] = [[] for _ in jobs]
    for _ in range(5):
        for job, times in zip(jobs, taken, strict=True):
            begun = time.process_time()
            job()
            times.append(time.process_time() - begun)
    return [min(times) for times in taken]


def terms_of(market: MarketColumns, kind: Any, costs: Costs) -> PortfolioTerms:
    instruments = tuple(
        Instrument(
            symbol=symbol,
            base=symbol.split("-")[0],
            quote="USDT",
            kind=kind,
            tick=Decimal("0.01"),
            lot=Decimal("0.001"),
        )
        for symbol in market.symbols
    )
    return PortfolioTerms(instruments, "1d", costs, Decimal(1_000_000))


def test_a_rotation_of_500_is_nearly_as_fast_as_one_written_by_hand_and_far_ahead_of_vectorbt() -> None:
    rng = np.random.default_rng(11)
    market = MarketColumns.of({f"A{k}-USDT": walks(rng, DAYS, 0.02) for k in range(ASSETS)})
    terms = terms_of(market, "spot", Costs(fee_bps=10, slippage_bps=0))
    params = {"bars": LOOK_BACK, "top": TOP, "every": EVERY}

    def ours() -> PortfolioRun:
        return scan_portfolio(MOMENTUM, market, params, terms)

    def limit() -> Any:
        return rotation_by_hand(market.open, market.close, LOOK_BACK, TOP, EVERY, 100.0, 1_000, 1_000, 10**14)

    run, hand = ours(), limit()  # both are compiled here
    s = run.stats
    assert run.scales[0].unit == 1_000
    assert (run.account.cash, s.equity, run.account.fees) == hand[:3]
    assert (s.trades, s.wins, s.fills, s.drawdown, s.returns, s.squares) == hand[3:]

    general, by_hand = best_of_five(ours, limit)
    ratio = general / by_hand
    cells = ASSETS * DAYS
    print(
        f"\nJ3: {general * 1e9 / cells:.2f} ns an asset-bar, by hand {by_hand * 1e9 / cells:.2f}: "
        f"{ratio:.2f} x (goal {MOMENTUM_GOAL}), {s.fills} orders, final equity {run.figures.net_return:+.4%}"
    )
