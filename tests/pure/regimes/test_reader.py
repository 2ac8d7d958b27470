"""One instrument, bar by bar: the engine and ml_service come to the same bits however they came to the bar."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shared.regimes.context import CONTEXT_NAMES, UNKNOWN_CONTEXT
from shared.regimes.features import WARMUP_BARS, Candle
from shared.regimes.hmm import RegimeModel, regime_model
from shared.regimes.reader import BARS_TO_RESUME, SETTLE_BARS, Reading, RegimeReader
from tests.candles import candles

MINUTE = 60_000


def market(bars: int, seed: int = 5) -> list[tuple[int, Candle]]:
    """(opened_at_ms, bar) of bars that rise, fall and idle for 200 bars each."""
    rng = np.random.default_rng(seed)
    drift = np.array([0.001, -0.001, 0.0])[(np.arange(bars) // 200) % 3]
    closes = (100.0 * np.exp(np.cumsum(rng.normal(drift, 0.002)))).tolist()
    return [(at * MINUTE, bar) for at, bar in enumerate(candles(closes, seed))]


def three_regimes() -> RegimeModel:
    stay = [[0.98 if i == j else 0.01 for j in range(3)] for i in range(3)]
    unit = [[1.0 if i == j else 0.0 for j in range(4)] for i in range(4)]
    means = [[1.1, 3.0, -6.2, 0.0], [-1.1, -3.0, -6.2, 0.0], [0.0, 0.0, -6.2, 0.0]]
    labels = ("BULL", "BEAR", "CHOP")
    return regime_model([1 / 3] * 3, stay, means, [unit] * 3, labels, [0.0, 0.0, -6.2, 0.0], [2.0, 2.5, 0.3, 0.3])


def read(reader: RegimeReader, bars: list[tuple[int, Candle]]) -> list[Reading]:
    return [reader.on_bar(*bar) for bar in bars]


def test_without_a_model_the_regime_is_unknown_and_the_context_still_finite() -> None:
    for reading in read(RegimeReader(MINUTE), market(60)):
        assert reading.regime == "UNKNOWN" and all(map(math.isnan, (reading.bull, reading.bear, reading.chop)))
        assert reading.context == UNKNOWN_CONTEXT and reading.model_id == ""


def test_rise_fall_and_idleness_are_told_apart() -> None:
    reader, bars = RegimeReader(MINUTE), market(800)
    read(reader, bars[:100])
    reader.use(three_regimes(), "m", promoted_at_ms=100 * MINUTE)
    named = [reading.regime for reading in read(reader, bars[100:])]
    # The market turns every 200 bars, and a trend over 48 bars knows it for certain only when those have passed.
    for regime, first, last in (("BULL", 50, 100), ("BEAR", 150, 300), ("CHOP", 350, 500), ("BULL", 550, 700)):
        assert named[first:last].count(regime) >= 0.7 * (last - first), (regime, named[first:last])


def test_a_promoted_model_reads_from_the_next_bar_on_and_has_settled_by_then() -> None:
    reader, bars = RegimeReader(MINUTE), market(300)
    before = read(reader, bars[:250])
    reader.use(three_regimes(), "v1", promoted_at_ms=250 * MINUTE)
    after = reader.on_bar(*bars[250])
    assert before[-1].model_id == "" and after.model_id == "v1"
    assert 0.0 < reader.probability_of(after.regime) <= 1.0, "the filter had bars before this one"


def test_who_hears_of_a_promotion_late_still_reads_the_same_bits() -> None:
    bars = market(400)
    prompt, late = RegimeReader(MINUTE), RegimeReader(MINUTE)
    read(prompt, bars[:300])
    prompt.use(three_regimes(), "v1", promoted_at_ms=300 * MINUTE)
    read(late, bars[:337])
    late.use(three_regimes(), "v1", promoted_at_ms=300 * MINUTE)
    assert read(prompt, bars[300:])[37:] == read(late, bars[337:])


def test_a_reader_that_was_stopped_goes_on_with_the_same_bits() -> None:
    bars, model = market(1_000), three_regimes()
    whole = RegimeReader(MINUTE)
    read(whole, bars[:200])
    whole.use(model, "v1", promoted_at_ms=200 * MINUTE)
    read(whole, bars[200:800])
    resumed = RegimeReader.resume(MINUTE, bars[800 - BARS_TO_RESUME : 800], model, "v1", whole.filter)
    assert read(resumed, bars[800:900]) == read(whole, bars[800:900])
    for reader in (whole, resumed):
        reader.use(model, "v2", promoted_at_ms=900 * MINUTE)
    assert read(resumed, bars[900:]) == read(whole, bars[900:])


def test_a_demoted_model_leaves_unknown_behind() -> None:
    reader, bars = RegimeReader(MINUTE), market(200)
    reader.use(three_regimes(), "v1", promoted_at_ms=0)
    assert read(reader, bars[:150])[-1].regime != "UNKNOWN"
    reader.drop()
    assert reader.on_bar(*bars[150]).regime == "UNKNOWN"


def test_the_context_names_its_numbers_and_keeps_them_near() -> None:
    reader = RegimeReader(MINUTE)
    reader.use(three_regimes(), "v1", promoted_at_ms=0)
    for reading in read(reader, market(300))[WARMUP_BARS:]:
        assert len(reading.context) == len(CONTEXT_NAMES) and reading.context[0] == 1.0
        assert reading.context[1:4] == (reading.bull, reading.bear, reading.chop)
        assert abs(reading.context[4]) <= 3.0


def test_the_filter_has_forgotten_its_start_after_settling() -> None:
    bars, model = market(700), three_regimes()
    long_since, new = RegimeReader(MINUTE), RegimeReader(MINUTE)
    long_since.use(model, "v1", promoted_at_ms=0)
    read(long_since, bars[:600])
    read(new, bars[:600])
    new.use(model, "v1", promoted_at_ms=600 * MINUTE)
    a, b = long_since.on_bar(*bars[600]), new.on_bar(*bars[600])
    assert (a.bull, a.bear, a.chop) == pytest.approx((b.bull, b.bear, b.chop), abs=1e-9), f"{SETTLE_BARS} bars"


def test_a_model_that_nothing_succeeds_is_stale_in_the_end_and_a_reader_that_was_stopped_knows_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.regimes.reader.LIFE_BARS", 200)
    bars, model = market(500), three_regimes()
    reader = RegimeReader(MINUTE)
    read(reader, bars[:150])
    reader.use(model, "v1", promoted_at_ms=150 * MINUTE)
    told = read(reader, bars[150:400])
    assert [reading.regime == "UNKNOWN" for reading in told] == [at > 350 for at in range(150, 400)]
    resumed = RegimeReader.resume(MINUTE, bars[:400], model, "v1", reader.filter, 150 * MINUTE)
    assert resumed.on_bar(*bars[400]).regime == "UNKNOWN"
    reader.use(model, "v2", promoted_at_ms=401 * MINUTE)
    assert {reading.model_id for reading in read(reader, bars[401:])} == {"v2"}
