"""What the bandit and the regime were worth, where it is known what they are worth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.closed_loop.contribution import Contribution, Epoch, contribution, difference

EPOCHS = 400
GAIN = 0.01  # log return of the right preset in an epoch
RISK = 0.01  # so that a right epoch is worth 1 R


def compared(right: np.ndarray, sees: np.ndarray, chosen: np.ndarray) -> Contribution:
    """Two presets, one right in each epoch (0 or 1) and the other wrong; `sees` is what the context tells."""
    rng = np.random.default_rng(3)
    noise = rng.normal(0.0, 0.2 * GAIN, (2, EPOCHS))
    gains = {name: np.where(right == k, GAIN, -GAIN) + noise[k] for k, name in enumerate(("a", "b"))}
    epochs = [Epoch(("a", "b"), "ab"[chosen[i]], (1.0, float(2 * sees[i] - 1))) for i in range(EPOCHS)]
    return contribution("s", epochs, gains, "a", np.full(EPOCHS, RISK), l2=1.0, exploration=0.5, seed=1)


def test_a_regime_that_tells_which_preset_is_right_is_worth_what_it_earns() -> None:
    right = np.random.default_rng(1).integers(0, 2, EPOCHS)

    told = compared(right, sees=right, chosen=right)

    assert told.bandit.mean == pytest.approx(GAIN, rel=0.1)  # the loop was always right, equal choice earns nothing
    assert told.regime.mean > 0.8 * GAIN
    assert told.net_return["bandit, regime"] > told.net_return["best single"] > told.net_return["equal choice"] - 0.5
    assert abs(told.net_return["bandit, blind"]) < 0.2 * abs(told.net_return["bandit, regime"])


def test_a_regime_that_tells_nothing_is_worth_nothing() -> None:
    rng = np.random.default_rng(2)
    right, sees, chosen = rng.integers(0, 2, (3, EPOCHS))

    told = compared(right, sees, chosen)

    assert abs(told.regime.mean) < 3 * told.regime.standard_error
    assert abs(told.bandit.mean) < 3 * told.bandit.standard_error


def test_where_one_preset_is_always_right_a_bandit_finds_it_and_equal_choice_does_not() -> None:
    right = np.ones(EPOCHS, int)

    told = compared(right, sees=np.zeros(EPOCHS, int), chosen=right)

    assert told.best_single == "b"
    assert told.net_return["bandit, blind"] > 0.9 * told.net_return["best single"] > told.net_return["equal choice"]
    assert told.net_return["default"] < 0 < told.net_return["best single"]
    assert told.over_best.mean == 0.0  # the loop held the best one throughout


def test_a_preset_counts_from_its_admission_on() -> None:
    gains = {"a": np.full(4, -0.1), "b": np.full(4, 0.1)}
    epochs = [Epoch(("a",), "a", (1.0,))] * 2 + [Epoch(("a", "b"), "b", (1.0,))] * 2

    told = contribution("s", epochs, gains, "a", np.full(4, 0.1), l2=1.0, exploration=0.5, seed=1)

    assert told.best_single == "b"
    assert told.net_return["best single"] == pytest.approx(0.0)  # -0.1 -0.1 as the default, then +0.1 +0.1
    assert told.net_return["equal choice"] == pytest.approx(math.expm1(-0.2))


def test_a_difference_is_paired_over_epochs() -> None:
    told = difference(np.array([0.3, 0.1]), np.array([0.1, 0.1]))

    assert told.mean == pytest.approx(0.1)
    assert told.standard_error == pytest.approx(0.1)  # deviation of (0.2, 0) is 0.1414, over the root of 2
    assert math.isnan(difference(np.array([0.3]), np.array([0.1])).standard_error)


def test_no_epoch_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="at least one epoch"):
        contribution("s", [], {}, "a", np.zeros(0), l2=1.0, exploration=0.5, seed=1)
