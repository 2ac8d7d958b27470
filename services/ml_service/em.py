"""Expectation and maximisation of a hidden Markov model with t (or normal) emissions. Arrays in, arrays out.

Rows are standardised before they come here: with the training span's center and spread, so that one is a usual step.
Everything that a fit learns goes through `Statistics`: a cold fit begins with guessed ones, a warm fit keeps some of
the incumbent's, and a stepwise update mixes those of one batch into those of all before (Cappé & Moulines, "On-line
expectation-maximization algorithm for latent data models", JRSS B 71(3), 2009).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from shared.regimes.hmm import RegimeModel

Array = npt.NDArray[np.float64]

# As if each state had been seen on so many rows more, spread evenly around its mean by a tenth of what is usual: a state
# that lost its rows keeps a density, and no covariance comes near to being singular.
RIDGE_ROWS = 12.0
RIDGE = 0.1
LEAST_WAY = 0.2  # pseudo-count of each transition: none is ruled out because it was not seen


class Parameters(NamedTuple):
    """A model in the units of its standardised rows: n states, d features."""

    start: Array  # (n,)
    transition: Array  # (n, n)
    means: Array  # (n, d)
    scales: Array  # (n, d, d)
    tails: Array  # (n,) 1 / degrees of freedom, 0: normal


class Statistics(NamedTuple):
    """What the rows say about a model's states, as sums over rows: all that maximisation needs."""

    first: Array  # (n,) odds of the first row's state
    ways: Array  # (n, n) transitions
    rows: Array  # (n,) rows of each state
    weights: Array  # (n,) the same, a far row counting less where tails are heavy
    sums: Array  # (n, d) weighted sums of rows
    squares: Array  # (n, d, d) and of their outer products

    def mixed(self, share: float, other: Statistics) -> Statistics:
        """(1 - share) of these and `share` of the other ones."""
        return Statistics(*((1.0 - share) * mine + share * theirs for mine, theirs in zip(self, other, strict=True)))

    def times(self, factor: float) -> Statistics:
        """As if there had been so many times as many rows."""
        return Statistics(*(factor * mine for mine in self))

    def plus(self, other: Statistics) -> Statistics:
        """Of the rows of both."""
        return Statistics(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def expectation(parameters: Parameters, rows: Array) -> tuple[Statistics, float]:
    """What `rows` (n_rows, d) say, given these parameters, and the log-likelihood of a row, nats.

    Source: Rabiner, "A Tutorial on Hidden Markov Models", Proc. IEEE 77(2), 1989, scaled forward-backward; the rows'
    weights (freedom + d) / (freedom + distance) are those of Peel & McLachlan, Statistics and Computing 10, 2000.
    """
    distances = _distances(parameters, rows)  # (n_rows, n)
    densities = _log_densities(parameters, distances, rows.shape[1])
    log_likelihood, posterior, ways = _forward_backward(densities, parameters.start, parameters.transition)
    d = rows.shape[1]
    shrink = (1.0 + parameters.tails * d) / (1.0 + parameters.tails * distances)  # 1 where the tail is 0
    weighted = posterior * shrink
    squares = np.stack([(weighted[:, k, None] * rows).T @ rows for k in range(weighted.shape[1])])
    sums = weighted.T @ rows
    found = Statistics(posterior[0], ways, posterior.sum(axis=0), weighted.sum(axis=0), sums, squares)
    return found, log_likelihood / len(rows)


def maximisation(said: Statistics, tails: Array) -> Parameters:
    """The parameters that explain what the rows said best, held off the edges by the pseudo-counts above."""
    width = said.sums.shape[1]
    ways = said.ways + LEAST_WAY
    first = said.first + LEAST_WAY
    means = said.sums / np.maximum(said.weights, 1e-12)[:, None]
    away = said.squares - said.weights[:, None, None] * means[:, :, None] * means[:, None, :]
    scales = (away + RIDGE_ROWS * RIDGE * np.eye(width)) / (said.rows + RIDGE_ROWS)[:, None, None]
    return Parameters(
        start=first / first.sum(),
        transition=ways / ways.sum(axis=1, keepdims=True),
        means=means,
        scales=(scales + scales.transpose(0, 2, 1)) / 2.0,
        tails=tails,
    )


def statistics_of(parameters: Parameters, rows: float) -> Statistics:
    """What so many rows, drawn from this model, would say on average: how a fitted model is remembered."""
    share = stationary(parameters.transition)
    count = rows * share
    outer = parameters.means[:, :, None] * parameters.means[:, None, :]
    return Statistics(
        first=np.zeros_like(share),
        ways=count[:, None] * parameters.transition,
        rows=count,
        weights=count,
        sums=count[:, None] * parameters.means,
        squares=count[:, None, None] * (parameters.scales + outer),
    )


def stationary(transition: Array) -> Array:
    """The share of time (n,) that each state takes in the long run."""
    n = len(transition)
    equations = np.vstack([transition.T - np.eye(n), np.ones(n)])
    share = np.linalg.lstsq(equations, np.append(np.zeros(n), 1.0), rcond=None)[0]
    return np.clip(share, 1e-9, None) / np.clip(share, 1e-9, None).sum()


def guess(rows: Array, states: int, chance: np.random.Generator) -> Parameters:
    """Where a cold fit begins: states around rows that lie far from each other, each taking the rows nearest to it.

    Source: Arthur & Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
    """
    centers = [rows[chance.integers(len(rows))]]
    while len(centers) < states:
        away = np.min([((rows - center) ** 2).sum(axis=1) for center in centers], axis=0)
        centers.append(rows[chance.choice(len(rows), p=away / away.sum())])
    nearest = np.zeros(len(rows), dtype=np.int64)
    for _ in range(5):
        nearest = np.argmin([((rows - center) ** 2).sum(axis=1) for center in centers], axis=0)
        centers = [rows[nearest == k].mean(axis=0) if (nearest == k).any() else centers[k] for k in range(states)]
    posterior = np.eye(states)[nearest]
    share = posterior.sum(axis=0)
    squares = np.stack([(posterior[:, k, None] * rows).T @ rows for k in range(states)])
    ways = posterior[:-1].T @ posterior[1:]
    return maximisation(Statistics(posterior[0], ways, share, share, posterior.T @ rows, squares), np.zeros(states))


def parameters_of(model: RegimeModel, center: Array, spread: Array) -> Parameters:
    """A model's parameters in the units of rows that are standardised with this center and spread (d,)."""
    return Parameters(
        start=np.array(model.start),
        transition=np.array(model.transition),
        means=(np.array(model.means) - center) / spread,
        scales=np.array(model.scales) / np.outer(spread, spread),
        tails=np.array(model.tails),
    )


def _distances(parameters: Parameters, rows: Array) -> Array:
    """Squared distance (n_rows, n) of each row from each state's mean, in that state's own steps."""
    found = np.empty((len(rows), len(parameters.means)))
    for k, (mean, scale) in enumerate(zip(parameters.means, parameters.scales, strict=True)):
        steps = np.linalg.solve(np.linalg.cholesky(scale), (rows - mean).T)
        found[:, k] = (steps * steps).sum(axis=0)
    return found


def _log_densities(parameters: Parameters, distances: Array, width: int) -> Array:
    found = np.empty_like(distances)
    for k, (scale, tail) in enumerate(zip(parameters.scales, parameters.tails.tolist(), strict=True)):
        root = 0.5 * np.linalg.slogdet(scale)[1]
        if tail > 0.0:
            freedom = 1.0 / tail
            norm = math.lgamma((freedom + width) / 2.0) - math.lgamma(freedom / 2.0)
            norm -= 0.5 * width * math.log(freedom * math.pi) + root
            found[:, k] = norm - 0.5 * (freedom + width) * np.log1p(distances[:, k] * tail)
        else:
            found[:, k] = -0.5 * (width * math.log(2.0 * math.pi) + distances[:, k]) - root
    return found


@numba.njit(cache=True)
def _forward_backward(log_densities: Any, start: Any, transition: Any) -> Any:  # pragma: no cover - compiled
    """The log-likelihood of all rows, each row's smoothed posterior (n_rows, n), and summed transitions (n, n).

    Smoothed odds are for fitting alone; nothing that trades ever sees them.
    """
    length, n = log_densities.shape
    forward, backward, density = np.empty((length, n)), np.ones((length, n)), np.empty((length, n))
    scale = np.empty(length)
    total = 0.0
    for t in range(length):
        top = log_densities[t].max()
        weight = 0.0
        for k in range(n):
            prior = start[k]
            if t > 0:
                prior = 0.0
                for i in range(n):
                    prior += forward[t - 1, i] * transition[i, k]
            density[t, k] = math.exp(log_densities[t, k] - top)
            forward[t, k] = prior * density[t, k]
            weight += forward[t, k]
        for k in range(n):
            forward[t, k] /= weight
        scale[t] = weight
        total += top + math.log(weight)
    ways = np.zeros((n, n))
    for t in range(length - 2, -1, -1):
        for i in range(n):
            later = 0.0
            for k in range(n):
                way = transition[i, k] * density[t + 1, k] * backward[t + 1, k] / scale[t + 1]
                later += way
                ways[i, k] += forward[t, i] * way
            backward[t, i] = later
    for t in range(length):
        for k in range(n):
            forward[t, k] *= backward[t, k]
    return total, forward, ways
