"""Names and rules of what can be traded. One function each way per venue turns a venue's name into ours."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

import msgspec

from shared.contracts.errors import BadMessage

# Longest first, so that BTCUSDT is BTC-USDT and not BTCUS-DT.
QUOTES = ("FDUSD", "USDT", "USDC", "BUSD", "TUSD", "DAI", "EUR", "TRY", "BTC", "ETH", "BNB", "USD")
SYMBOL = re.compile(r"[A-Z0-9]{1,20}(?:_[A-Z0-9]{1,4})?-[A-Z0-9]{2,10}(?:-PERP)?")


class Instrument(msgspec.Struct, frozen=True, kw_only=True):
    """What the venue lets one trade, and in which steps.

    Prices are multiples of `tick`, quantities of `lot`, and an order's price x quantity is at least `min_notional`.
    `periods_per_year(timeframe)` needs `calendar`: "24x7" for crypto.
    """

    symbol: str  # "BTC-USDT"
    base: str
    quote: str
    kind: Literal["spot", "perpetual", "share"] = "spot"
    tick: Decimal  # quote units, smallest step of a price
    lot: Decimal  # base units, smallest step of a quantity
    min_notional: Decimal = Decimal(0)
    calendar: Literal["24x7", "XNYS"] = "24x7"

    def __post_init__(self) -> None:
        if self.tick <= 0 or self.lot <= 0 or self.min_notional < 0:
            raise ValueError(
                f"Instrument {self.symbol} must have tick > 0, lot > 0 and min_notional >= 0, "
                f"was tick={self.tick} lot={self.lot} min_notional={self.min_notional}"
            )


def check_symbol(symbol: str) -> str:
    """The symbol itself when it is one of ours (`BTC-USDT`), else BadMessage that shows how it is written."""
    if not SYMBOL.fullmatch(symbol):
        raise BadMessage(f"A symbol must look like BTC-USDT, BTC-USDT-PERP or AAPL-USD, was {symbol!r}.")
    return symbol


def members_of(symbol: str) -> tuple[str, ...]:
    """The instruments of a portfolio, `BTC-USDT+ETH-USDT`, in the order in which its strategy sees them; of one, itself.

    Raises BadMessage on a name that is none of ours, and when an instrument is there twice.
    """
    members = tuple(map(check_symbol, symbol.split("+")))
    if len(set(members)) < len(members):
        raise BadMessage(f"A portfolio has each instrument once, was {symbol!r}.")
    return members


def from_binance(name: str) -> str:
    """`BTCUSDT` -> `BTC-USDT`, by known quotes. Spot."""
    for quote in QUOTES:
        base = name.removesuffix(quote)
        if base != name and base:
            return check_symbol(f"{base}-{quote}")
    raise BadMessage(f"Expected a symbol that ends in one of {', '.join(QUOTES)}, was {name!r}. Pass --symbol.")


def to_binance(symbol: str) -> str:
    """`BTC-USDT` -> `BTCUSDT`. Spot."""
    base, quote = split_symbol(symbol)
    return base + quote


def from_ccxt(name: str) -> str:
    """`BTC/USDT` -> `BTC-USDT`, `BTC/USDT:USDT` -> `BTC-USDT-PERP`."""
    pair, _, settle = name.partition(":")
    return check_symbol(pair.replace("/", "-") + ("-PERP" if settle else ""))


def to_ccxt(symbol: str) -> str:
    """`BTC-USDT` -> `BTC/USDT`, `BTC-USDT-PERP` -> `BTC/USDT:USDT`."""
    base, quote = split_symbol(symbol)
    return f"{base}/{quote}:{quote}" if symbol.endswith("-PERP") else f"{base}/{quote}"


def split_symbol(symbol: str) -> tuple[str, str]:
    """`BTC-USDT` -> (`BTC`, `USDT`)."""
    base, quote = check_symbol(symbol).removesuffix("-PERP").split("-")
    return base, quote


def symbol_of_file(stem: str) -> str:
    """The symbol that a file's name tells: `BTCUSDT_1h`, `BTC_USDT-5m`, `spot-BTCUSDT-1h`; by known quotes, else an error."""
    for quote in QUOTES:
        found = re.search(rf"(?<![A-Z0-9])([A-Z0-9]{{1,20}}?)[-_/]?{quote}(?![A-Z0-9])", stem.upper())
        if found:
            return check_symbol(f"{found[1]}-{quote}")
    raise BadMessage(f"Cannot tell a symbol from the file name {stem!r}: expected one like BTCUSDT_1h. Pass --symbol.")


def timeframe_of_file(stem: str) -> str | None:
    """The timeframe that a file's name tells (`BTCUSDT_1h`, `BTC_USDT-5m`), or None."""
    found = re.search(r"[-_](1m|3m|5m|15m|30m|1h|2h|4h|6h|8h|12h|1d)(?![A-Za-z0-9])", stem)
    return found[1] if found else None
