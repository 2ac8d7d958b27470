"""What a sleeve holds, as the engine's words tell it, and under which decision it was entered. Pure.

An epoch lasts until the trade opened in it has closed, so the controller must know when one is open. A wish to enter
(`Signal`) counts as open at once; if nothing of it was filled two bars later it came to nothing.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from shared.contracts.execution import Signal, TradeClosed, TradeFill
from shared.contracts.times import EPOCH, timeframe_length

LAPSE_BARS = 2  # an entry wanted at the close of t is filled on t+1, on paper and at the venue


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """One sleeve's position, without its size."""

    under: str | None = None  # decision under which it was entered, "" for none, None while flat
    is_filled: bool = False
    wanted: float = 0.0  # exposure last asked for
    wanted_under: str = ""
    wanted_at: datetime | None = None
    settled_on: datetime = EPOCH  # opened-at of the bar on which the last trade closed


def after_signal(holding: Holding, signal: Signal) -> Holding:
    """Another exposure is wanted."""
    if signal.exposure == 0.0:
        under = holding.under if holding.is_filled else None
        return Holding(
            under=under, is_filled=holding.is_filled, wanted_at=signal.closed_at, settled_on=holding.settled_on
        )
    return Holding(
        under=signal.decision_id if holding.under is None else holding.under,
        is_filled=holding.is_filled,
        wanted=signal.exposure,
        wanted_under=signal.decision_id,
        wanted_at=signal.closed_at,
        settled_on=holding.settled_on,
    )


def after_fill(holding: Holding, _fill: TradeFill) -> Holding:
    """Something was bought or sold, so there is a position until a trade closes."""
    under = holding.wanted_under if holding.under is None else holding.under
    return msgspec.structs.replace(holding, under=under, is_filled=True)


def after_close(holding: Holding, trade: TradeClosed, on_bar: datetime = EPOCH) -> Holding:
    """The sleeve came back to flat on the bar that opened then; or, where the other side was wanted, went through it
    in one fill."""
    settled_on = max(holding.settled_on, on_bar)
    is_flip = holding.wanted < 0.0 if trade.side == "long" else holding.wanted > 0.0
    if is_flip:
        return msgspec.structs.replace(holding, under=holding.wanted_under, is_filled=True, settled_on=settled_on)
    return Holding(settled_on=settled_on)


def at_bar(holding: Holding, closed_at: datetime, timeframe: str) -> Holding:
    """After everything that the engine did up to this close is known."""
    if holding.under is None or holding.is_filled or holding.wanted_at is None:
        return holding
    has_lapsed = closed_at - holding.wanted_at >= LAPSE_BARS * timeframe_length(timeframe)
    return msgspec.structs.replace(holding, under=None, wanted=0.0) if has_lapsed else holding
