"""Rails: how much of an order may leave the house. Pure. What holds trading back as a whole is next door, in breakers.py.

A rail makes an entry smaller where that is enough, and refuses it where it is not. What makes a position smaller always
passes: a limit must never keep anybody in a position.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal
from typing import Literal, NamedTuple

from shared.contracts.instruments import Instrument

ZERO = Decimal(0)
EXIT_CUSHION = Decimal("1.5")  # x minimum notional: a third below its entry a position can still be sold


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is allowed. Fractions are of the account's equity at the last close."""

    max_order: Decimal = Decimal("0.35")
    max_position: Decimal = Decimal("0.35")  # of one instrument, over all sleeves
    max_gross: Decimal = Decimal(1)
    orders_per_minute: int = 30
    max_jump: float = 0.25  # of the close, from the one before: beyond it the price is not believed
    daily_loss: Decimal = Decimal("0.05")
    loss_streak: int = 12  # six sleeves that win two trades in five lose twelve in a row once in 500 trades
    cooldown_bars: int = 24
    drawdown: Decimal = Decimal("0.20")


class Account(NamedTuple):
    """What is known when an order is judged. Money in quote currency, marked on the last closes."""

    equity: Decimal
    instrument: Decimal  # worth of what is held, or on its way, of this instrument
    gross: Decimal  # of all instruments
    orders_last_minute: int
    close: float  # of this instrument
    close_before: float  # NaN when there was none


class Wanted(NamedTuple):
    """An order as the sleeve wants it."""

    quantity: Decimal  # base units, whole lots
    reduces: Decimal  # how much of it makes the position smaller: this part always passes


class Touch(NamedTuple):
    """A rail that was touched."""

    rail: str
    action: Literal["resized", "refused"]
    limit: str
    was: str


class Verdict(NamedTuple):
    """What may be sent: `quantity` is 0 when nothing may."""

    quantity: Decimal
    touches: tuple[Touch, ...]


def judged(wanted: Wanted, account: Account, instrument: Instrument, limits: Limits) -> Verdict:
    """How much of this order may be sent, and which rails said so."""
    entry = wanted.quantity - wanted.reduces
    if entry <= 0:
        return Verdict(wanted.quantity, ())
    refusal = _refusal(account, limits)
    if refusal is not None:
        return Verdict(wanted.reduces, (refusal,))
    price = Decimal(repr(account.close))
    touches: list[Touch] = []
    allowed = entry
    for rail, limit, room in (
        ("max_order", limits.max_order, account.equity * limits.max_order),
        ("max_position", limits.max_position, account.equity * limits.max_position - account.instrument),
        ("max_gross", limits.max_gross, account.equity * limits.max_gross - account.gross),
    ):
        most = max(ZERO, (room / price / instrument.lot).to_integral_value(ROUND_FLOOR) * instrument.lot)
        if most < entry:
            shown = f"{limit:.0%} of {account.equity:.2f}"
            touches.append(Touch(rail, "resized" if most > 0 else "refused", shown, f"{entry * price:.2f}"))
            allowed = min(allowed, most)
    quantity = wanted.reduces + allowed
    least = instrument.min_notional * EXIT_CUSHION
    if 0 < quantity * price < least and wanted.reduces == 0:
        return Verdict(ZERO, (*touches, Touch("min_notional", "refused", f"{least:f}", f"{quantity * price:.2f}")))
    return Verdict(quantity, tuple(touches))


def _refusal(account: Account, limits: Limits) -> Touch | None:
    if account.equity <= 0:
        return Touch("equity", "refused", "above 0", f"{account.equity:.2f}")
    if account.orders_last_minute >= limits.orders_per_minute:
        return Touch("orders_per_minute", "refused", str(limits.orders_per_minute), str(account.orders_last_minute + 1))
    jump = abs(account.close / account.close_before - 1.0)  # NaN without a close before: nothing to compare with
    if jump > limits.max_jump:
        return Touch("price_jump", "refused", f"{limits.max_jump:.0%}", f"{jump:.1%}")
    return None
