"""How regimes follow one another: tables by name, of what was counted and of what a model expects."""

from __future__ import annotations

from collections.abc import Sequence

Odds = list[list[float] | None]  # (3, 3) rows that sum to 1, by `NAMES`; None for a regime of which nothing is known


def empirical_odds(counts: Sequence[Sequence[int]]) -> Odds:
    """Of the bars that followed a regime (row), the fraction that was called each (column)."""
    return [[bars / sum(row) for bars in row] if sum(row) else None for row in counts]
