"""Fits a model, in a short-lived process of its own: `python -m services.ml_service.fitting`.

A request comes on stdin (MessagePack), progress and the answer go to stdout, one JSON object a line. One thread,
niced, no network, no files. hmmlearn is imported here and nowhere else.
"""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from hmmlearn.hmm import GaussianHMM
from threadpoolctl import threadpool_limits

from services.ml_service.evidence import gaussian_log_likelihood, mean_log_likelihood
from services.ml_service.fit_lines import FitLine, FitProgress, FitRequest, Fitted, NotFitted
from shared.artifacts.models import model_bytes
from shared.contracts.errors import BadMessage
from shared.regimes.features import FEATURE_NAMES, WARMUP_BARS, Features, features_of_closes
from shared.regimes.hmm import RegimeModel, forward_filter, regime_model
from shared.regimes.labels import name_states

NICENESS = 10
MAX_ITERATIONS = 300
GAIN_PER_BAR = 1e-5  # nats: when an iteration gains less, the fit has converged
ROWS_PER_PARAMETER = 3  # fewer rows would be learned by heart


def fit(request: FitRequest, tell: Callable[[FitProgress], None]) -> Fitted:
    """The model that explains the held-out rows best, of several seeded starts. Raises BadMessage when there is none.

    Rows before the held-out ones are all that a fit sees, the scaling included.
    """
    rows = [row for row in features_of_closes(request.closes) if row is not None]
    cut = len(rows) - request.validation_bars
    parameters = _parameters(request.n_states, len(FEATURE_NAMES))
    if cut < ROWS_PER_PARAMETER * parameters or request.validation_bars < WARMUP_BARS:
        raise BadMessage(
            f"A fit of {request.n_states} states needs {ROWS_PER_PARAMETER * parameters} rows and {WARMUP_BARS} held "
            f"out, had {max(cut, 0)} and {request.validation_bars}: train on more bars."
        )
    best: tuple[float, RegimeModel, int] | None = None
    converged = 0
    for start in range(request.starts):
        # A sum that is split among threads has other bits; and with threads 5,000 bars cost 12 CPU seconds, without 0.7.
        with threadpool_limits(1):
            model, iterations = _fit_once(rows[:cut], request.n_states, request.seed + start)
        score = None if model is None else mean_log_likelihood(forward_filter(model, rows)[cut:])
        if model is not None and score is not None:
            converged += 1
            if best is None or score > best[0]:
                best = score, model, iterations
        tell(FitProgress(start + 1, request.starts, iterations, score))
    if best is None:
        raise BadMessage(
            f"None of {request.starts} starts converged within {MAX_ITERATIONS} iterations: "
            "train on more bars, or with fewer states."
        )
    score, model, iterations = best
    scores = {
        "log_likelihood": score,
        "log_likelihood_fitted": mean_log_likelihood(forward_filter(model, rows[:cut])),
        "log_likelihood_one_gaussian": gaussian_log_likelihood(rows[:cut], rows[cut:]),
        "iterations": float(iterations),
        "starts_converged": float(converged),
        "rows_fitted": float(cut),
        "rows_held_out": float(len(rows) - cut),
    }
    return Fitted(model_bytes(model), scores)


def _fit_once(rows: Sequence[Features], n_states: int, seed: int) -> tuple[RegimeModel | None, int]:
    """One start: the model in the features' own units and the iterations it took; no model when it did not converge."""
    data = np.array(rows)
    center, spread = data.mean(axis=0), data.std(axis=0)
    if spread.min() <= 0.0:
        raise BadMessage(
            "There is nothing to learn from a market that does not move: a feature is the same on all bars."
        )
    tolerance = GAIN_PER_BAR * len(rows)
    hmm = GaussianHMM(
        n_states, "full", n_iter=MAX_ITERATIONS, tol=tolerance, random_state=seed, implementation="scaling"
    )
    try:
        hmm.fit((data - center) / spread)
    except ValueError:  # a state that lost all its rows: the start was bad, another may be good
        return None, MAX_ITERATIONS
    history = list(hmm.monitor_.history)
    # hmmlearn calls a fit converged that only ran out of iterations, or whose likelihood fell.
    if len(history) < 2 or abs(history[-1] - history[-2]) >= tolerance:
        return None, len(history)
    means = hmm.means_ * spread + center
    covariances = hmm.covars_ * np.outer(spread, spread)
    try:
        model = regime_model(
            start=hmm.startprob_.tolist(),
            transition=hmm.transmat_.tolist(),
            means=means.tolist(),
            covariances=((covariances + covariances.transpose(0, 2, 1)) / 2).tolist(),
            labels=name_states(means.tolist()),
            center=center.tolist(),
            spread=spread.tolist(),
        )
    except ValueError:  # degenerate: the same as not converged
        return None, len(history)
    return model, len(history)


def _parameters(states: int, width: int) -> int:
    """Free numbers of a model: start, transition, means, covariances."""
    return (states - 1) + states * (states - 1) + states * width + states * width * (width + 1) // 2


def main() -> int:
    """Read a request, write progress and an answer. 0 with a model, 1 without."""
    os.nice(NICENESS)
    logging.disable(logging.WARNING)  # hmmlearn's remarks on convergence; we judge it ourselves
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=FitRequest)
    if not all(math.isfinite(close) and close > 0.0 for close in request.closes):
        _say(NotFitted("Closes must be finite and above 0."))
        return 1
    try:
        fitted = fit(request, _say)
    except BadMessage as error:
        _say(NotFitted(str(error)))
        return 1
    _say(fitted)
    return 0


def _say(line: FitLine) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
