"""The filter: what hmmlearn believes at the last row, at every row, without ever seeing a later one."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_t

from shared.regimes.compiled import filtered
from shared.regimes.features import FEATURE_NAMES, TRENDS, Candle, features_of
from shared.regimes.hmm import (
    FilterState,
    RegimeModel,
    forward_filter,
    marginal,
    odds,
    reading_hash,
    regime_model,
    start_filter,
    step_filter,
    transition_probability,
)
from tests.candles import candles

LABELS = ("BULL", "BEAR", "CHOP")
WIDTH = len(FEATURE_NAMES)


@dataclass
class Case:
    model: RegimeModel
    oracle: GaussianHMM
    rows: list[tuple[float, ...]]


def market(bars: int, seed: int) -> list[Candle]:
    """A market that rises, falls and idles, 150 bars each."""
    rng = np.random.default_rng(seed)
    drift = np.array([0.002, -0.002, 0.0])[(np.arange(bars) // 150) % 3]
    return candles((100.0 * np.exp(np.cumsum(rng.normal(drift, 0.004)))).tolist(), seed)


def any_model(seed: int, states: int = 3, **more: Any) -> tuple[RegimeModel, GaussianHMM]:
    """A random but valid model, and the same as hmmlearn's; no feature of a test is too far to count as it is."""
    rng = np.random.default_rng(seed)
    start = rng.dirichlet(np.ones(states))
    transition = 0.8 * np.eye(states) + 0.2 * rng.dirichlet(np.ones(states), states)
    means = rng.normal([0.0, 0.0, -5.0, 0.0], [1.0, 3.0, 0.5, 0.5], (states, WIDTH))
    roots = rng.normal(0, 0.5, (states, WIDTH, WIDTH))
    covariances = roots @ roots.transpose(0, 2, 1) + np.eye(WIDTH)
    oracle = GaussianHMM(states, "full", implementation="log")
    oracle.startprob_, oracle.transmat_, oracle.means_, oracle.covars_ = start, transition, means, covariances
    labels = [LABELS[k % 3] for k in range(states)]
    numbers = start.tolist(), transition.tolist(), means.tolist(), covariances.tolist()
    return regime_model(*numbers, labels, [0.0] * WIDTH, [100.0] * WIDTH, **more), oracle


@pytest.fixture(params=[(1, 3), (2, 3), (3, 2), (4, 5)], ids=lambda p: f"seed{p[0]}-states{p[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    model, oracle = any_model(*request.param)
    rows = [row for row in features_of(market(400, seed=7)) if row is not None]
    return Case(model, oracle, rows)


def test_every_prefix_has_hmmlearns_last_posterior(case: Case) -> None:
    filtered = forward_filter(case.model, case.rows)
    rows = np.array(case.rows)
    for t in range(0, len(rows), 7):
        expected = case.oracle.predict_proba(rows[: t + 1])[-1]
        assert np.abs(expected - filtered[t].posterior).max() <= 1e-12


def test_likelihoods_of_the_bars_add_up_to_hmmlearns_score(case: Case) -> None:
    total = math.fsum(state.log_likelihood for state in forward_filter(case.model, case.rows))
    assert total == pytest.approx(case.oracle.score(np.array(case.rows)), rel=1e-12)


def test_one_bar_at_a_time_gives_the_bits_of_the_whole_history(case: Case) -> None:
    state, hashes = start_filter(), []
    for row in case.rows:
        state = step_filter(case.model, state, row)
        hashes.append(reading_hash(state.posterior))
    assert hashes == [reading_hash(state.posterior) for state in forward_filter(case.model, case.rows)]


@given(st.integers(0, 300), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_future_changes_no_past_posterior(at: int, seed: int) -> None:
    model, _ = any_model(1)
    rows = [row for row in features_of(market(400, seed=7)) if row is not None]
    later = [tuple(x) for x in np.random.default_rng(seed).normal(0, 2, (len(rows) - at, WIDTH)).tolist()]
    assert forward_filter(model, rows[:at] + later)[:at] == forward_filter(model, rows)[:at]


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * WIDTH), min_size=1, max_size=20), st.integers(0, 20))
@settings(deadline=None)
def test_probabilities_sum_to_one_however_wild_the_bars(rows: list[tuple[float, ...]], seed: int) -> None:
    model, _ = any_model(seed)
    for state in forward_filter(model, rows):
        assert math.fsum(state.posterior) == pytest.approx(1.0, abs=1e-12)
        assert math.fsum(odds(model, state)) == pytest.approx(1.0, abs=1e-12)
        assert math.isfinite(state.log_likelihood)


def test_a_state_that_cannot_be_reached_is_never_believed() -> None:
    eye = [[1.0 if i == j else 0.0 for j in range(WIDTH)] for i in range(WIDTH)]
    model = regime_model(
        [1.0, 0.0],
        [[1.0, 0.0], [0.0, 1.0]],
        [[0.0] * WIDTH, [50.0] * WIDTH],
        [eye, eye],
        ["BULL", "BEAR"],
        [0.0] * WIDTH,
        [100.0] * WIDTH,
    )
    assert forward_filter(model, [(50.0,) * WIDTH] * 2)[-1].posterior == (1.0, 0.0)


def test_features_that_no_state_can_emit_are_an_error_and_no_regime() -> None:
    model, _ = any_model(1)
    for x in ((math.nan, 0.0, 0.0, 0.0), (math.inf, 0.0, 0.0, 0.0), (0.0,)):  # a wrong count is never broadcast
        with pytest.raises(ArithmeticError, match="No state of the model"):
            step_filter(model, start_filter(), x)


