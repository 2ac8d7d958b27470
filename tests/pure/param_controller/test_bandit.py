"""The bandit finds the right preset for each regime, and the two ways to get that wrong lose in the same market."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.param_controller.bandit import LinTS, chance

REGIMES = ((1.0, 1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 1.0, 0.0))  # bias, bull, bear, chop
ARMS = ("trend", "fade", "idle")
# What each arm earns in each regime, in R: one is right in each, and over all of them no arm is better than another.
EARNS = {"trend": (0.5, -0.1, -0.4), "fade": (-0.4, 0.5, -0.1), "idle": (-0.1, -0.4, 0.5)}
NOISE_R = 0.8
Choose = Callable[[int, Sequence[float]], str]


def best(regime: int) -> float:
    return max(earned[regime] for earned in EARNS.values())


def regret_of(
    choose: Choose, learn: Callable[[str, Sequence[float], float], None], rounds: int, seed: int
) -> list[float]:
    """Cumulative regret (rounds,) in R against who knows the regime's best arm."""
    rng = np.random.default_rng(seed)
    lost, total = 0.0, list[float]()
    for round_ in range(rounds):
        regime = int(rng.integers(len(REGIMES)))
        arm = choose(round_, REGIMES[regime])
        mean = EARNS[arm][regime]
        learn(arm, REGIMES[regime], mean + NOISE_R * float(rng.standard_normal()))
        lost += best(regime) - mean
        total.append(lost)
    return total


def lints(dimension: int = 5) -> LinTS:
    return LinTS(dimension, l2=1.0, exploration=0.5)


def test_regret_flattens_while_choosing_without_context_or_by_turns_goes_on_losing() -> None:
    rounds = 2_000
    bandit, blind = lints(), lints(dimension=1)
    seeing = regret_of(lambda n, x: bandit.choose(ARMS, x, chance(1, str(n))), bandit.learn, rounds, seed=3)
    without_context = regret_of(
        lambda n, _: blind.choose(ARMS, (1.0,), chance(1, str(n))),
        lambda arm, _, reward: blind.learn(arm, (1.0,), reward),
        rounds,
        seed=3,
    )
    by_turns = regret_of(lambda n, _: ARMS[n % len(ARMS)], lambda *_: None, rounds, seed=3)

    assert seeing[-1] - seeing[rounds // 2] < 0.25 * seeing[rounds // 2]  # the second half costs little: sublinear
    for loser in (without_context, by_turns):
        assert loser[-1] - loser[rounds // 2] > 0.9 * loser[rounds // 2]  # as much as the first: linear
        assert seeing[-1] < 0.2 * loser[-1]


def test_the_right_preset_is_found_in_each_regime() -> None:
    bandit = lints()
    regret_of(lambda n, x: bandit.choose(ARMS, x, chance(1, str(n))), bandit.learn, 2_000, seed=5)

    for regime, x in enumerate(REGIMES):
        odds = bandit.odds(ARMS, x)
        assert EARNS[max(odds, key=lambda arm: odds[arm])][regime] == best(regime)
        assert max(odds.values()) > 0.9


contexts = st.lists(st.floats(-3, 3), min_size=5, max_size=5)
lessons = st.lists(st.tuples(st.sampled_from(ARMS), contexts, st.floats(-5, 5)), max_size=30)


@given(lessons=lessons, x=contexts)
def test_odds_are_a_distribution_whatever_was_learned(
    lessons: list[tuple[str, list[float], float]], x: list[float]
) -> None:
    bandit = lints()
    for arm, context, reward in lessons:
        bandit.learn(arm, context, reward)

    odds = bandit.odds(ARMS, x)

    assert set(odds) == set(ARMS)
    assert all(0.0 <= p <= 1.0 for p in odds.values())
    assert math.isclose(sum(odds.values()), 1.0, abs_tol=1e-9)


@given(lessons=lessons)
def test_the_same_lessons_in_the_same_order_give_the_same_bits(lessons: list[tuple[str, list[float], float]]) -> None:
    once, again = lints(), lints()
    for bandit in (once, again):
        for arm, context, reward in lessons:
            bandit.learn(arm, context, reward)

    assert once.fingerprint() == again.fingerprint()


def test_odds_say_how_often_each_arm_is_drawn() -> None:
    bandit = lints()
    for n in range(12):
        bandit.learn("trend", REGIMES[0], 0.3)
        bandit.learn("fade", REGIMES[n % 3], -0.1)
    odds = bandit.odds(ARMS, REGIMES[0])

    draws = 20_000
    drawn = [bandit.choose(ARMS, REGIMES[0], chance(9, str(n))) for n in range(draws)]

    for arm in ARMS:  # four standard errors of a frequency
        assert abs(drawn.count(arm) / draws - odds[arm]) < 4 * math.sqrt(odds[arm] * (1 - odds[arm]) / draws)


def test_two_arms_have_the_odds_of_the_closed_form() -> None:
    bandit = lints()
    for _ in range(6):
        bandit.learn("trend", REGIMES[0], 0.4)
    x = np.array(REGIMES[0])
    # By hand: with l2 = 1, A = I + 6 x x^T and |x|^2 = 2, so x^T A^-1 x = 2 / 13 and the mean is 6 * 0.4 * 2 / 13.
    mean, deviation, prior = 6 * 0.4 * 2 / 13, 0.5 * math.sqrt(2 / 13), 0.5 * math.sqrt(2)
    expected = 0.5 * math.erfc(-mean / math.hypot(deviation, prior) / math.sqrt(2))

    assert bandit.odds(("trend", "fade"), x.tolist())["trend"] == pytest.approx(expected, abs=1e-9)


def test_neither_order_of_arms_nor_a_restart_changes_a_draw() -> None:
    bandit = lints()
    one = [bandit.choose(ARMS, REGIMES[0], chance(7, f"d{n}")) for n in range(50)]
    other = [bandit.choose(tuple(reversed(ARMS)), REGIMES[0], chance(7, f"d{n}")) for n in reversed(range(50))]

    assert one == list(reversed(other))
    assert len(set(one)) == len(ARMS)  # it does explore


def test_the_inverse_stays_exact_over_many_nearly_equal_contexts() -> None:
    rng = np.random.default_rng(2)
    bandit, design, response = lints(), np.eye(5), np.zeros(5)
    for _ in range(5_000):
        x = np.array(REGIMES[0]) + 1e-3 * rng.standard_normal(5)
        reward = float(rng.standard_normal())
        bandit.learn("trend", x.tolist(), reward)
        design += np.outer(x, x)
        response += reward * x
    x = np.array(REGIMES[0])

    mean = bandit._posteriors["trend"].promise(x)[0]  # pyright: ignore[reportPrivateUsage]

    assert mean == pytest.approx(float(x @ np.linalg.solve(design, response)), abs=1e-9)


def test_a_context_of_another_length_or_with_nan_is_refused() -> None:
    for wrong in ((1.0, 2.0), (1.0, math.nan, 0.0, 0.0, 0.0)):
        with pytest.raises(ValueError, match="5 finite numbers"):
            lints().choose(ARMS, wrong, chance(1, "d"))
