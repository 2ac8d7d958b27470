"""How regimes follow one another: by the model's matrix between names, and as counted."""

from __future__ import annotations

import math

import pytest

from services.ml_service.transitions import (
    counted,
    dwell_bars,
    model_odds,
    surprise_bits,
)
from shared.contracts.regime import RegimeName, RegimeReading
from shared.contracts.times import parse_time
from shared.regimes.features import FEATURE_NAMES
from shared.regimes.hmm import RegimeModel, regime_model

WIDTH = len(FEATURE_NAMES)
from shared.regimes.transitions import empirical_odds


def model(start: list[float], transition: list[list[float]], labels: list[RegimeName]) -> RegimeModel:
    """Of these moves; what it emits is all the same here."""
    unit = [[float(i == j) for j in range(WIDTH)] for i in range(WIDTH)]
    states = len(labels)
    return regime_model(
        start, transition, [[0.0] * WIDTH] * states, [unit] * states, labels, [0.0] * WIDTH, [1.0] * WIDTH
    )


def reading(regime: RegimeName, model_id: str = "m") -> RegimeReading:
    odds = (math.nan,) * 3 if regime == "UNKNOWN" else tuple(float(regime == name) for name in ("BULL", "BEAR", "CHOP"))
    return RegimeReading(
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1h",
        opened_at=parse_time("2024-01-02T23:00"),
        regime=regime,
        bull=odds[0],
        bear=odds[1],
        chop=odds[2],
        model_id=model_id,
        context=(),
        context_schema="c",
        reading_hash="0" * 64,
    )


def test_a_state_for_each_name_has_the_models_own_matrix() -> None:
    moves = [[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.25, 0.25, 0.5]]
    odds = model_odds(model([0.2, 0.3, 0.5], moves, ["BULL", "BEAR", "CHOP"]))
    assert odds == [pytest.approx(row, abs=1e-12) for row in moves]
    assert dwell_bars(odds) == pytest.approx([10.0, 1 / 0.3, 2.0])


def test_states_of_one_name_count_as_often_as_they_are_visited() -> None:
    # Balance: the first is left at 0.5 and the others at 0.25 each, so they are visited 1 : 2 : 0 ... by hand:
    # v0 = 0.5 v0 + 0.25 v1, v1 = 0.5 v0 + 0.75 v1 -> v1 = 2 v0. BULL is state 0, CHOP states 1 and 2, of which 2 is
    # never reached from anywhere and begins with nothing.
    moves = [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0], [1.0, 0.0, 0.0]]
    odds = model_odds(model([1.0, 0.0, 0.0], moves, ["BULL", "CHOP", "CHOP"]))
    assert odds[0] == pytest.approx([0.5, 0.0, 0.5]) and odds[1] is None
    assert odds[2] == pytest.approx([0.25, 0.0, 0.75])
    assert dwell_bars(odds) == [pytest.approx(2.0), None, pytest.approx(4.0)]


def test_a_chain_that_swings_has_odds_all_the_same() -> None:
    odds = model_odds(model([1.0, 0.0], [[0.0, 1.0], [1.0, 0.0]], ["BULL", "BEAR"]))
    assert odds == [pytest.approx([0.0, 1.0, 0.0]), pytest.approx([1.0, 0.0, 0.0]), None]


def test_blocks_that_never_meet_keep_their_weights() -> None:
    moves = [[0.9, 0.1, 0.0, 0.0], [0.1, 0.9, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.5]]
    odds = model_odds(model([0.4, 0.4, 0.1, 0.1], moves, ["BULL", "BEAR", "BULL", "BEAR"]))
    assert odds[0] == pytest.approx([0.8 * 0.9 + 0.2 * 0.5, 0.8 * 0.1 + 0.2 * 0.5, 0.0])


def test_what_was_counted_is_told_as_fractions_and_nothing_where_nothing_was() -> None:
    odds = empirical_odds([[3, 1, 0], [0, 0, 0], [0, 0, 2]])
    assert odds == [[0.75, 0.25, 0.0], None, [0.0, 0.0, 1.0]]
    assert dwell_bars(odds) == [4.0, None, None], "what was never left has no length yet"


def test_a_pair_counts_when_one_model_named_both_bars() -> None:
    pair = counted("s", "BULL", "m", reading("CHOP"))
    assert pair is not None and pair.row == ("s", "m", 1_704_153_600_000, "BULL", "CHOP")  # 2024-01-02
    assert counted("s", "BULL", "other", reading("CHOP")) is None
    assert counted("s", "UNKNOWN", "m", reading("CHOP")) is None
    assert counted("s", "BULL", "m", reading("UNKNOWN", "")) is None


def test_a_surprise_is_measured_in_coins_that_fell_the_same_way() -> None:
    assert [surprise_bits(p) for p in (1.0, 0.5, 1 / 1024, 0.0)] == [0.0, 1.0, 10.0, math.inf]
    assert math.isnan(surprise_bits(math.nan))
