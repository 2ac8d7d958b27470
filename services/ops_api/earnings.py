"""What trading earned: folded trade by trade and close by close, so that a figure costs nothing when it is asked for.

The sums and the figures are those of backtests (shared/trading/performance), in units of 1e-8 of the settlement
currency; what is added here is only what a person wants beside them.
"""

from __future__ import annotations

import math
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

import msgspec

from shared.contracts.execution import TradeClosed
from shared.contracts.times import timeframe_length
from shared.trading.performance import Stats, begun, figures, periods_per_year, with_equity, with_fill

DECIMALS = 8
CALENDAR = "24x7"
CONFIDENCE = 0.95
Z = 1.959963984540054  # the standard normal's quantile at (1 + CONFIDENCE) / 2


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """Where the true value lies with this confidence."""

    low: float
    high: float
    confidence: float = CONFIDENCE


class TradeStats(msgspec.Struct, frozen=True, kw_only=True):
    """What closed trades earned, net of fees, and how the account's equity went. NaN (null in JSON) is unknown.

    win_rate       fraction of closed trades that earned something net of fees, with Wilson's interval
    sharpe         mean / standard deviation of the equity's simple returns a bar, annualised by the calendar 24x7; a
                   bar without a snapshot is one without change
    max_drawdown   largest (peak - equity) / peak at the close of a bar, a fraction
    profit_factor  what winners earned / what losers lost; unknown without a loser
    expectancy_r   mean of net result / risk at entry
    """

    total_trades: int
    win_rate: float
    win_rate_interval: Interval
    sharpe: float
    max_drawdown: float
    fees: float
    net_profit: float
    profit_factor: float
    expectancy_r: float
    average_win: float
    average_loss: float  # >= 0
    best_trade: float
    worst_trade: float
    equity_start: float
    equity_end: float
    net_return: float  # of the equity, open positions included
    currency: str
    timeframe: str
    bars: int  # over which the equity was watched
    n: int  # trades that the figures of trades rest on
    since: datetime | None = msgspec.field(name="from", default=None)  # first thing seen of the account
    until: datetime | None = msgspec.field(name="to", default=None)


class Earnings:
    """One account's sums. Fold in what happened, in its order; ask at any time."""

    def __init__(self, timeframe: str) -> None:
        self._timeframe = timeframe
        self._per_year = periods_per_year(timeframe, CALENDAR)
        self._curve: Stats | None = None
        self._trades = begun(0)
        self._start = 0
        self._fees = self._net = Decimal(0)
        self._best = self._worst = math.nan
        self._curve_from: datetime | None = None
        self._curve_to: datetime | None = None
        self._since: datetime | None = None
        self._until: datetime | None = None
        self.currency = ""

    def book_trade(self, trade: TradeClosed) -> None:
        """A trade went from flat to flat."""
        self._trades = with_fill(self._trades, _units(trade.pnl), float(_units(trade.risk)), True)
        self._fees += trade.fees
        self._net += trade.pnl
        pnl = float(trade.pnl)
        self._best = pnl if not pnl <= self._best else self._best
        self._worst = pnl if not pnl >= self._worst else self._worst
        self._seen(trade.opened_at)
        self._seen(trade.closed_at)

    def book_snapshot(self, at: datetime, equity: Decimal) -> None:
        """The account's equity at the close of a bar."""
        units = _units(equity)
        if self._curve is None or self._curve_to is None:
            self._curve, self._start, self._curve_from = begun(units), units, at
        else:
            self._curve = with_equity(self._curve, units)
        self._curve_to = at
        self._seen(at)

    def stats(self) -> TradeStats:
        """The figures of everything folded in so far."""
        curve = self._curve or begun(0)
        made = curve._replace(
            trades=self._trades.trades,
            wins=self._trades.wins,
            profit=self._trades.profit,
            loss=self._trades.loss,
            results=self._trades.results,
        )
        bars = 0
        if self._curve_from is not None and self._curve_to is not None:
            bars = (self._curve_to - self._curve_from) // timeframe_length(self._timeframe)
        known = figures(
            made, bars=bars, start=self._start or 1, fees=float(self._fees), periods_per_year=self._per_year
        )
        losers = made.trades - made.wins
        return TradeStats(
            total_trades=made.trades,
            win_rate=known.win_rate,
            win_rate_interval=wilson_interval(made.wins, made.trades),
            sharpe=known.sharpe,
            max_drawdown=known.max_drawdown if self._curve else math.nan,
            fees=known.fees,
            net_profit=float(self._net),
            profit_factor=known.profit_factor if losers else math.nan,
            expectancy_r=known.expectancy_r,
            average_win=_amount(made.profit) / made.wins if made.wins else math.nan,
            average_loss=_amount(made.loss) / losers if losers else math.nan,
            best_trade=self._best,
            worst_trade=self._worst,
            equity_start=_amount(self._start) if self._curve else math.nan,
            equity_end=_amount(curve.equity) if self._curve else math.nan,
            net_return=known.net_return if self._curve else math.nan,
            currency=self.currency,
            timeframe=self._timeframe,
            bars=bars,
            n=made.trades,
            since=self._since,
            until=self._until,
        )

    def _seen(self, at: datetime) -> None:
        self._since = at if self._since is None else min(self._since, at)
        self._until = at if self._until is None else max(self._until, at)


def wilson_interval(wins: int, n: int) -> Interval:
    """Wilson's score interval of a proportion; unknown without a trial.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22, 1927.
    """
    if n == 0:
        return Interval(low=math.nan, high=math.nan)
    p, shrink = wins / n, 1.0 + Z * Z / n
    center = (p + Z * Z / (2 * n)) / shrink
    half = Z / shrink * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return Interval(low=max(0.0, center - half), high=min(1.0, center + half))


def _units(amount: Decimal) -> int:
    return int(amount.scaleb(DECIMALS).to_integral_value(ROUND_HALF_UP))


def _amount(units: int) -> float:
    return float(Decimal(units).scaleb(-DECIMALS))
