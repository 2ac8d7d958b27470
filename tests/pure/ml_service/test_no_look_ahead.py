"""The null test: in a market with nothing to learn, regimes read forward earn nothing, and smoothed ones seem to.

Labels by hmmlearn's own `predict_proba` over the whole history are the usual way to see the future: row t depends on
all later rows. Here they stand beside ours, so that this test would notice if ours saw it too.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from hmmlearn.hmm import GaussianHMM

from services.ml_service.fit_lines import FitRequest
from services.ml_service.fitting import fit
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model
from shared.regimes.features import features_of_returns
from shared.regimes.hmm import RegimeModel, forward_filter, odds

SEEDS = range(24)
LEARNED, TRADED = 1_200, 1_500


def t_value(position: npt.NDArray[np.float64], returns: npt.NDArray[np.float64]) -> float:
    """Of what the positions earned on the *next* bar."""
    earned = position[:-1] * returns[1:]
    return float(earned.mean() / earned.std() * math.sqrt(len(earned)))


def smoothed(model: RegimeModel, rows: list[tuple[float, ...]]) -> npt.NDArray[np.float64]:
    """BULL minus BEAR by hmmlearn, which looks at all rows at once."""
    oracle = GaussianHMM(3, "full", implementation="log")
    oracle.startprob_, oracle.transmat_ = np.array(model.start), np.array(model.transition)
    oracle.means_, oracle.covars_ = np.array(model.means), np.array(model.covariances)
    side = np.array([{"BULL": 1.0, "BEAR": -1.0}.get(label, 0.0) for label in model.labels])
    return oracle.predict_proba(np.array(rows)) @ side


def test_where_there_is_nothing_to_learn_nothing_is_earned() -> None:
    fair, cheating = list[float](), list[float]()
    for seed in SEEDS:
        returns = np.random.default_rng(seed).normal(0, 0.001, LEARNED + TRADED)
        closes: list[float] = (100.0 * np.exp(np.cumsum(returns))).tolist()
        fitted = fit(FitRequest(closes[:LEARNED], LEARNED // 5, n_states=3, starts=1, seed=seed), lambda _: None)
        model = load_model(fitted.model, content_id(fitted.model))
        rows = [row for row in features_of_returns(returns[LEARNED:].tolist()) if row is not None]
        traded = returns[-len(rows) :]
        believed = [odds(model, state) for state in forward_filter(model, rows)]
        fair.append(t_value(np.array([bull - bear for bull, bear, _ in believed]), traded))
        cheating.append(t_value(smoothed(model, rows), traded))
    # Of 24 fair values one or two pass |t| > 2 by chance; 5 or more would happen six times in a thousand such experiments.
    assert sum(abs(t) > 2.0 for t in fair) <= 4
    assert sum(t > 2.0 for t in cheating) >= 7, "seeing the future would show here: 9 of 24 when this was written"
