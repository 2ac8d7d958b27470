"""What a bar costs in regimes, beside what hmmlearn takes. Recorded, never failing.

Goals: a step of the filter at most 1/20 of `predict_proba` on 500 bars; 500,000 bars filtered in at most half the time
of `predict_proba`; an incremental update at least 5 times faster than a cold refit, at equal held-out likelihood.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from hmmlearn.hmm import GaussianHMM
from threadpoolctl import threadpool_limits

from services.ml_service.em import expectation
from services.ml_service.fitting import converged, guess, updated
from shared.regimes.compiled import filtered
from shared.regimes.features import FEATURE_NAMES, start_features, step_features
from shared.regimes.hmm import FilterState, RegimeModel, regime_model, start_filter, step_filter
from shared.regimes.reader import RegimeReader
from tests.benchmarks.conftest import Rounds
from tests.candles import candles

BARS = 2_000
MARKET = candles((100.0 * np.exp(np.cumsum(np.random.default_rng(1).normal(0, 0.002, BARS)))).tolist())
WIDTH = len(FEATURE_NAMES)


def a_model() -> RegimeModel:
    stay = [[0.98 if i == j else 0.01 for j in range(3)] for i in range(3)]
    covariance = (0.5 * np.eye(WIDTH) + 0.2).tolist()
    means = [[0.8, 3.0, -6.2, 0.1], [-0.8, -3.0, -6.2, 0.2], [0.0, 0.0, -6.5, -0.1]]
    return regime_model(
        [1 / 3] * 3, stay, means, [covariance] * 3, ("BULL", "BEAR", "CHOP"), [0.0] * WIDTH, [9.0] * WIDTH
    )


def oracle_of(model: RegimeModel) -> GaussianHMM:
    oracle = GaussianHMM(3, "full", implementation="scaling")
    oracle.startprob_, oracle.transmat_ = np.array(model.start), np.array(model.transition)
    oracle.means_, oracle.covars_ = np.array(model.means), np.array(model.scales)
    return oracle


def cpu_s(work: Callable[[], object], times: int = 1) -> float:
    began = time.process_time()
    for _ in range(times):
        work()
    return (time.process_time() - began) / times


def best(rounds: int, *works: tuple[Callable[[], object], int]) -> list[float]:
    """CPU seconds of each, alternated, the best of the rounds."""
    with threadpool_limits(1):
        taken = [[cpu_s(work, times) for work, times in works] for _ in range(rounds)]
    return [min(one) for one in zip(*taken, strict=True)]


def test_features_of_2000_bars(benchmark: Callable[..., Any]) -> None:
    def features() -> None:
        state = start_features()
        for bar in MARKET:
            state, _ = step_features(state, bar)

    benchmark(features)


def test_readings_of_2000_bars(benchmark: Callable[..., Any]) -> None:
    model = a_model()

    def readings() -> None:
        reader = RegimeReader(60_000)
        reader.use(model, "m", 0)
        for opened_at_ms, bar in zip(itertools.count(0, 60_000), MARKET, strict=False):
            reader.on_bar(opened_at_ms, bar)

    benchmark(readings)


def test_a_step_of_the_filter_beside_predict_proba_on_500_bars(rounds: Rounds) -> None:
    model, rows = a_model(), np.random.default_rng(2).normal(0.0, 2.0, (500, WIDTH))
    oracle, row = oracle_of(model), tuple(rows[0].tolist())
    state: FilterState = step_filter(model, start_filter(), row)
    step, whole = best(
        rounds(5), (lambda: step_filter(model, state, row), 2_000), (lambda: oracle.predict_proba(rows), 50)
    )
    print(f"\nfilter step {step * 1e6:.1f} µs, predict_proba on 500 bars {whole * 1e6:.0f} µs: 1/{whole / step:.0f}")


def test_500000_bars_filtered_beside_predict_proba(rounds: Rounds) -> None:
    model, rows = a_model(), np.random.default_rng(2).normal(0.0, 2.0, (500_000, WIDTH))
    oracle = oracle_of(model)
    filtered(model, rows[:10])  # compile
    ours, theirs = best(rounds(5), (lambda: filtered(model, rows), 1), (lambda: oracle.predict_proba(rows), 1))
    print(f"\n500,000 bars filtered in {ours * 1e3:.0f} ms, predict_proba {theirs * 1e3:.0f} ms: {ours / theirs:.2f} x")


def test_a_stepwise_update_beside_a_cold_refit(rounds: Rounds) -> None:
    """1,000 new bars after 8,000 known ones, of a chain with three states."""
    chance = np.random.default_rng(3)
    states = (np.arange(14_000) // 120) % 3
    rows = np.array([[1.0, 2.0, 0.0, 0.5], [-1.0, -2.0, 0.5, 0.0], [0.0, 0.0, -0.5, -0.5]])[states]
    rows = rows + chance.normal(0.0, 1.0, rows.shape)
    seen, unseen = rows[:9_000], rows[9_000:]
    known, _, has_converged = converged(guess(rows[:8_000], 3, chance), rows[:8_000])
    assert has_converged
    found = {}

    def cold() -> None:
        starts = [converged(guess(seen, 3, np.random.default_rng(start)), seen) for start in range(4)]
        found["cold"] = max(expectation(one, unseen)[1] for one, _, is_done in starts if is_done)

    def stepwise() -> None:
        found["stepwise"] = expectation(updated(known, seen[8_000:], 8_000), unseen)[1]

    slow, fast = best(rounds(5), (cold, 1), (stepwise, 1))
    print(
        f"\ncold refit {slow * 1e3:.0f} ms, held out {found['cold']:.4f} nats; stepwise {fast * 1e3:.1f} ms "
        f"({slow / fast:.0f} x), {found['stepwise']:.4f} nats"
    )
