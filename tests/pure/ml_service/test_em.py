"""What a fit learns: the same as hmmlearn where both can, heavy tails where they are, and more from what is new."""

from __future__ import annotations

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM

from services.ml_service.em import (
    Array,
    Parameters,
    expectation,
    guess,
    maximisation,
    stationary,
    statistics_of,
)
from services.ml_service.fitting import updated

STAY = np.array([[0.97, 0.02, 0.01], [0.02, 0.96, 0.02], [0.01, 0.04, 0.95]])
TRUE_MEANS = np.array([[1.0, 2.0], [-1.5, 0.0], [0.0, -2.0]])


def drawn(rows: int, seed: int, freedom: float = np.inf) -> tuple[Array, Array]:
    """Rows (n, 2) of a chain with three states and unit scales, and the states."""
    chance = np.random.default_rng(seed)
    states = np.zeros(rows, dtype=np.int64)
    for t in range(1, rows):
        states[t] = chance.choice(3, p=STAY[states[t - 1]])
    noise = chance.normal(size=(rows, 2))
    if np.isfinite(freedom):
        noise /= np.sqrt(chance.chisquare(freedom, rows) / freedom)[:, None]
    return TRUE_MEANS[states] + noise, states


def some(seed: int = 0, tails: float = 0.0) -> Parameters:
    return guess(drawn(2_000, seed)[0], 3, np.random.default_rng(seed))._replace(tails=np.full(3, tails))


def oracle_of(parameters: Parameters) -> GaussianHMM:
    oracle = GaussianHMM(len(parameters.start), "full", implementation="log")
    oracle.startprob_, oracle.transmat_ = parameters.start, parameters.transition
    oracle.means_, oracle.covars_ = parameters.means, parameters.scales
    return oracle


def fitted(rows: Array, parameters: Parameters, iterations: int = 60) -> Parameters:
    for _ in range(iterations):
        parameters = maximisation(expectation(parameters, rows)[0], parameters.tails)
    return parameters


def test_likelihood_and_smoothed_posteriors_are_hmmlearns() -> None:
    rows, _ = drawn(1_000, seed=1)
    parameters = some(2)
    said, log_likelihood = expectation(parameters, rows)
    score, posterior = oracle_of(parameters).score_samples(rows)
    assert log_likelihood == pytest.approx(score / len(rows), rel=1e-12)
    assert said.rows == pytest.approx(posterior.sum(axis=0), rel=1e-9)
    assert said.sums == pytest.approx(posterior.T @ rows, rel=1e-9)
    assert said.ways.sum() == pytest.approx(len(rows) - 1)


def test_no_iteration_makes_the_likelihood_worse_but_by_what_the_pseudo_counts_take() -> None:
    rows, _ = drawn(2_000, seed=3)
    for tail in (0.0, 0.2):
        parameters, told = some(3, tail), list[float]()
        for _ in range(30):
            said, log_likelihood = expectation(parameters, rows)
            told.append(log_likelihood)
            parameters = maximisation(said, parameters.tails)
        assert (np.diff(told) > -1e-6).all(), f"tail {tail}"


def test_the_parameters_that_made_the_rows_are_found() -> None:
    rows, states = drawn(8_000, seed=4)
    found = fitted(rows, some(4))
    order = [int(np.argmin(((found.means - mean) ** 2).sum(axis=1))) for mean in TRUE_MEANS]
    assert sorted(order) == [0, 1, 2]
    assert found.means[order] == pytest.approx(TRUE_MEANS, abs=0.15)
    assert found.transition[np.ix_(order, order)] == pytest.approx(STAY, abs=0.03)
    assert stationary(found.transition)[order] == pytest.approx(np.bincount(states) / len(states), abs=0.05)


@pytest.mark.parametrize(("freedom", "wins"), [(3.0, True), (np.inf, False)])
def test_heavy_tails_explain_unseen_rows_better_where_rows_have_them(freedom: float, wins: bool) -> None:
    rows, unseen = drawn(4_000, seed=5, freedom=freedom)[0], drawn(4_000, seed=6, freedom=freedom)[0]
    normal, heavy = (expectation(fitted(rows, some(5, tail)), unseen)[1] for tail in (0.0, 1 / 3))
    assert (heavy > normal) is wins


def test_a_state_that_loses_its_rows_keeps_a_density() -> None:
    rows = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0]]), 500, axis=0)  # two points: every covariance would be singular
    found = fitted(
        rows, guess(rows + np.random.default_rng(1).normal(0, 1e-3, rows.shape), 4, np.random.default_rng(1))
    )
    condition = [np.linalg.cond(scale) for scale in found.scales]
    assert max(condition) < 1e6 and all(np.linalg.eigvalsh(scale)[0] > 0 for scale in found.scales)
    assert np.isfinite(expectation(found, rows)[1])


def test_what_a_model_is_remembered_by_gives_it_back() -> None:
    parameters = some(7)
    again = maximisation(statistics_of(parameters, 1e6), parameters.tails)
    assert again.means == pytest.approx(parameters.means, abs=1e-3)
    assert again.scales == pytest.approx(parameters.scales, abs=1e-3)
    assert again.transition == pytest.approx(parameters.transition, abs=1e-3)


def test_a_stepwise_update_follows_a_market_that_moved() -> None:
    before = fitted(drawn(4_000, seed=8)[0], some(8))
    news, unseen = drawn(16_000, seed=9)[0] + 1.0, drawn(4_000, seed=10)[0] + 1.0  # everything lies elsewhere now
    after = updated(before, news, window=4_000)
    refitted = fitted(news, before)
    stale, fresh, best = (expectation(one, unseen)[1] for one in (before, after, refitted))
    assert stale < fresh - 0.1 and fresh == pytest.approx(best, abs=0.05)
