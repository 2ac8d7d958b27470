"""What a run earned: sums kept bar by bar, and the figures that are made of them at the end.

No list of returns is ever kept, so a grid of thousands of runs needs no more memory than one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Figures
from shared.contracts.times import TIMEFRAMES, timeframe_length
from shared.trading.calendars import mean_bars
from shared.trading.kernel import kernel

DAYS_PER_YEAR = 365.2425  # the mean length of the Gregorian year: all of it, for a market that never closes
ROUNDING = 1e-9  # of a mean square: a variance below it is what a million roundings left of returns that were all equal


class Stats(NamedTuple):
    """Sums over one run. Money is in ledger units."""

    equity: int  # at the last close
    peak: int  # highest equity at any close
    drawdown: float  # deepest fall below a peak, as a fraction of it
    returns: float  # sum of the bars' returns
    squares: float  # and of their squares
    trades: int  # closed, from flat to flat
    wins: int  # those that earned something net of fees
    profit: int  # of the winners
    loss: int  # of the others, >= 0
    results: float  # sum of net results in units of risk (R)
    fills: int
    shorts_refused: int  # times a strategy wanted to be short where one cannot
    charges: int  # paid for funding and borrowing, net of what was received


@kernel
def begun(cash: int) -> Stats:
    """Before the first bar."""
    return Stats(cash, cash, 0.0, 0.0, 0.0, 0, 0, 0, 0, 0.0, 0, 0, 0)


@kernel
def with_equity(s: Stats, equity: int) -> Stats:
    """After a close at which the equity was another than before. Bars without change add nothing to any sum."""
    change = float(equity - s.equity) / float(s.equity) if s.equity != 0 else 0.0
    peak = s.peak
    drawdown = s.drawdown
    if equity > peak:
        peak = equity
    elif float(peak - equity) > drawdown * float(peak):  # divide only when it is a new worst
        drawdown = float(peak - equity) / float(peak)
    return Stats(
        equity,
        peak,
        drawdown,
        s.returns + change,
        s.squares + change * change,
        s.trades,
        s.wins,
        s.profit,
        s.loss,
        s.results,
        s.fills,
        s.shorts_refused,
        s.charges,
    )


@kernel
def with_fill(s: Stats, pnl: int, risk: float, is_closed: bool) -> Stats:
    """After a fill; when it closed a trade, `pnl` is what that earned net of fees and `risk` what was at stake."""
    fills = s.fills + 1
    trades = s.trades
    wins = s.wins
    profit = s.profit
    loss = s.loss
    results = s.results
    if is_closed:
        trades += 1
        results += float(pnl) / risk if risk > 0.0 else 0.0
        if pnl > 0:
            wins += 1
            profit += pnl
        else:
            loss -= pnl
    return Stats(
        s.equity,
        s.peak,
        s.drawdown,
        s.returns,
        s.squares,
        trades,
        wins,
        profit,
        loss,
        results,
        fills,
        s.shorts_refused,
        s.charges,
    )


@kernel
def with_short_refused(s: Stats) -> Stats:
    """After a strategy wanted to be short on spot."""
    return Stats(
        s.equity,
        s.peak,
        s.drawdown,
        s.returns,
        s.squares,
        s.trades,
        s.wins,
        s.profit,
        s.loss,
        s.results,
        s.fills,
        s.shorts_refused + 1,
        s.charges,
    )


@kernel
def with_charge(s: Stats, amount: int) -> Stats:
    """After `amount` (ledger units; negative: received) was paid for holding something."""
    return Stats(
        s.equity,
        s.peak,
        s.drawdown,
        s.returns,
        s.squares,
        s.trades,
        s.wins,
        s.profit,
        s.loss,
        s.results,
        s.fills,
        s.shorts_refused,
        s.charges + amount,
    )


def figures(stats: Stats, *, bars: int, start: int, fees: float, periods_per_year: float) -> Figures:
    """The figures of a run over `bars` bars that began with `start` (ledger units); `fees` in quote currency.

    sharpe         mean / standard deviation (n - 1) of the bars' simple returns x sqrt(periods per year), riskless
                   rate 0. Source: W. F. Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994
    max_drawdown   largest (peak - equity) / peak at closes
    profit_factor  sum of winners / sum of losers; inf without a loser
    expectancy_r   mean of net result / risk at entry
    """
    sharpe = math.nan
    if bars > 1:
        mean = stats.returns / bars
        variance = (stats.squares - bars * mean * mean) / (bars - 1)
        if variance > ROUNDING * stats.squares / bars:
            sharpe = mean / math.sqrt(variance) * math.sqrt(periods_per_year)
    trades = stats.trades
    return Figures(
        bars=bars,
        trades=trades,
        net_return=(stats.equity - start) / start,
        sharpe=sharpe,
        max_drawdown=stats.drawdown,
        win_rate=stats.wins / trades if trades else math.nan,
        profit_factor=math.nan if not trades else stats.profit / stats.loss if stats.loss else math.inf,
        expectancy_r=stats.results / trades if trades else math.nan,
        fees=fees,
    )


def periods_per_year(timeframe: str, calendar: str) -> float:
    """How many bars of this timeframe a mean year of this calendar has.

    24x7  365.2425 days
    XNYS  the bars that New York's sessions have in a mean year, counted by its calendar, early closes included
    """
    length = timeframe_length(timeframe)
    if calendar == "24x7":
        return DAYS_PER_YEAR * (TIMEFRAMES["1d"] / length)
    if calendar == "XNYS":
        return mean_bars(length)
    raise NeedsOperator(f"Annual figures need a calendar with known sessions (24x7, XNYS), was {calendar!r}.")
