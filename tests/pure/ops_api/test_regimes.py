"""What ops_api makes of readings: transitions, dwell times, the drift line."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ops_api.regimes import (
    DRIFT_BARS,
    DWELL_FROM,
    Read,
    drift_line,
    dwells,
    transition_counts,
)
from shared.contracts.regime import RegimeName
from shared.regimes.labels import NAMES

LETTERS: dict[str, RegimeName] = {"b": "BULL", "r": "BEAR", "c": "CHOP", "?": "UNKNOWN"}
from shared.regimes.transitions import empirical_odds


def reads(regimes: str, model: str = "v1") -> list[Read]:
    """`bbr?` -> BULL, BULL, BEAR, UNKNOWN."""
    return [Read(LETTERS[letter], model if letter != "?" else "", -1.0) for letter in regimes]


def test_each_bar_counts_as_what_followed_the_bar_before() -> None:
    assert transition_counts(reads("bbrbbc")) == [[2, 1, 1], [1, 0, 0], [0, 0, 0]]


def test_nothing_is_counted_across_unknown_or_from_one_model_to_the_next() -> None:
    assert transition_counts(reads("b?b")) == [[0] * 3] * 3
    assert transition_counts(reads("b") + reads("r", "v2")) == [[0] * 3] * 3


def test_a_regime_that_was_never_left_nor_kept_has_no_odds() -> None:
    assert empirical_odds([[3, 1, 0], [0, 0, 0], [1, 0, 1]]) == [[0.75, 0.25, 0.0], None, [0.5, 0.0, 0.5]]


def test_only_spells_seen_from_their_beginning_to_their_end_have_a_length() -> None:
    found = dwells(reads("bb" + "rrr" + "c" + "rrrrr" + "bb"))  # of `bb` neither the begin nor the end was seen

    assert found["BEAR"].spells == 2
    assert found["BEAR"].mean_bars == 4.0
    assert found["BEAR"].histogram == [0, 1, 1, 0, 0, 0, 0, 0]  # 3 bars, 5 bars
    assert (found["CHOP"].spells, found["CHOP"].mean_bars) == (1, 1.0)
    assert found["BULL"].spells == 0
    assert math.isnan(found["BULL"].mean_bars)


def test_a_new_model_cuts_the_spell_that_it_finds() -> None:
    assert dwells(reads("brr") + reads("rrb", "v2"))["BEAR"].spells == 0


@given(st.text("brc?", max_size=300))
def test_the_histogram_has_every_spell_once(regimes: str) -> None:
    found = dwells(reads(regimes))

    assert all(sum(one.histogram) == one.spells for one in found.values())
    counts = transition_counts(reads(regimes))
    for k, name in enumerate(NAMES):  # a whole spell ends with a pair that leaves its regime
        assert found[name].spells <= sum(counts[k]) - counts[k][k]


def test_the_last_column_of_the_histogram_has_no_end() -> None:
    found = dwells(reads("r" + "b" * 1000 + "r"))["BULL"]

    assert found.histogram == [0] * (len(DWELL_FROM) - 1) + [1]


def test_the_drift_line_is_the_mean_of_the_last_48_bars_of_one_model() -> None:
    rising = [Read("BULL", "v1", float(i)) for i in range(60)]

    line = drift_line(rising)

    assert DRIFT_BARS == 48
    assert line[:47] == [None] * 47
    assert line[47] == pytest.approx(23.5)  # mean of 0 .. 47
    assert line[59] == pytest.approx(35.5)  # mean of 12 .. 59


def test_a_new_model_or_a_bar_that_was_not_foretold_begins_the_line_anew() -> None:
    for broken in (Read("BULL", "v2", -1.0), Read("UNKNOWN", "", None)):
        line = drift_line([*reads("b" * 60), broken, *reads("b" * 47)])

        assert line[59] == -1.0
        assert line[60:] == [None] * 48
