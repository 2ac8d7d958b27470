"""The form in which a Trader is kept. What is in it, and how it goes on from it, is trader.py."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from shared.trading.fills import Sleeve
from shared.trading.orders import Intent, OpenTrade
from shared.trading.performance import Stats
from shared.trading.values import Bar, Regime, Target


class KeptCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate as it was after one bar. Who goes on from it steps it over the bars since."""

    opened_ms: int  # opened-at of that bar; -1 before the first
    params: dict[str, int | float | bool]
    state: bytes  # frozen, stamped with the strategy's source
    bars: int
    target: Target
    before: float
    is_retired: bool


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All of a Trader that is not a setting."""

    source: str
    sleeve: Sleeve
    stats: Stats
    dust: Decimal
    candidates: dict[str, KeptCandidate]
    chosen: str
    decision_id: str
    active: str
    intent: Intent | None
    trade: OpenTrade | None
    bars: list[tuple[Bar, Regime]]
