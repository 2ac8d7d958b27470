"""Names come from what a state emits."""

from __future__ import annotations

from itertools import permutations

from shared.regimes.labels import name_states

RISING, FALLING, IDLE = (1.5, 2.5, -6.0), (-1.0, -2.0, -5.5), (0.1, -0.1, -6.5)


def test_states_keep_their_names_in_whatever_order_a_fit_returns_them() -> None:
    names = {RISING: "BULL", FALLING: "BEAR", IDLE: "CHOP"}
    for order in permutations((RISING, FALLING, IDLE)):
        assert name_states(order) == tuple(names[state] for state in order)


def test_the_least_of_three_bulls_is_no_bear() -> None:
    assert name_states([(0.5, 0.5, -6.0), (1.0, 1.0, -6.0), (2.0, 2.0, -6.0)]) == ("CHOP", "CHOP", "BULL")


def test_states_that_differ_in_volatility_alone_have_no_direction() -> None:
    assert set(name_states([(0.01, 0.0, -7.0), (-0.02, 0.0, -6.0), (0.0, 0.0, -5.0)])) == {"CHOP"}


def test_of_two_equal_trends_the_calmer_is_the_better() -> None:
    assert name_states([(1.0, 1.0, -5.0), (1.0, 1.0, -7.0), (-1.0, -1.0, -6.0)]) == ("CHOP", "BULL", "BEAR")


def test_more_than_three_states_still_have_one_bull_and_one_bear() -> None:
    assert sorted(name_states([RISING, FALLING, IDLE, (0.5, 0.5, -6.0), (-0.5, -0.5, -6.0)])) == [
        "BEAR",
        "BULL",
        "CHOP",
        "CHOP",
        "CHOP",
    ]
