"""The causal filter: what a hidden Markov model believes after each closed bar.

Forward only: the odds at bar t use bars up to t, so they never change when the future does. Plain Python scalars,
because the engine runs this once a bar and must not import what fits it; `compiled` runs the same function over whole
histories. Fitting is in ml_service.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from shared.contracts.regime import RegimeName
from shared.regimes.features import FEATURE_NAMES, FEATURE_SCHEMA, Features
from shared.regimes.labels import NAMES

Vector = tuple[float, ...]
Matrix = tuple[tuple[float, ...], ...]

MAX_STATES = 16
MAX_TEMPERATURE = 10.0
HEAVIEST_TAIL = 0.45  # 1 / degrees of freedom; from 0.5 on a t distribution has no variance
FARTHEST = 8.0  # spreads from the center: what lies farther counts as if it lay there, so that one wild bar stays one
ROW_SUM_TOLERANCE = 1e-9


class RegimeModel(NamedTuple):
    """A fitted model of n states and d features, in the features' own units. Make one with `regime_model`.

    State k emits a multivariate t distribution with scale matrix `scales[k]` and 1 / `tails[k]` degrees of freedom; a
    tail of 0 is the normal distribution with that covariance. An ensemble is one model as well: its members' states
    side by side, no way between them but `restart`, and `start` weighs them.
    """

    start: Vector  # (n,) odds of the first bar's state
    transition: Matrix  # (n, n) rows sum to 1: odds of the next state, given this one
    restart: float  # chance a bar that the next state is drawn from `start` instead
    means: Matrix  # (n, d)
    scales: tuple[Matrix, ...]  # (n, d, d)
    tails: Vector  # (n,) 1 / degrees of freedom
    temperature: float  # >= 1: what a bar says counts as its 1/temperature-th power; windows overlap, bars repeat
    labels: tuple[RegimeName, ...]  # (n,)
    center: Vector  # (d,) median of each feature over the training span
    spread: Vector  # (d,) and 1.4826 times its median distance from there
    feature_schema: str
    into: Vector  # (n * n,) derived: the transition's columns, one after the other
    centers: Vector  # (n * d,) derived: the means, one after the other
    factors: Vector  # (n * d * (d + 1) / 2,) derived: the inverse of each scale's Cholesky factor, row by row
    log_norms: Vector  # (n,) derived: the logarithm of each density at its mean
    lowest: Vector  # (d,) derived: no feature counts as less
    highest: Vector  # (d,) or as more


class FilterState(NamedTuple):
    """What is believed after a bar."""

    posterior: Vector  # (n,) sums to 1; empty before the first bar
    log_likelihood: float  # of this bar, given all before it; NaN before the first


def regime_model(
    start: Sequence[float],
    transition: Sequence[Sequence[float]],
    means: Sequence[Sequence[float]],
    scales: Sequence[Sequence[Sequence[float]]],
    labels: Sequence[RegimeName],
    center: Sequence[float],
    spread: Sequence[float],
    *,
    tails: Sequence[float] | None = None,
    restart: float = 0.0,
    temperature: float = 1.0,
    feature_schema: str = FEATURE_SCHEMA,
) -> RegimeModel:
    """The model of these parameters; without `tails` its emissions are normal.

    Raises ValueError that names the first one that cannot be.
    """
    states, width = len(start), len(FEATURE_NAMES)
    if feature_schema != FEATURE_SCHEMA:
        raise ValueError(f"the features must be {FEATURE_SCHEMA}, were {feature_schema}: fit a new model")
    if not 1 <= states <= MAX_STATES:
        raise ValueError(f"there must be 1 to {MAX_STATES} states, were {states}")
    tails = [0.0] * states if tails is None else tails
    _expect_shape("start", start, states)
    _expect_shape("transition", transition, states, states)
    _expect_shape("means", means, states, width)
    _expect_shape("scales", scales, states, width, width)
    _expect_shape("tails", tails, states)
    _expect_shape("center", center, width)
    _expect_shape("spread", spread, width)
    _expect_range("restart", restart, 0.0, 0.5)
    _expect_range("temperature", temperature, 1.0, MAX_TEMPERATURE)
    for tail in tails:
        _expect_range("tails", tail, 0.0, HEAVIEST_TAIL)
    if len(labels) != states or any(label not in NAMES for label in labels):
        raise ValueError(f"labels must name each of {states} states BULL, BEAR or CHOP, were {tuple(labels)}")
    for name, row in (("start", start), *((f"transition row {k}", row) for k, row in enumerate(transition))):
        if any(p < 0.0 for p in row) or abs(math.fsum(row) - 1.0) > ROW_SUM_TOLERANCE:
            raise ValueError(f"{name} must hold odds that sum to 1 within {ROW_SUM_TOLERANCE}, was {tuple(row)}")
    if any(width <= 0.0 for width in spread):
        raise ValueError(f"spread must be above 0, was {tuple(spread)}")
    return RegimeModel(
        start=tuple(start),
        transition=_rows(transition),
        restart=restart,
        means=_rows(means),
        scales=tuple(_rows(scale) for scale in scales),
        tails=tuple(tails),
        temperature=temperature,
        labels=tuple(labels),
        center=tuple(center),
        spread=tuple(spread),
        feature_schema=feature_schema,
        **_derived(transition, means, scales, tails, center, spread),
    )


def marginal(model: RegimeModel, features: Sequence[int]) -> RegimeModel:
    """What the model says of some of its features alone (their places), exactly: it reads rows of just these.

    Both the normal and the t distribution keep their form and their tail when other coordinates are left out.
    """

    def part(row: Sequence[float]) -> Vector:
        return tuple(row[i] for i in features)

    means = tuple(part(mean) for mean in model.means)
    scales = tuple(tuple(part(scale[i]) for i in features) for scale in model.scales)
    center, spread = part(model.center), part(model.spread)
    return model._replace(
        means=means,
        scales=scales,
        center=center,
        spread=spread,
        feature_schema=",".join(FEATURE_NAMES[i] for i in features),
        **_derived(model.transition, means, scales, model.tails, center, spread),
    )


def start_filter() -> FilterState:
    """Before the first bar."""
    return FilterState((), math.nan)


def step_filter(model: RegimeModel, state: FilterState, x: Features) -> FilterState:
    """Fold the features (d,) of one closed bar in. Raises ArithmeticError when they are not d finite numbers.

    Computed with logarithms, so a bar that is unlikely in every state still has a posterior.
    """
    if len(x) != len(model.center) or not all(map(math.isfinite, x)):
        raise ArithmeticError(
            f"No state of the model can have emitted {x}: expected {len(model.center)} finite features."
        )
    near = tuple(map(max, map(min, x, model.highest), model.lowest))
    posterior, densities = [0.0] * len(model.start), [0.0] * len(model.start)
    numbers = (*numbers_of(model), densities, posterior)
    log_likelihood = filter_row(near, state.posterior, *numbers)
    return FilterState(tuple(posterior), log_likelihood)


def filter_row(
    x: Any,
    before: Any,
    start: Any,
    into: Any,
    restart: float,
    means: Any,
    factors: Any,
    log_norms: Any,
    tails: Any,
    temperature: float,
    densities: Any,
    posterior: Any,
) -> float:
    """One step of the filter: writes the `posterior` (n,) after features `x` (d,), given the one `before` (empty at the
    first bar), and returns the bar's log-likelihood given those before, nats. `densities` (n,) is room to work in.

    Sequences are tuples and lists here and arrays compiled, all flat: one text, `+ - * /` and `math`, the same bits.
    Source of the density: Kotz & Nadarajah, "Multivariate t Distributions and Their Applications", 2004, equation 1.1.
    """
    n, d = len(start), len(x)
    way = entry = coordinate = 0
    top = -math.inf
    for k in range(n):
        prior = start[k]
        if len(before) > 0:
            came = 0.0
            for i in range(n):
                came += before[i] * into[way]
                way += 1
            prior = (1.0 - restart) * came + restart * prior
        posterior[k] = prior
        square = 0.0
        for i in range(d):
            z = 0.0
            for j in range(i + 1):
                z += factors[entry] * (x[j] - means[coordinate + j])
                entry += 1
            square += z * z
        coordinate += d
        densities[k] = log_norms[k] - 0.5 * square
        if tails[k] > 0.0:
            densities[k] = log_norms[k] - 0.5 * (1.0 / tails[k] + d) * math.log1p(square * tails[k])
        if prior > 0.0 and densities[k] > top:
            top = densities[k]
    likelihood = total = 0.0
    for k in range(n):
        if posterior[k] > 0.0:
            density = math.exp(densities[k] - top)
            likelihood += posterior[k] * density
            if temperature > 1.0:
                density = math.exp((densities[k] - top) / temperature)
            posterior[k] *= density
            total += posterior[k]
    share = 1.0 / total
    for k in range(n):
        posterior[k] *= share
    return top + math.log(likelihood)


def numbers_of(model: RegimeModel) -> tuple[Vector, Vector, float, Vector, Vector, Vector, Vector, float]:
    """What `filter_row` takes of a model, in its order."""
    return (
        model.start,
        model.into,
        model.restart,
        model.centers,
        model.factors,
        model.log_norms,
        model.tails,
        model.temperature,
    )


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


def predicted(model: RegimeModel, state: FilterState) -> Vector:
    """The odds (n,) of the next bar's state, before it is seen."""
    if not state.posterior:
        return model.start
    return tuple(
        (1.0 - model.restart) * math.fsum(p * row[k] for p, row in zip(state.posterior, model.transition, strict=True))
        + model.restart * model.start[k]
        for k in range(len(model.start))
    )


