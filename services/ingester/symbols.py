"""Which symbols are followed: the first list that names any. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from shared.contracts.instruments import check_symbol, from_binance, from_ccxt

Source = Literal["scanner", "kind_symbols", "strategy_symbols", "trade_symbols", "default"]
DEFAULT = ("BTC-USDT", "ETH-USDT", "SOL-USDT")


class Universe(NamedTuple):
    """What is followed, and which setting said so."""

    symbols: tuple[str, ...]
    source: Source


def resolve(
    scanner: Sequence[str], kind_symbols: Sequence[str], strategy_symbols: Sequence[str], trade_symbols: Sequence[str]
) -> Universe:
    """Scanner, then `{KIND}_SYMBOLS`, then `STRATEGY_SYMBOLS`, then `TRADE_SYMBOLS`, then the default.

    Each symbol once, in the order given. Raises BadMessage for one that cannot be read.
    """
    lists: tuple[tuple[Source, Sequence[str]], ...] = (
        ("scanner", scanner),
        ("kind_symbols", kind_symbols),
        ("strategy_symbols", strategy_symbols),
        ("trade_symbols", trade_symbols),
        ("default", DEFAULT),
    )
    found = [Universe(tuple(dict.fromkeys(map(canonical, names))), source) for source, names in lists if names]
    return found[0]


def canonical(name: str) -> str:
    """Our symbol for `BTC-USDT`, `BTC/USDT` or `BTCUSDT`."""
    if "/" in name:
        return from_ccxt(name)
    return check_symbol(name) if "-" in name else from_binance(name)
