"""Names come from what a state emits."""

from __future__ import annotations

from itertools import permutations

from shared.regimes.labels import NAMES, carried_names, name_states

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


def test_of_more_than_three_states_those_that_rise_half_as_much_as_the_first_are_bulls_too() -> None:
    states = [RISING, FALLING, IDLE, (1.0, 1.1, -6.0), (-0.5, -0.6, -6.0)]  # drifts 2, -1.5, 0, 1.05, -0.55
    assert name_states(states) == ("BULL", "BEAR", "CHOP", "BULL", "CHOP")


def test_a_successor_is_named_as_the_model_before_it_knows_the_bars() -> None:
    overlap = [[1.0, 2.0, 90.0], [80.0, 1.0, 5.0], [3.0, 70.0, 4.0]]  # of each new state with BULL, BEAR, CHOP
    assert carried_names(overlap, (IDLE, RISING, FALLING), NAMES) == ("CHOP", "BULL", "BEAR")


def test_two_states_that_overlap_one_name_do_not_both_get_it() -> None:
    overlap = [[50.0, 1.0, 10.0], [60.0, 1.0, 40.0], [1.0, 70.0, 1.0]]
    assert carried_names(overlap, (RISING, (0.3, 0.4, -6.5), FALLING), NAMES) == ("BULL", "CHOP", "BEAR")


def test_a_name_that_emissions_contradict_is_not_carried_on() -> None:
    overlap = [[90.0, 0.0, 0.0], [0.0, 90.0, 0.0], [0.0, 0.0, 90.0]]  # what was BULL falls now
    assert carried_names(overlap, (FALLING, RISING, IDLE), NAMES) == ("BEAR", "BULL", "CHOP")


def test_states_beyond_three_take_the_name_that_they_overlap_most() -> None:
    overlap = [[9.0, 0.0, 1.0], [0.0, 9.0, 1.0], [0.0, 1.0, 9.0], [5.0, 0.0, 4.0]]
    assert carried_names(overlap, (RISING, FALLING, IDLE, (1.0, 1.0, -6.0)), NAMES) == ("BULL", "BEAR", "CHOP", "BULL")


def test_two_states_take_two_names() -> None:
    assert carried_names([[9.0, 0.0, 5.0], [0.0, 9.0, 5.0]], (RISING, FALLING), NAMES) == ("BULL", "BEAR")