def transition_probability(model: RegimeModel, state: FilterState, name: RegimeName) -> float:
    """How likely the model thinks that the next bar's regime is `name`, given what it believes now."""
    return math.fsum(p for p, label in zip(predicted(model, state), model.labels, strict=True) if label == name)


def reading_hash(posterior: Vector) -> str:
    """SHA-256 (hex) over the posterior's exact bytes, little-endian doubles. Equal hashes: equal to the last bit."""
    return hashlib.sha256(struct.pack(f"<{len(posterior)}d", *posterior)).hexdigest()


def _derived(
    transition: Sequence[Sequence[float]],
    means: Sequence[Sequence[float]],
    scales: Sequence[Sequence[Sequence[float]]],
    tails: Sequence[float],
    center: Sequence[float],
    spread: Sequence[float],
) -> dict[str, Any]:
    """What the filter needs of the parameters, computed once."""
    factors = [_cholesky(k, scale) for k, scale in enumerate(scales)]
    return {
        "into": tuple(row[k] for k in range(len(transition)) for row in transition),
        "centers": tuple(number for mean in means for number in mean),
        "factors": tuple(number for factor in factors for row in _inverse_lower(factor) for number in row),
        "log_norms": tuple(_log_norm(factor, tail) for factor, tail in zip(factors, tails, strict=True)),
        "lowest": tuple(c - FARTHEST * s for c, s in zip(center, spread, strict=True)),
        "highest": tuple(c + FARTHEST * s for c, s in zip(center, spread, strict=True)),
    }


