"""A planted peak is flagged, a planted plateau passes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from services.backtest_suite.stability import PLATEAU, Surface

AXES = {"fast": (1, 2, 3, 4, 5, 6, 7), "slow": (10, 20, 30, 40, 50, 60, 70)}
CENTRE = {"fast": 4, "slow": 40}


def surface(height: Callable[[int, int], float]) -> Surface:
    """A metric given by the steps away from the centre on each axis."""
    points = [
        ({"fast": fast, "slow": slow}, height(abs(fast - 4), abs(slow - 40) // 10))
        for fast in AXES["fast"]
        for slow in AXES["slow"]
    ]
    return Surface(AXES, points)


def test_a_needle_is_a_peak() -> None:
    needle = surface(lambda i, j: 3.0 if i == j == 0 else 0.1)
    assert needle.plateau(CENTRE) == pytest.approx(0.0)
    assert needle.plateau(CENTRE) < PLATEAU


def test_a_plateau_passes() -> None:
    # Neighbours have 2.9 or 2.8 of 3.0 and the rest of the grid is 0: (2.85 - 0) / 3.0 with four of each = 0.95.
    plateau = surface(lambda i, j: 3.0 - 0.1 * (i + j) if max(i, j) <= 1 else 0.0)
    assert plateau.plateau(CENTRE) == pytest.approx(0.95)


def test_a_rounded_hill_passes() -> None:
    assert surface(lambda i, j: 3.0 - 0.1 * (i * i + j * j)).plateau(CENTRE) > PLATEAU


def test_a_needle_above_a_grid_of_losses_is_still_a_peak() -> None:
    needle = surface(lambda i, j: -0.1 if i == j == 0 else -3.0)
    assert needle.plateau(CENTRE) == pytest.approx(0.0)


def test_neighbours_that_never_traded_are_no_support_and_those_that_the_rule_left_out_are_no_neighbours() -> None:
    silent = surface(lambda i, j: math.nan if max(i, j) == 1 else 3.0 if i == j == 0 else 0.0)
    assert silent.plateau(CENTRE) == pytest.approx(0.0)
    allowed = [
        ({"fast": fast, "slow": slow}, 3.0 if (fast, slow) in ((4, 40), (4, 50)) else 0.0)
        for fast in AXES["fast"]
        for slow in AXES["slow"]
        if (abs(fast - 4), abs(slow - 40)) not in ((1, 0), (1, 10), (0, 10)) or (fast, slow) == (4, 50)
    ]
    assert Surface(AXES, allowed).plateau(CENTRE) == pytest.approx(1.0)  # the one neighbour that is left is as good


def test_a_flat_grid_is_a_plateau_and_a_single_set_has_no_neighbours() -> None:
    assert surface(lambda i, j: 1.0).plateau(CENTRE) == 1.0
    alone = {"fast": 4}
    assert math.isnan(Surface({"fast": (4,)}, [(alone, 1.0)]).plateau(alone))


def test_the_edge_of_the_grid_is_told() -> None:
    flat = surface(lambda i, j: 1.0)
    assert flat.edges({"fast": 1, "slow": 40}) == ["fast"]
    assert flat.edges({"fast": 7, "slow": 70}) == ["fast", "slow"]
    assert flat.edges(CENTRE) == []


def test_a_section_holds_the_other_parameters_as_they_are_in_the_best() -> None:
    axes = {"a": (1, 2), "b": (1, 2, 3), "c": (1, 2, 3, 4)}
    points = [
        ({"a": a, "b": b, "c": c}, 100.0 * a + 10 * b + c) for a in axes["a"] for b in axes["b"] for c in axes["c"]
    ]
    three = Surface(axes, points)
    assert three.widest() == ("b", "c")
    through = {"a": 2, "b": 1, "c": 1}
    expected = [[200.0 + 10 * b + c for c in axes["c"]] for b in axes["b"]]
    assert np.array_equal(three.section("b", "c", through), expected)
    assert np.array_equal(three.section("c", "b", through), np.array(expected).T)
