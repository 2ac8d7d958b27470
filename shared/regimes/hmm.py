"""The causal filter: what a hidden Markov model with Gaussian emissions believes after each closed bar.

Forward only: the odds at bar t use bars up to t, so they never change when the future does. Plain Python scalars,
because the engine runs this once a bar and must not import what fits it. Fitting is next door, in ml_service.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from shared.contracts.regime import RegimeName
from shared.regimes.features import FEATURE_NAMES, FEATURE_SCHEMA, Features
from shared.regimes.labels import NAMES

Vector = tuple[float, ...]
Matrix = tuple[tuple[float, ...], ...]

MAX_STATES = 12
ROW_SUM_TOLERANCE = 1e-9


# How a state's density is evaluated: log N(x; mean, covariance) = log_norm - |W (x - mean)|^2 / 2 with W the inverse of
# the covariance's Cholesky factor. (mean, rows of the lower triangle W, log_norm)
Emission = tuple[Vector, Vector, float]


class RegimeModel(NamedTuple):
    """A fitted model of n states and d features, in the features' own units. Make one with `regime_model`."""

    start: Vector  # (n,) odds of the first bar's state
    transition: Matrix  # (n, n) rows sum to 1: odds of the next state, given this one
    means: Matrix  # (n, d)
    covariances: tuple[Matrix, ...]  # (n, d, d)
    labels: tuple[RegimeName, ...]  # (n,)
    center: Vector  # (d,) mean of each feature over the training span
    spread: Vector  # (d,) and its standard deviation
    feature_schema: str
    emissions: tuple[Emission, ...]  # (n,) derived from means and covariances


class FilterState(NamedTuple):
    """What is believed after a bar."""

    posterior: Vector  # (n,) sums to 1; empty before the first bar
    log_likelihood: float  # of this bar, given all before it; NaN before the first


def regime_model(
    start: Sequence[float],
    transition: Sequence[Sequence[float]],
    means: Sequence[Sequence[float]],
    covariances: Sequence[Sequence[Sequence[float]]],
    labels: Sequence[RegimeName],
    center: Sequence[float],
    spread: Sequence[float],
    feature_schema: str = FEATURE_SCHEMA,
) -> RegimeModel:
    """The model of these parameters. Raises ValueError that names the first one that cannot be."""
    states, width = len(start), len(FEATURE_NAMES)
    if feature_schema != FEATURE_SCHEMA:
        raise ValueError(f"the features must be {FEATURE_SCHEMA}, were {feature_schema}: fit a new model")
    if not 1 <= states <= MAX_STATES:
        raise ValueError(f"there must be 1 to {MAX_STATES} states, were {states}")
    _expect_shape("start", start, states)
    _expect_shape("transition", transition, states, states)
    _expect_shape("means", means, states, width)
    _expect_shape("covariances", covariances, states, width, width)
    _expect_shape("center", center, width)
    _expect_shape("spread", spread, width)
    if len(labels) != states or any(label not in NAMES for label in labels):
        raise ValueError(f"labels must name each of {states} states BULL, BEAR or CHOP, were {tuple(labels)}")
    for name, row in (("start", start), *((f"transition row {k}", row) for k, row in enumerate(transition))):
        if any(p < 0.0 for p in row) or abs(math.fsum(row) - 1.0) > ROW_SUM_TOLERANCE:
            raise ValueError(f"{name} must hold odds that sum to 1 within {ROW_SUM_TOLERANCE}, was {tuple(row)}")
    if any(width <= 0.0 for width in spread):
        raise ValueError(f"spread must be above 0, was {tuple(spread)}")

    factors = [_cholesky(k, covariance) for k, covariance in enumerate(covariances)]
    return RegimeModel(
        start=tuple(start),
        transition=_rows(transition),
        means=_rows(means),
        covariances=tuple(_rows(covariance) for covariance in covariances),
        labels=tuple(labels),
        center=tuple(center),
        spread=tuple(spread),
        feature_schema=feature_schema,
        emissions=tuple(_emission(mean, factor) for mean, factor in zip(means, factors, strict=True)),
    )


def start_filter() -> FilterState:
    """Before the first bar."""
    return FilterState((), math.nan)