def _log_norm(factor: Matrix, tail: float) -> float:
    """The logarithm of the density at its mean, from the scale's Cholesky factor."""
    width = len(factor)
    root = math.fsum(math.log(factor[i][i]) for i in range(width))
    if tail > 0.0:
        freedom = 1.0 / tail
        gammas = math.lgamma((freedom + width) / 2.0) - math.lgamma(freedom / 2.0)
        return gammas - 0.5 * width * math.log(freedom * math.pi) - root
    return -0.5 * width * math.log(2.0 * math.pi) - root


def _cholesky(state: int, covariance: Sequence[Sequence[float]]) -> Matrix:
    """The lower factor L with L L^T = covariance (d, d), as rows of 1 .. d numbers."""
    rows: list[tuple[float, ...]] = []
    for i in range(len(covariance)):
        row: list[float] = []
        for j in range(i + 1):
            unit = math.sqrt(abs(covariance[i][i])) * math.sqrt(abs(covariance[j][j]))  # one of correlation
            if abs(covariance[i][j] - covariance[j][i]) > 1e-12 * unit:
                raise ValueError(f"the scale of state {state} must be symmetric, was {_rows(covariance)}")
            rest = covariance[i][j] - math.fsum(row[k] * (rows[j] if j < i else row)[k] for k in range(j))
            if i == j and not rest > 0.0:
                raise ValueError(f"the scale of state {state} must be positive definite, was {_rows(covariance)}")
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


def _expect_range(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:  # NaN is not
        raise ValueError(f"{name} must be in {least:g}..{most:g}, was {value!r}")


def _expect_shape(name: str, values: Sequence[object], *shape: int) -> None:
    """Raises ValueError unless `values` is nested like `shape` and every number in it is finite."""
    if len(values) != shape[0]:
        raise ValueError(f"{name} must have {shape[0]} entries, had {len(values)}")
    for value in values:
        if len(shape) > 1 and isinstance(value, Sequence):
            _expect_shape(name, value, *shape[1:])  # pyright: ignore[reportUnknownArgumentType]  # narrowed to Sequence
        elif len(shape) > 1 or not isinstance(value, float) or not math.isfinite(value):
            raise ValueError(f"{name} must hold finite floats in the shape {shape}, held {value!r}")
