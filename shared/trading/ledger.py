"""Money, counted. Cash in ledger units (`scales` says how small), holdings in lots; integers, so nothing gets lost.

Prices here are ticks, and `unit` is what one lot costs at one tick, in ledger units.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.trading.kernel import kernel

PPM = 1_000_000
LIMIT = 4e18  # below the 9.2e18 of an int64, with room for the sums that are made of two such numbers


class Book(NamedTuple):
    """What one sleeve owns. Its equity at a price is cash + lots x ticks x unit."""

    cash: int  # ledger units
    lots: int  # signed: owed lots are negative
    staked: int  # cash when it last was flat: the difference is what the open trade has cost so far
    fees: int  # paid since the beginning


@kernel
def opened_book(cash: int) -> Book:
    """A sleeve before its first trade."""
    return Book(cash, 0, cash, 0)


@kernel
def applied(book: Book, lots: int, notional: int, fee: int) -> Book:
    """The book after a fill of `lots` (signed) for `notional` (>= 0), paying `fee`."""
    cash = book.cash - fee - (notional if lots > 0 else -notional)
    held = book.lots + lots
    return Book(cash, held, cash if held == 0 else book.staked, book.fees + fee)


@kernel
def equity_at(book: Book, ticks: int, unit: int) -> int:
    """What the book is worth at this price, in ledger units."""
    return book.cash + book.lots * ticks * unit


@kernel
def fee_on(notional: int, fee_ppm: int, min_fee: int) -> int:
    """The fee on a fill, rounded once, half up. In two parts, so that the product cannot overflow."""
    fee = notional // PPM * fee_ppm + (notional % PPM * fee_ppm + PPM // 2) // PPM
    return max(min_fee, fee)


@kernel
def fits(lots: int, top_ticks: float, unit: int, cash: int) -> bool:
    """Whether the worth of so many lots stays countable up to the highest price of the series."""
    return abs(float(lots)) * top_ticks * float(unit) + abs(float(cash)) < LIMIT
