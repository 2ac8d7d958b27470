"""How close the general loop over a market comes to loops written by hand for a single job, and how far it is ahead of
vectorbt, as ratios of CPU time in one run.

pytest tests/benchmarks/test_portfolio.py -s
"""

from __future__ import annotations

import math
import time
import warnings
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
from shared.trading.strategies.pairs import STRATEGY as PAIRS
from tests.benchmarks.conftest import Rounds

ASSETS, DAYS = 500, 2_520
LOOK_BACK, TOP, EVERY = 126, 50, 21
MINUTES = 1_000_000
TIMES = 20
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


@njit(nogil=True, error_model="numpy")
def pairs_by_hand(
    open: Any,
    close: Any,
    bars: int,
    enter: float,
    exit: float,
    stop: float,
    ticks: float,
    unit: int,
    fee_ppm: int,
    cash: int,
) -> tuple[int, int, int, int, int, int, float, float, float]:
    """Two perpetuals alone, counted alike, no bar absent, no slippage; the integer ledger, and the same statistics."""
    xs, ys = np.zeros(bars), np.zeros(bars)
    at = seen = 0
    mean_x = mean_y = xx = xy = yy = 0.0
    side = stopped = 0.0
    lots, want, flow = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2, np.int64)
    fees = trades = wins = orders = 0
    was = peak = cash
    drawdown = returns = squares = 0.0
    for i in range(close.shape[0]):
        for k in range(2):
            if want[k] != 0:
                if want[k] > 0:
                    price = math.ceil(open[i, k] * ticks - 1e-6)
                else:
                    price = max(1, math.floor(open[i, k] * ticks + 1e-6))
                worth = want[k] * price * unit
                notional = abs(worth)
                fee = notional // 1_000_000 * fee_ppm + (notional % 1_000_000 * fee_ppm + 500_000) // 1_000_000
                cash -= worth + fee
                fees += fee
                flow[k] -= worth + fee
                lots[k] += want[k]
                orders += 1
                if lots[k] == 0:
                    trades += 1
                    wins += flow[k] > 0
                    flow[k] = 0
                want[k] = 0
        equity = cash
        for k in range(2):
            if lots[k] != 0:
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
        y, x = math.log(close[i, 0]), math.log(close[i, 1])
        old_x, old_y = xs[at], ys[at]
        xs[at], ys[at] = x, y
        at = at + 1 if at + 1 < bars else 0
        if seen < bars:
            seen += 1
            before_x, before_y = mean_x, mean_y
            mean_x += (x - mean_x) / seen
            mean_y += (y - mean_y) / seen
            xx += (x - before_x) * (x - mean_x)
            xy += (x - before_x) * (y - mean_y)
            yy += (y - before_y) * (y - mean_y)
        else:
            rise_x, rise_y = x - old_x, y - old_y
            before_x, before_y = mean_x, mean_y
            mean_x += rise_x / bars
            mean_y += rise_y / bars
            xx += rise_x * (x - mean_x + old_x - before_x)
            xy += rise_y * (x - mean_x) + rise_x * (old_y - before_y)
            yy += rise_y * (y - mean_y + old_y - before_y)
        xx, yy = max(xx, 0.0), max(yy, 0.0)
        if seen < bars:
            continue
        slope = xy / xx
        rest = (yy - slope * xy) / (bars - 2.0)
        z = (y - mean_y - slope * (x - mean_x)) / math.sqrt(rest) if rest > 1e-12 * yy else math.nan
        now = side
        if stopped != 0.0:
            if stopped * z >= -exit:
                stopped = 0.0
        elif side == 0.0:
            if slope > 0.0 and enter <= abs(z) < stop:
                now = -1.0 if z > 0.0 else 1.0
        elif abs(z) >= stop:
            now = 0.0
            stopped = side
        elif side * z >= -exit:
            now = 0.0
        if now != side:
            side = now
            for k in range(2):
                wanted = 0
                if side != 0.0:
                    weight = (side if k == 0 else -side * slope) / (1.0 + slope)
                    sign = 1.0 if weight > 0.0 else -1.0
                    price_of_lot = (close[i, k] * ticks + 1.0) * unit * (1.0 + fee_ppm / 1_000_000)
                    wanted = int(sign) * int(weight * sign * equity / price_of_lot)
                want[k] = wanted - lots[k]
    return cash, equity, fees, trades, wins, orders, drawdown, returns, squares


def by_vectorbt(market: MarketColumns) -> tuple[int, float]:
    """The rotation as vectorbt's users write it: a matrix of target weights, filled at the next open, one group that shares
    its cash. Its orders, and the final equity.

    It values a target at the open at which it is filled; we fix the quantity at the close at which it is decided.
    """
    import pandas as pd
    import vectorbt as vbt

    close, open = pd.DataFrame(market.close), pd.DataFrame(market.open)
    decided = np.arange(len(close)) >= LOOK_BACK
    decided &= (np.arange(len(close)) - LOOK_BACK) % EVERY == 0
    rank = (close / close.shift(LOOK_BACK)).loc[decided].rank(axis=1, ascending=False, method="first")
    weights = (rank <= TOP).astype(float).reindex(close.index) / TOP
    made = vbt.Portfolio.from_orders(
        close,
        size=weights.shift(1),
        size_type="targetpercent",
        price=open,
        fees=0.001,
        init_cash=1_000_000,
        cash_sharing=True,
        group_by=True,
        call_seq="auto",
        freq="1D",
    )
    made.max_drawdown(), made.sharpe_ratio()
    return int(made.orders.count()), float(made.final_value())