def step_filter(model: RegimeModel, state: FilterState, x: Features) -> FilterState:
    """Fold the features (d,) of one closed bar in.

    Computed with logarithms, so a bar that is unlikely in every state still has a posterior. Raises ArithmeticError
    where none exists, which finite features of `features` cannot bring about.
    """
    x0, x1, x2 = x
    weights: list[float] = []
    for k, ((m0, m1, m2), (w00, w10, w11, w20, w21, w22), log_norm) in enumerate(model.emissions):
        # Written out for the three features that there are: as loops this takes three times as long.
        a0, a1, a2 = x0 - m0, x1 - m1, x2 - m2
        z0, z1, z2 = w00 * a0, w10 * a0 + w11 * a1, w20 * a0 + w21 * a1 + w22 * a2
        prior = 0.0
        if state.posterior:
            for p, row in zip(state.posterior, model.transition, strict=True):
                prior += p * row[k]
        else:
            prior = model.start[k]
        density = log_norm - 0.5 * (z0 * z0 + z1 * z1 + z2 * z2)
        weights.append(math.log(prior) + density if prior > 0.0 else -math.inf)
    top = max(weights)
    if not math.isfinite(top):
        raise ArithmeticError(f"No state of the model can have emitted {x}: expected finite features near its means.")
    weights = [math.exp(w - top) for w in weights]
    total = 0.0
    for w in weights:
        total += w
    return FilterState(tuple(w / total for w in weights), top + math.log(total))


def forward_filter(model: RegimeModel, rows: Iterable[Features]) -> list[FilterState]:
    """The filter over rows of features (n_bars, d), from its start: one state a row, by the same scalar function."""
    state, states = start_filter(), list[FilterState]()
    for row in rows:
        state = step_filter(model, state, row)
        states.append(state)
    return states


def odds(model: RegimeModel, state: FilterState) -> tuple[float, float, float]:
    """The probabilities of (BULL, BEAR, CHOP): states of one name are added up."""
    bull = bear = chop = 0.0
    for label, p in zip(model.labels, state.posterior, strict=True):
        if label == "BULL":
            bull += p
        elif label == "BEAR":
            bear += p
        else:
            chop += p
    return bull, bear, chop


def transition_probability(model: RegimeModel, state: FilterState, name: RegimeName) -> float:
    """How likely the model thinks that the next bar's regime is `name`, given what it believes now."""
    return math.fsum(
        p * model.transition[i][k]
        for i, p in enumerate(state.posterior)
        for k, label in enumerate(model.labels)
        if label == name
    )


def reading_hash(posterior: Vector) -> str:
    """SHA-256 (hex) over the posterior's exact bytes, little-endian doubles. Equal hashes: equal to the last bit."""
    return hashlib.sha256(struct.pack(f"<{len(posterior)}d", *posterior)).hexdigest()


def _emission(mean: Sequence[float], factor: Matrix) -> Emission:
    width = len(mean)
    log_norm = -0.5 * width * math.log(2.0 * math.pi) - math.fsum(math.log(factor[i][i]) for i in range(width))
    return tuple(mean), tuple(number for row in _inverse_lower(factor) for number in row), log_norm


def _cholesky(state: int, covariance: Sequence[Sequence[float]]) -> Matrix:
    """The lower factor L with L L^T = covariance (d, d), as rows of 1 .. d numbers."""
    rows: list[tuple[float, ...]] = []
    for i in range(len(covariance)):
        row: list[float] = []
        for j in range(i + 1):
            if abs(covariance[i][j] - covariance[j][i]) > 1e-12 * abs(covariance[i][i] + covariance[j][j]):
                raise ValueError(f"the covariance of state {state} must be symmetric, was {_rows(covariance)}")
            rest = covariance[i][j] - math.fsum(row[k] * (rows[j] if j < i else row)[k] for k in range(j))
            if i == j and not rest > 0.0:
                raise ValueError(f"the covariance of state {state} must be positive definite, was {_rows(covariance)}")
            row.append(math.sqrt(rest) if i == j else rest / rows[j][j])
        rows.append(tuple(row))
    return tuple(rows)


def _inverse_lower(factor: Matrix) -> Matrix:
    """The inverse of a lower triangular matrix, in the same form."""
    rows: list[tuple[float, ...]] = []
    for i, row in enumerate(factor):
        inverse = [-math.fsum(row[k] * rows[k][j] for k in range(j, i)) / row[i] for j in range(i)]
        rows.append((*inverse, 1.0 / row[i]))
    return tuple(rows)


def _rows(matrix: Sequence[Sequence[float]]) -> Matrix:
    return tuple(tuple(row) for row in matrix)


def _expect_shape(name: str, values: Sequence[object], *shape: int) -> None:
    """Raises ValueError unless `values` is nested like `shape` and every number in it is finite."""
    if len(values) != shape[0]:
        raise ValueError(f"{name} must have {shape[0]} entries, had {len(values)}")
    for value in values:
        if len(shape) > 1 and isinstance(value, Sequence):
            _expect_shape(name, value, *shape[1:])  # pyright: ignore[reportUnknownArgumentType]  # narrowed to Sequence
        elif len(shape) > 1 or not isinstance(value, float) or not math.isfinite(value):
            raise ValueError(f"{name} must hold finite floats in the shape {shape}, held {value!r}")
