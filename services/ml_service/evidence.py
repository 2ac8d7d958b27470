"""How well a model does on bars that it has never seen. Pure: rows in, figures out.

The reference is a single Gaussian: what can be said of a bar without any memory of regimes. Like the model it knows
only bars before those that it is judged on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from shared.regimes.features import LONG, Features
from shared.regimes.hmm import FilterState, RegimeModel, forward_filter, odds
from shared.regimes.labels import NAMES
from shared.regimes.reader import SETTLE_BARS

if TYPE_CHECKING:
    import numpy.typing as npt


def judge(
    model: RegimeModel, incumbent: RegimeModel | None, before: Sequence[Features], judged: Sequence[Features]
) -> dict[str, float]:
    """Figures of a model on `judged` (n, d); on `before` (m, d) the filter settles and the reference is fitted.

    `log_likelihood` and `log_likelihood_one_gaussian` in nats a bar; `agreement` with the incumbent as the fraction of
    bars that both name alike, only when there is one; `share_*` fractions of bars; `switches` of regime a bar. With
    too few bars before, the reference is fitted to the judged ones, which only makes it harder to beat.
    """
    settling = before[-SETTLE_BARS:]
    states = _filtered(model, settling, judged)
    names = _names(model, states)
    figures = {
        "bars": float(len(judged)),
        "log_likelihood": mean_log_likelihood(states),
        "log_likelihood_one_gaussian": gaussian_log_likelihood(before if len(before) >= LONG else judged, judged),
        "switches": sum(a != b for a, b in pairwise(names)) / len(names),
        **{f"share_{name.lower()}": names.count(k) / len(names) for k, name in enumerate(NAMES)},
    }
    if incumbent is not None:
        theirs = _names(incumbent, _filtered(incumbent, settling, judged))
        figures["agreement"] = sum(a == b for a, b in zip(names, theirs, strict=True)) / len(names)
    return figures


def mean_log_likelihood(states: Sequence[FilterState]) -> float:
    """Mean log-likelihood of a bar given those before it, nats."""
    return math.fsum(state.log_likelihood for state in states) / len(states)


def gaussian_log_likelihood(fitted_on: npt.ArrayLike, judged: npt.ArrayLike) -> float:
    """Mean log-likelihood of `judged` (n, d) under one Gaussian fitted on `fitted_on` (m, d), nats a bar."""
    import numpy as np  # the service needs it for nothing else

    data, held = np.array(fitted_on), np.array(judged)
    covariance = np.atleast_2d(np.cov(data, rowvar=False, bias=True)) + 1e-9 * np.eye(data.shape[1])
    away = held - data.mean(axis=0)
    squares = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
    _, log_determinant = np.linalg.slogdet(covariance)
    return float(-0.5 * (squares.mean() + log_determinant + data.shape[1] * math.log(2.0 * math.pi)))


def _filtered(model: RegimeModel, settling: Sequence[Features], judged: Sequence[Features]) -> list[FilterState]:
    return forward_filter(model, [*settling, *judged])[len(settling) :]


def _names(model: RegimeModel, states: Sequence[FilterState]) -> list[int]:
    """The index in `NAMES` of each bar's likeliest regime."""
    found: list[int] = []
    for state in states:
        belief = odds(model, state)
        found.append(belief.index(max(belief)))
    return found
