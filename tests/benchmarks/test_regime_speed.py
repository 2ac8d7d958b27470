"""What a bar costs the engine in regimes: features and filter, interpreted. Goal: 15 µs. Recorded, never failing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from shared.regimes.features import start_features, step_features
from shared.regimes.hmm import regime_model
from shared.regimes.reader import RegimeReader

BARS = 2_000
CLOSES: list[float] = (100.0 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.002, BARS)))).tolist()


def test_features_of_2000_bars(benchmark: Callable[..., Any]) -> None:
    def features() -> None:
        state = start_features()
        for close in CLOSES:
            state, _ = step_features(state, close)

    benchmark(features)


def test_readings_of_2000_bars(benchmark: Callable[..., Any]) -> None:
    stay = [[0.98 if i == j else 0.01 for j in range(3)] for i in range(3)]
    covariance = [[1.0, 0.6, 0.1], [0.6, 1.2, 0.0], [0.1, 0.0, 0.3]]
    means = [[2.0, 3.0, -6.2], [-2.0, -3.0, -6.2], [0.0, 0.0, -6.5]]
    labels = ("BULL", "BEAR", "CHOP")
    model = regime_model([1 / 3] * 3, stay, means, [covariance] * 3, labels, [0.0, 0.0, -6.2], [1.0, 1.0, 0.3])

    def readings() -> None:
        reader = RegimeReader(60_000)
        reader.use(model, "m", 0)
        for opened_at_ms, close in zip(itertools.count(0, 60_000), CLOSES, strict=False):
            reader.on_bar(opened_at_ms, close)

    benchmark(readings)
