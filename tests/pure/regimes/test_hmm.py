"""The filter: what hmmlearn believes at the last row, at every row, without ever seeing a later one."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from hmmlearn.hmm import GaussianHMM
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.regimes.features import features_of_closes
from shared.regimes.hmm import (
    FilterState,
    RegimeModel,
    forward_filter,
    odds,
    reading_hash,
    regime_model,
    start_filter,
    step_filter,
    transition_probability,
)

LABELS = ("BULL", "BEAR", "CHOP")


@dataclass
class Case:
    model: RegimeModel
    oracle: GaussianHMM
    rows: list[tuple[float, ...]]


def market(bars: int, seed: int) -> list[float]:
    """Closes of a market that rises, falls and idles, 150 bars each."""
    rng = np.random.default_rng(seed)
    drift = np.array([0.002, -0.002, 0.0])[(np.arange(bars) // 150) % 3]
    return (100.0 * np.exp(np.cumsum(rng.normal(drift, 0.004)))).tolist()


def any_model(seed: int, states: int = 3) -> tuple[RegimeModel, GaussianHMM]:
    """A random but valid model, and the same as hmmlearn's."""
    rng = np.random.default_rng(seed)
    start = rng.dirichlet(np.ones(states))
    transition = 0.8 * np.eye(states) + 0.2 * rng.dirichlet(np.ones(states), states)
    means = rng.normal([0.0, 0.0, -5.0], [2.0, 3.0, 0.5], (states, 3))
    roots = rng.normal(0, 0.5, (states, 3, 3))
    covariances = roots @ roots.transpose(0, 2, 1) + np.eye(3)
    oracle = GaussianHMM(states, "full", implementation="log")
    oracle.startprob_, oracle.transmat_, oracle.means_, oracle.covars_ = start, transition, means, covariances
    labels = [LABELS[k % 3] for k in range(states)]
    model = regime_model(
        start.tolist(), transition.tolist(), means.tolist(), covariances.tolist(), labels, [0.0] * 3, [1.0] * 3
    )
    return model, oracle


@pytest.fixture(params=[(1, 3), (2, 3), (3, 2), (4, 5)], ids=lambda p: f"seed{p[0]}-states{p[1]}")
def case(request: pytest.FixtureRequest) -> Case:
    model, oracle = any_model(*request.param)
    rows = [row for row in features_of_closes(market(400, seed=7)) if row is not None]
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
    rows = [row for row in features_of_closes(market(400, seed=7)) if row is not None]
    later = [tuple(x) for x in np.random.default_rng(seed).normal(0, 2, (len(rows) - at, 3)).tolist()]
    assert forward_filter(model, rows[:at] + later)[:at] == forward_filter(model, rows)[:at]


@given(st.lists(st.tuples(*[st.floats(-1e6, 1e6)] * 3), min_size=1, max_size=20), st.integers(0, 20))
@settings(deadline=None)
def test_probabilities_sum_to_one_however_wild_the_bars(rows: list[tuple[float, ...]], seed: int) -> None:
    model, _ = any_model(seed)
    for state in forward_filter(model, rows):
        assert math.fsum(state.posterior) == pytest.approx(1.0, abs=1e-12)
        assert math.fsum(odds(model, state)) == pytest.approx(1.0, abs=1e-12)
        assert math.isfinite(state.log_likelihood)


def test_a_state_that_cannot_be_reached_is_never_believed() -> None:
    eye = [[1.0 if i == j else 0.0 for j in range(3)] for i in range(3)]
    model = regime_model(
        [1.0, 0.0],
        [[1.0, 0.0], [0.0, 1.0]],
        [[0.0] * 3, [50.0] * 3],
        [eye, eye],
        ["BULL", "BEAR"],
        [0.0] * 3,
        [1.0] * 3,
    )
    assert forward_filter(model, [(50.0, 50.0, 50.0)] * 2)[-1].posterior == (1.0, 0.0)


def test_features_that_no_state_can_emit_are_an_error_and_no_regime() -> None:
    model, _ = any_model(1)
    for x in ((math.nan, 0.0, 0.0), (math.inf, 0.0, 0.0), (1e200, 0.0, 0.0)):
        with pytest.raises(ArithmeticError, match="No state of the model"):
            step_filter(model, start_filter(), x)
    with pytest.raises(ValueError):
        step_filter(model, start_filter(), (0.0,))  # a wrong feature count is never broadcast


def test_a_transition_is_as_likely_as_the_matrix_says() -> None:
    model, oracle = any_model(2)
    certain = FilterState((1.0, 0.0, 0.0), 0.0)
    assert transition_probability(model, certain, "BEAR") == oracle.transmat_[0, 1]


@pytest.mark.parametrize(
    ("broken", "expected"),
    [
        ({"start": [0.5, 0.5, 0.5]}, "start must hold odds that sum to 1"),
        ({"transition": [[0.5, 0.4, 0.0], [0, 1.0, 0.0], [0.0, 0.0, 1.0]]}, "transition"),
        ({"means": [[0.0, math.nan, 0.0]] * 3}, "means must hold finite floats"),
        ({"covariances": [[[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]] * 3}, "positive definite"),
        ({"covariances": [[[1.0, 0.2, 0.0], [0.1, 1.0, 0.0], [0.0, 0.0, 1.0]]] * 3}, "symmetric"),
        ({"labels": ["UP", "BEAR", "CHOP"]}, "labels"),
        ({"spread": [1.0, 0.0, 1.0]}, "spread must be above 0"),
        ({"feature_schema": "logret/1"}, "the features must be"),
        ({"means": [[0.0, 0.0]] * 3}, "means must have 3 entries"),
    ],
)
def test_a_model_that_cannot_be_is_refused_by_name(broken: dict[str, object], expected: str) -> None:
    model, _ = any_model(1)
    fields = ("start", "transition", "means", "covariances", "labels", "center", "spread", "feature_schema")
    with pytest.raises(ValueError, match=expected):
        regime_model(**{**{name: getattr(model, name) for name in fields}, **broken})


def test_reading_needs_nothing_that_fits() -> None:
    code = (
        "import sys, shared.regimes.reader\n"
        "heavy = {'hmmlearn', 'sklearn', 'scipy', 'numba', 'numpy', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
