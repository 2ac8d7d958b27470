"""What a model finds in the simulated market, where the truth is known, and in real bars, where it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from services.ml_service.evidence import judge
from services.ml_service.fit_lines import FitRequest
from services.ml_service.fitting import fit
from services.venue_sim.market import SimulatedSeries
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model
from shared.regimes.features import Features, features_of_closes
from shared.regimes.hmm import RegimeModel, forward_filter, odds
from shared.regimes.labels import NAMES


def trained(closes: list[float]) -> RegimeModel:
    """A model as the service would train it: the last fifth held out."""
    fitted = fit(FitRequest(closes, len(closes) // 5, n_states=3, starts=4, seed=7), lambda _: None)
    return load_model(fitted.model, content_id(fitted.model))


def rows_of(closes: list[float]) -> list[Features]:
    return [row for row in features_of_closes(closes) if row is not None]


@pytest.mark.parametrize("symbol", ["BTC-USDT", "SOL-USDT"])
def test_the_simulated_markets_regimes_are_found_on_the_bars_after_the_training(symbol: str) -> None:
    market = SimulatedSeries(symbol, seed=7)
    closes = [market.candle(bar).close for bar in range(6_000)]
    model = trained(closes[:3_000])
    believed = [odds(model, state) for state in forward_filter(model, rows_of(closes))[-3_000:]]
    named = [NAMES[belief.index(max(belief))] for belief in believed]
    truth = [market.climate(bar).name for bar in range(3_000, 6_000)]
    # A regime of 100 bars on average is known for certain only when a part of it has passed.
    assert np.mean([a == b for a, b in zip(named, truth, strict=True)]) > 0.7
    assert all(named.count(name) > 300 for name in NAMES)


def test_on_real_bitcoin_hours_regimes_say_more_of_unseen_bars_than_one_gaussian(test_data: Path) -> None:
    table = pq.read_table(test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet", columns=["close"])
    closes: list[float] = table["close"].to_pylist()[-4_000:]
    rows = rows_of(closes)
    figures = judge(trained(closes[:3_200]), None, rows[1_000:-800], rows[-800:])
    assert figures["log_likelihood"] > figures["log_likelihood_one_gaussian"] + 0.1
    assert all(figures[f"share_{name}"] > 0.05 for name in ("bull", "bear", "chop"))
    assert figures["switches"] < 0.1, "regimes last"
