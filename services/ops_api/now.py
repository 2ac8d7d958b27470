"""What is true now: the newest word on each thing, sums, and counts. Memory only; `readmodels` keeps it and folds it back."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from services.ops_api.earnings import Earnings
from shared.contracts.execution import PortfolioSnapshot, TradeClosed
from shared.contracts.governance import ModelPromoted, PresetPromoted
from shared.contracts.instruments import split_symbol
from shared.contracts.market import BarClosed
from shared.contracts.parameters import ParamDecision
from shared.contracts.regime import MarketRegime, RegimeReading
from shared.contracts.risk import BreakerTripped
from shared.contracts.wire import Message

# Messages of which the newest about each thing is remembered.
CURRENT: tuple[type[Message], ...] = (
    BarClosed,
    RegimeReading,
    MarketRegime,
    ModelPromoted,
    PresetPromoted,
    ParamDecision,
    PortfolioSnapshot,
    BreakerTripped,
)


@dataclass
class SleeveResult:
    """What one sleeve's closed trades earned, net of fees."""

    trades: int = 0
    wins: int = 0
    net_profit: Decimal = Decimal(0)


class Now:
    """One account, and the house around it."""

    def __init__(self, account: str, timeframe: str) -> None:
        self.account = account
        self.counts: Counter[str] = Counter()
        self.earnings = Earnings(timeframe)
        self.sleeve_results: dict[str, SleeveResult] = defaultdict(SleeveResult)
        self.bars: dict[str, BarClosed] = {}  # series -> the last one
        self.readings: dict[str, RegimeReading] = {}  # series ->
        self.markets: dict[str, MarketRegime] = {}  # timeframe -> how the basket was read as one
        self.models: dict[str, ModelPromoted] = {}  # series -> the model that reads it
        self.admitted: dict[str, dict[str, PresetPromoted]] = defaultdict(dict)  # sleeve -> preset id ->
        self.decisions: dict[str, ParamDecision] = {}  # sleeve -> the last one
        self.portfolio: PortfolioSnapshot | None = None
        self.breaker: BreakerTripped | None = None

    def remember(self, message: Message) -> None:
        """Take this as the newest word on what it is about."""
        match message:
            case BarClosed():
                self.bars[series_of(message)] = message
            case RegimeReading():
                self.readings[series_of(message)] = message
            case MarketRegime():
                self.markets[message.timeframe] = message
            case ModelPromoted():
                self.models[series_of(message)] = message
            case PresetPromoted():
                self.admitted[sleeve_of(message)][message.preset_id] = message
            case ParamDecision():
                self.decisions[sleeve_of(message)] = message
            case PortfolioSnapshot() if message.account == self.account:
                self.portfolio = message
            case BreakerTripped() if message.account == self.account:
                self.breaker = message
            case _:
                pass  # another account's

    def earn(self, trade: TradeClosed) -> None:
        """Add a closed trade to the sums."""
        self.earnings.book_trade(trade)
        self.earnings.currency = split_symbol(trade.symbol)[1]
        result = self.sleeve_results[sleeve_of(trade)]
        result.trades += 1
        result.wins += trade.pnl > 0
        result.net_profit += trade.pnl


def series_of(message: Any) -> str:
    """`BTC-USDT.1m`, as progress names it."""
    return f"{message.symbol}.{message.timeframe}"


def sleeve_of(message: Any) -> str:
    """`trend_follow.BTC-USDT.1m`, or as much of it as the message has."""
    parts = (getattr(message, name, "") for name in ("strategy", "symbol", "timeframe"))
    return ".".join(part for part in parts if part)


def about(message: Message) -> str:
    """The thing on which a message of a `CURRENT` kind is the newest word."""
    match message:
        case PresetPromoted():
            return f"{sleeve_of(message)}.{message.preset_id}"
        case PortfolioSnapshot() | BreakerTripped():
            return message.account
        case _:
            return sleeve_of(message)
