"""Several models as one: their states side by side, weighted by how well each explained bars that it had not seen.

The members share no way from one to another but a restart, at which the next state is drawn by their weights. So the
filter of the whole is the exact filter of the mixture: a member that foretells the last bars better is believed more,
and none is ever given up for good (Herbster & Warmuth, "Tracking the Best Expert", Machine Learning 32, 1998).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from services.ml_service.em import Array, Parameters, stationary
from shared.contracts.regime import RegimeName
from shared.regimes.features import LONG
from shared.regimes.hmm import RegimeModel, regime_model

RESTART = 1.0 / 480.0  # a bar: ten times what the longest trend looks back


def model_of(parameters: Parameters, center: Array, spread: Array, labels: Sequence[RegimeName]) -> RegimeModel:
    """The model of these standardised parameters, in the features' own units. Raises ValueError when there is none."""
    return regime_model(
        start=parameters.start.tolist(),
        transition=parameters.transition.tolist(),
        means=(parameters.means * spread + center).tolist(),
        scales=(parameters.scales * np.outer(spread, spread)).tolist(),
        labels=labels,
        center=center.tolist(),
        spread=spread.tolist(),
        tails=parameters.tails.tolist(),
    )


def combined(members: Sequence[RegimeModel], scores: Sequence[float], held_out: int) -> RegimeModel:
    """One model of all members (of the same center and spread); a single one is itself.

    `scores` are log-likelihoods of a bar on `held_out` bars. They weigh as if only every 48th bar were news: the others
    share most of their window with it.
    """
    if len(members) == 1:
        return members[0]
    worth = [math.exp((score - max(scores)) * held_out / LONG) for score in scores]
    weights = [one / math.fsum(worth) for one in worth]
    edges = list(pairwise(accumulate((len(one.start) for one in members), initial=0)))
    total = edges[-1][1]
    start, transition = np.zeros(total), np.zeros((total, total))
    for one, weight, (first, last) in zip(members, weights, edges, strict=True):
        ways = np.array(one.transition)
        start[first:last] = weight * stationary(ways)
        transition[first:last, first:last] = ways
    return regime_model(
        start=(start / start.sum()).tolist(),
        transition=transition.tolist(),
        means=[mean for one in members for mean in one.means],
        scales=[scale for one in members for scale in one.scales],
        labels=[label for one in members for label in one.labels],
        center=members[0].center,
        spread=members[0].spread,
        tails=[tail for one in members for tail in one.tails],
        restart=RESTART,
    )


def members_of(model: RegimeModel, states: Sequence[int]) -> list[RegimeModel] | None:
    """The members of which a model of these states consists; None when it was not made so."""
    if sum(states) != len(model.start) or (len(states) > 1) != (model.restart > 0.0):
        return None
    edges = list(pairwise(accumulate(states, initial=0)))
    members: list[RegimeModel] = []
    for first, last in edges:
        start = np.array(model.start[first:last])
        ways = np.array([row[first:last] for row in model.transition[first:last]])
        if not np.allclose(ways.sum(axis=1), 1.0) or not start.sum() > 0.0:
            return None
        members.append(
            regime_model(
                start=(start / start.sum()).tolist(),
                transition=ways.tolist(),
                means=model.means[first:last],
                scales=model.scales[first:last],
                labels=model.labels[first:last],
                center=model.center,
                spread=model.spread,
                tails=model.tails[first:last],
            )
        )
    return members
