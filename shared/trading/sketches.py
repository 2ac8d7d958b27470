"""Markets drawn in a line, for tests and examples: `bars(flat(3) + rise(5, per_bar=0.01))`."""

from __future__ import annotations

from shared.trading.values import Bar

MINUTE_MS = 60_000


def flat(count: int) -> list[float]:
    """Nothing happens."""
    return [0.0] * count


def rise(count: int, per_bar: float) -> list[float]:
    """The close rises by this fraction each bar."""
    return [per_bar] * count


def fall(count: int, per_bar: float) -> list[float]:
    """The close falls by this fraction each bar."""
    return [-per_bar] * count


def bars(moves: list[float], *, first_close: float = 100.0, opened_at_ms: int = 0) -> list[Bar]:
    """One-minute bars whose closes make these moves. Each opens where the one before closed."""
    made: list[Bar] = []
    close = first_close
    for i, move in enumerate(moves):
        before, close = close, round(close * (1.0 + move), 2)
        high, low = max(before, close), min(before, close)
        made.append(Bar(opened_at_ms + i * MINUTE_MS, before, high, low, close, 1.0))
    return made
