"""The null test: in a market with nothing to learn, regimes read forward earn nothing, and smoothed ones seem to.

Labels by hmmlearn's own `predict_proba` and `predict` (Viterbi) over the whole history are the usual ways to see the
future: row t depends on all later rows. Here they stand beside ours, so that this test would notice if ours saw it too.
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
from shared.regimes.features import features_of
from shared.regimes.hmm import RegimeModel, forward_filter, odds
from tests.candles import candles

SEEDS = range(24)
LEARNED, TRADED = 1_200, 5_000


def t_value(position: npt.NDArray[np.float64], returns: npt.NDArray[np.float64]) -> float:
    """Of what the positions earned on the *next* bar."""
    earned = position[:-1] * returns[1:]
    return float(earned.mean() / earned.std() * math.sqrt(len(earned)))


def oracle_of(model: RegimeModel) -> GaussianHMM:
    """The same model, in a library that looks at all rows at once."""
    oracle = GaussianHMM(3, "full", implementation="log")
    oracle.startprob_, oracle.transmat_ = np.array(model.start), np.array(model.transition)
    oracle.means_, oracle.covars_ = np.array(model.means), np.array(model.scales)
    return oracle


def test_where_there_is_nothing_to_learn_nothing_is_earned() -> None:
    fair, smoothed, viterbi = list[float](), list[float](), list[float]()
    for seed in SEEDS:
        returns = np.random.default_rng(seed).normal(0, 0.001, LEARNED + TRADED)
        bars = candles((100.0 * np.exp(np.cumsum(returns))).tolist(), seed)
        fitted = fit(FitRequest(bars[:LEARNED], LEARNED // 5, states=(3,), starts=1, seed=seed), lambda _: None)
        model = load_model(fitted.model, content_id(fitted.model))
        rows = [row for row in features_of(bars[LEARNED:]) if row is not None]
        traded = returns[-len(rows) :]
        believed = [odds(model, state) for state in forward_filter(model, rows)]
        fair.append(t_value(np.array([bull - bear for bull, bear, _ in believed]), traded))
        side = np.array([{"BULL": 1.0, "BEAR": -1.0}.get(label, 0.0) for label in model.labels])
        oracle = oracle_of(model)
        smoothed.append(t_value(oracle.predict_proba(np.array(rows)) @ side, traded))
        viterbi.append(t_value(side[oracle.predict(np.array(rows))], traded))
    told = [sum(abs(t) > 2.0 for t in values) for values in (fair, smoothed, viterbi)]
    print(f"|t| > 2 in {told[0]} of 24 seeds read forward, {told[1]} smoothed, {told[2]} by Viterbi")
    # Of 24 fair values one or two pass |t| > 2 by chance; 4 or more would in three of a hundred such experiments.
    assert told[0] <= 3
    assert min(told[1:]) >= 7, "seeing the future would show here"