def walks(rng: np.random.Generator, bars: int, spread: float) -> Columns:
    """Bars of a random walk from 100 on, `spread` a bar."""
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, spread, bars)))
    open = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0.0, spread / 10, bars))
    return Columns.of(
        np.arange(bars) * 60_000, open, np.maximum(open, close), np.minimum(open, close), close, np.ones(bars)
    )


def least(rounds: int, *jobs: Callable[[], object]) -> list[float]:
    """The least CPU seconds of each job, run in turns."""
    taken: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for job, times in zip(jobs, taken, strict=True):
            begun = time.process_time()
            job()
            times.append(time.process_time() - begun)
    return [min(times) for times in taken]


def times(count: int, job: Callable[[], object]) -> Callable[[], None]:
    """The same job several times over, where once is too short to be measured."""

    def again() -> None:
        for _ in range(count):
            job()

    return again


def terms_of(market: MarketColumns, kind: Any, costs: Costs) -> PortfolioTerms:
    instruments = tuple(
        Instrument(
            symbol=symbol,
            base=symbol.split("-")[0],
            quote="USDT",
            kind=kind,
            tick=Decimal("0.0001"),
            lot=Decimal("0.0001"),
        )
        for symbol in market.symbols
    )
    return PortfolioTerms(instruments, "1d", costs, Decimal(1_000_000))


def test_a_rotation_of_500_is_nearly_as_fast_as_one_written_by_hand_and_far_ahead_of_vectorbt(
    rounds: Rounds,
) -> None:
    count, rng = rounds(TIMES), np.random.default_rng(11)
    market = MarketColumns.of({f"A{k}-USDT": walks(rng, DAYS, 0.02) for k in range(ASSETS)})
    terms = terms_of(market, "spot", Costs(fee_bps=10, slippage_bps=0))
    params = {"bars": LOOK_BACK, "top": TOP, "every": EVERY}

    def ours() -> PortfolioRun:
        return scan_portfolio(MOMENTUM, market, params, terms)

    def limit() -> Any:
        return rotation_by_hand(market.open, market.close, LOOK_BACK, TOP, EVERY, 1e4, 1, 1_000, 10**14)

    run, hand = ours(), limit()  # both are compiled here
    s = run.stats
    assert run.scales[0].unit == 1
    assert (run.account.cash, s.equity, run.account.fees) == hand[:3]
    assert (s.trades, s.wins, s.fills, s.drawdown, s.returns, s.squares) == hand[3:]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a peer's, at its import and of its pandas
        orders, final = by_vectorbt(market)
        assert abs(orders / s.fills - 1.0) < 0.02
        assert abs(final / float(run.scales[0].amount(s.equity)) - 1.0) < 0.002
        general, by_hand = (batch / count for batch in least(rounds(5), times(count, ours), times(count, limit)))
        _, peer = least(rounds(5), ours, lambda: by_vectorbt(market))
    ratio = general / by_hand
    cells = ASSETS * DAYS
    print(
        f"\nJ3: {general * 1e9 / cells:.2f} ns an asset-bar, by hand {by_hand * 1e9 / cells:.2f}: "
        f"{ratio:.2f} x (goal {MOMENTUM_GOAL}), {s.fills} orders, final equity {run.figures.net_return:+.4%}; "
        f"vectorbt {peer / general:.0f} x as long (goal {VECTORBT_GOAL}), {orders} orders, {final / 1e6 - 1.0:+.4%}"
    )


def test_a_pair_is_nearly_as_fast_as_one_written_by_hand(rounds: Rounds) -> None:
    rng = np.random.default_rng(12)
    first = walks(rng, MINUTES, 0.001)
    apart = np.exp(0.003 * np.sin(np.arange(MINUTES) / 200.0) + np.cumsum(rng.normal(0.0, 0.0001, MINUTES)))
    second = Columns.of(first.opened_at_ms, *(column * apart for column in first.all()[1:5]), first.volume)
    market = MarketColumns.of({"A-USDT-PERP": first, "B-USDT-PERP": second})
    terms = terms_of(market, "perpetual", Costs(fee_bps=1, slippage_bps=0))
    params = {"bars": 120, "enter": 2.5, "exit": 0.5, "stop": 5.0}

    def ours() -> PortfolioRun:
        return scan_portfolio(PAIRS, market, params, terms)

    def limit() -> Any:
        return pairs_by_hand(market.open, market.close, 120, 2.5, 0.5, 5.0, 1e4, 1, 100, 10**14)

    run, hand = ours(), limit()  # both are compiled here
    s = run.stats
    assert (run.account.cash, s.equity, run.account.fees) == hand[:3]
    assert (s.trades, s.wins, s.fills, s.drawdown, s.returns, s.squares) == hand[3:]

    general, by_hand = least(rounds(5), ours, limit)
    print(
        f"\npairs: {general * 1e9 / MINUTES:.1f} ns a bar of two, by hand {by_hand * 1e9 / MINUTES:.1f}: "
        f"{general / by_hand:.2f} x (goal {PAIRS_GOAL}), {s.fills} orders, {run.figures.net_return:+.4%}"
    )