def test_what_lies_too_far_counts_as_if_it_lay_at_the_edge() -> None:
    model = any_model(1)[0]
    rows = [(1e200, 0.0, -5.0, 0.0)], [(800.0, 0.0, -5.0, 0.0)]  # 8 spreads of 100 from a center of 0
    assert forward_filter(model, rows[0]) == forward_filter(model, rows[1])


@pytest.mark.parametrize("tail", [0.1, 0.3])
def test_heavy_tails_are_those_of_the_t_distribution(tail: float) -> None:
    model, _ = any_model(5, states=1, tails=[tail])
    rows = [row for row in features_of(market(200, seed=7)) if row is not None]
    oracle = multivariate_t(model.means[0], model.scales[0], df=1 / tail)
    told = [state.log_likelihood for state in forward_filter(model, rows)]
    assert told == pytest.approx(oracle.logpdf(np.array(rows)).tolist(), rel=1e-12)


@pytest.mark.parametrize(
    "more", [{}, {"tails": [0.0, 0.1, 0.3]}, {"temperature": 2.5}, {"restart": 0.01}], ids=lambda more: "".join(more)
)
def test_compiled_and_interpreted_filters_have_the_same_bits(more: dict[str, Any]) -> None:
    model, _ = any_model(6, **more)
    rows = np.random.default_rng(1).normal(0.0, 3.0, (2_000, WIDTH))
    posteriors, log_likelihoods = filtered(model, rows)
    states = forward_filter(model, [tuple(row) for row in rows.tolist()])
    assert [state.posterior for state in states] == [tuple(row) for row in posteriors.tolist()]
    assert [state.log_likelihood for state in states] == log_likelihoods.tolist()


def test_a_temperature_doubts_the_bars_and_not_the_way_from_one_to_the_next() -> None:
    model, _ = any_model(2)
    hot, row = model._replace(temperature=4.0), (0.5, 1.0, -5.0, 0.2)
    start, one, other = np.array(model.start), *(step_filter(m, start_filter(), row) for m in (model, hot))
    densities = np.array(one.posterior) / start  # up to a factor
    expected = start * densities**0.25
    assert other.posterior == pytest.approx((expected / expected.sum()).tolist(), rel=1e-12)
    assert other.log_likelihood == one.log_likelihood, "what was foretold of the bar is not tempered"


def test_of_some_features_alone_a_model_says_what_they_would_on_average_over_the_others() -> None:
    model, oracle = any_model(3)
    few = marginal(model, TRENDS)
    part = GaussianHMM(3, "full", implementation="log")
    part.startprob_, part.transmat_ = oracle.startprob_, oracle.transmat_
    part.means_, part.covars_ = oracle.means_[:, :2], np.array(model.scales)[:, :2, :2]
    rows = np.random.default_rng(2).normal(0.0, 2.0, (50, 2))
    told = forward_filter(few, [tuple(row) for row in rows.tolist()])
    assert told[-1].posterior == pytest.approx(part.predict_proba(rows)[-1].tolist(), abs=1e-12)
    assert few.feature_schema == ",".join(FEATURE_NAMES[:2])


def test_a_transition_is_as_likely_as_the_matrix_says() -> None:
    model, oracle = any_model(2)
    certain = FilterState((1.0, 0.0, 0.0), 0.0)
    assert transition_probability(model, certain, "BEAR") == oracle.transmat_[0, 1]


PARAMETERS = tuple(inspect.signature(regime_model).parameters)


def scale(above: float, below: float) -> list[list[float]]:
    """A unit matrix but for two numbers."""
    unit = [[1.0 if i == j else 0.0 for j in range(WIDTH)] for i in range(WIDTH)]
    unit[0][1], unit[1][0] = above, below
    return unit


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"start": [0.5, 0.5, 0.5]}, "start must hold odds that sum to 1"),
        ({"transition": [[0.5, 0.4, 0.0], [0, 1.0, 0.0], [0.0, 0.0, 1.0]]}, "transition"),
        ({"means": [[0.0, math.nan, 0.0, 0.0]] * 3}, "means must hold finite floats"),
        ({"scales": [scale(2.0, 2.0)] * 3}, "positive definite"),
        ({"scales": [scale(0.2, 0.1)] * 3}, "symmetric"),
        ({"tails": [0.5, 0.0, 0.0]}, "tails must be in 0..0.45"),
        ({"temperature": 0.5}, "temperature must be in 1..10"),
        ({"restart": math.nan}, "restart must be in 0..0.5"),
        ({"labels": ["UP", "BEAR", "CHOP"]}, "labels"),
        ({"spread": [1.0, 0.0, 1.0, 1.0]}, "spread must be above 0"),
        ({"feature_schema": "logret/1"}, "the features must be"),
        ({"means": [[0.0, 0.0]] * 3}, "means must have 4 entries"),
    ],
)
def test_a_model_that_cannot_be_is_refused_by_name(broken: dict[str, object], expected: str) -> None:
    model, _ = any_model(1)
    with pytest.raises(ValueError, match=expected):
        regime_model(**{**{name: getattr(model, name) for name in PARAMETERS}, **broken})


def test_reading_needs_nothing_that_fits() -> None:
    code = (
        "import sys, shared.regimes.reader\n"
        "heavy = {'hmmlearn', 'sklearn', 'scipy', 'numba', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
