"""A slice of `just regimes`: names keep their meaning over a year and a half of real bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .rolling_refits import market, refitted


def test_over_twelve_refits_no_name_changes_its_meaning_and_few_are_refused(test_data: Path) -> None:
    history = refitted(
        market(test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet"), window=4_000, every=1_000, most=12
    )
    assert len(history.refits) == 12 and np.isfinite(history.odds).all()
    assert sum(refit.is_refused for refit in history.refits) <= 1
    assert not any(refit.is_flipped for refit in history.refits if not refit.is_refused)
    agreed, cold, naive = (
        np.nanmean([getattr(refit, name) for refit in history.refits])
        for name in ("agreement", "cold_agreement", "naive_agreement")
    )
    print(f"agreement of consecutive models {agreed:.3f}; of cold fits {cold:.3f}, by the place of states {naive:.3f}")
    assert agreed > 0.9 > cold > naive
