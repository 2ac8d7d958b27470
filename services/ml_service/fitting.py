"""Fits a model, in a short-lived process of its own: `python -m services.ml_service.fitting`.

A request comes on stdin (MessagePack), progress and the answer go to stdout, one JSON object a line. One thread,
niced, no network, no files.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
from collections.abc import Callable, Iterator
from itertools import count
from typing import NamedTuple

import msgspec
import numpy as np
from threadpoolctl import threadpool_limits

from services.ml_service.drift import BATCH_BARS
from services.ml_service.em import (
    Array,
    Parameters,
    Statistics,
    expectation,
    guess,
    maximisation,
    parameters_of,
    statistics_of,
)
from services.ml_service.ensembles import combined, members_of, model_of
from services.ml_service.evidence import gaussian_log_likelihood
from services.ml_service.fit_lines import FitLine, FitProgress, FitRequest, Fitted, How, NotFitted
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model, model_bytes
from shared.contracts.errors import BadMessage
from shared.regimes.compiled import filtered
from shared.regimes.features import FEATURE_NAMES, LONG, TRENDS, features_of
from shared.regimes.hmm import FARTHEST, RegimeModel
from shared.regimes.labels import NAMES, carried_names, name_states

NICENESS = 10
MAX_ITERATIONS = 300
GAIN_PER_ROW = 1e-5  # nats: when an iteration gains less, the fit has converged
ROWS_PER_PARAMETER = 3  # fewer rows would be learned by heart
TAILS = (1 / 30, 1 / 12, 1 / 6, 1 / 3)  # tried against normal emissions
TEMPERATURES = (1.5, 2.0, 3.0, 4.0, 6.0)  # tried against none
MEMORY = 0.5  # of the rows at hand, that the incumbent counts as when a warm fit goes on from it
BATCH_ROWS = 250  # of a stepwise update
MAD_TO_DEVIATION = 1.4826  # of a normal distribution


class Rows(NamedTuple):
    """The features of the bars (n_rows, d), how they are standardised, and where the held-out ones begin."""

    raw: Array
    center: Array
    spread: Array
    cut: int
    seen: Array  # those that a fit may learn from, in usual steps from their center, none farther than counts


class Attempt(NamedTuple):
    """One member of a model, fitted one way."""

    how: How
    parameters: Parameters
    iterations: int
    score: float  # log-likelihood of a held-out bar, nats


def fit(request: FitRequest, tell: Callable[[FitProgress], None]) -> Fitted:
    """The model that explains the held-out rows best. Raises BadMessage when there is none.

    Without an incumbent several seeded starts compete; with one, a warm fit and a stepwise update that both go on from
    it, so that what a state means is carried on. Rows before the held-out ones are all that a fit sees.
    """
    with threadpool_limits(1):  # a sum that is split among threads has other bits
        rows = _rows(request)
        incumbent = load_model(request.incumbent, content_id(request.incumbent)) if request.incumbent else None
        former = None if incumbent is None else members_of(incumbent, request.states)
        of, told = len(request.states) * (2 if former else request.starts), count(1)
        attempts: list[Attempt] = []
        for number, states in enumerate(request.states):
            tried: list[Attempt] = []
            for attempt in _attempts(request, rows, states, former[number] if former else None):
                tried.append(attempt)
                score = attempt.score if math.isfinite(attempt.score) else None
                tell(FitProgress(next(told), of, attempt.iterations, score))
            best = max(tried, key=lambda one: one.score)
            if not math.isfinite(best.score):
                raise BadMessage(
                    f"None of {len(tried)} starts of {states} states converged within {MAX_ITERATIONS} iterations: "
                    "train on more bars, or with fewer states."
                )
            attempts.append(_with_tails(rows, best))
        members = _named([_unnamed(one.parameters, rows) for one in attempts], rows, incumbent)
        model = _tempered(combined(members, [one.score for one in attempts], len(rows.raw) - rows.cut), rows)
        return Fitted(model_bytes(model), attempts[0].how, _scores(model, incumbent, rows, attempts))


def _rows(request: FitRequest) -> Rows:
    found = [row for row in features_of(request.bars) if row is not None]
    cut = len(found) - request.validation_bars
    parameters = max(_parameters(states, len(FEATURE_NAMES)) for states in request.states)
    if cut < ROWS_PER_PARAMETER * parameters or request.validation_bars < LONG:
        raise BadMessage(
            f"A fit of {max(request.states)} states needs {ROWS_PER_PARAMETER * parameters} rows and {LONG} held "
            f"out, had {max(cut, 0)} and {request.validation_bars}: train on more bars."
        )
    raw = np.array(found)
    center = np.median(raw[:cut], axis=0)
    spread = MAD_TO_DEVIATION * np.median(np.abs(raw[:cut] - center), axis=0)
    if not all(spread[i] > 0.0 for i in TRENDS):
        raise BadMessage(
            "There is nothing to learn from a market that does not move: its trend is the same on all bars."
        )
    spread = np.where(spread > 0.0, spread, 1.0)  # a market may have no volume to be surprised by
    return Rows(raw, center, spread, cut, np.clip((raw[:cut] - center) / spread, -FARTHEST, FARTHEST))


def _attempts(request: FitRequest, rows: Rows, states: int, former: RegimeModel | None) -> Iterator[Attempt]:
    """Each way of fitting one member; a score that is not finite did not converge."""
    if former is None:
        for start in range(request.starts):
            chance = np.random.default_rng([request.seed, states, start])
            yield _scored("cold", rows, *converged(guess(rows.seen, states, chance), rows.seen))
        return
    known = parameters_of(former, rows.center, rows.spread)
    memory = statistics_of(known, MEMORY * rows.cut)
    yield _scored("warm", rows, *converged(known, rows.seen, memory))
    news = rows.seen[len(rows.seen) - min(request.news, len(rows.seen)) :]
    if len(news) >= 2:
        yield _scored("stepwise", rows, updated(known, news, rows.cut), 1, True)


def converged(parameters: Parameters, seen: Array, memory: Statistics | None = None) -> tuple[Parameters, int, bool]:
    """Iterate until a row gains less than `GAIN_PER_ROW`: the parameters, the iterations, and whether that ever came."""
    last = -math.inf
    for iteration in range(1, MAX_ITERATIONS + 1):
        said, log_likelihood = expectation(parameters, seen)
        if abs(log_likelihood - last) < GAIN_PER_ROW:
            return parameters, iteration, True
        last = log_likelihood
        parameters = maximisation(said if memory is None else said.plus(memory), parameters.tails)
    return parameters, MAX_ITERATIONS, False


def updated(parameters: Parameters, news: Array, window: int) -> Parameters:
    """Stepwise: go on from these parameters over new standardised rows, a batch at a time, each counting for its share
    of a window of so many rows. Cost grows with the news alone."""
    said = statistics_of(parameters, float(window))
    for batch in np.array_split(news, max(1, round(len(news) / BATCH_ROWS))):
        found, _ = expectation(parameters, batch)
        said = said.mixed(min(1.0, len(batch) / window), found.times(window / len(batch)))
        parameters = maximisation(said, parameters.tails)
    return parameters


def _with_tails(rows: Rows, best: Attempt) -> Attempt:
    """The same with heavier tails, if held-out rows then are explained better; an incumbent's tails are carried on."""
    if best.how != "cold":
        return best
    for tail in TAILS:
        begun = best.parameters._replace(tails=np.full(len(best.parameters.start), tail))
        parameters, iterations, has_converged = converged(begun, rows.seen)
        attempt = _scored("cold", rows, parameters, best.iterations + iterations, has_converged)
        best = attempt if attempt.score > best.score else best
    return best


def _scored(how: How, rows: Rows, parameters: Parameters, iterations: int, has_converged: bool) -> Attempt:
    """How well these parameters explain the held-out rows; what has not converged, or is degenerate, explains none."""
    score = -math.inf
    if has_converged:
        with contextlib.suppress(ValueError):  # degenerate: regime_model refuses it
            score = float(filtered(_unnamed(parameters, rows), rows.raw)[1][rows.cut :].mean())
    return Attempt(how, parameters, iterations, score)


def _unnamed(parameters: Parameters, rows: Rows) -> RegimeModel:
    return model_of(parameters, rows.center, rows.spread, ("CHOP",) * len(parameters.start))


def _named(members: list[RegimeModel], rows: Rows, incumbent: RegimeModel | None) -> list[RegimeModel]:
    """The members with names: as the incumbent names the bars that both have read; without one, the member whose states
    are the most like three is named by what they emit, and the others as it names the bars."""
    teacher = incumbent
    if teacher is None:
        first = min(members, key=lambda one: abs(len(one.start) - len(NAMES)))
        teacher = first._replace(labels=name_states(first.means))
        if len(members) == 1:
            return [teacher]
    seen = rows.raw[: rows.cut]
    taught = odds_of(teacher, seen)
    return [
        one._replace(labels=carried_names((filtered(one, seen)[0].T @ taught).tolist(), one.means, teacher.labels))
        for one in members
    ]


def odds_of(model: RegimeModel, rows: Array) -> Array:
    """The filtered odds (n_rows, 3) of BULL, BEAR and CHOP."""
    return filtered(model, rows)[0] @ np.array([[float(label == name) for name in NAMES] for label in model.labels])


def _tempered(model: RegimeModel, rows: Rows) -> RegimeModel:
    """With the temperature under which each held-out bar is foretold best by those before it."""
    tried = [model._replace(temperature=temperature) for temperature in (1.0, *TEMPERATURES)]
    return max(tried, key=lambda one: float(filtered(one, rows.raw)[1][rows.cut :].mean()))


def _scores(model: RegimeModel, incumbent: RegimeModel | None, rows: Rows, attempts: list[Attempt]) -> dict[str, float]:
    log_likelihoods = filtered(model, rows.raw)[1]
    held_out = log_likelihoods[rows.cut :]
    scores = {
        "log_likelihood": float(held_out.mean()),
        "log_likelihood_fitted": float(log_likelihoods[: rows.cut].mean()),
        "log_likelihood_one_gaussian": gaussian_log_likelihood(rows.raw[: rows.cut], rows.raw[rows.cut :]),
        "log_likelihood_deviation": _batch_deviation(log_likelihoods),
        "iterations": float(max(one.iterations for one in attempts)),
        "members": float(len(attempts)),
        "temperature": model.temperature,
        "tail": float(max(model.tails)),
        "rows_fitted": float(rows.cut),
        "rows_held_out": float(len(rows.raw) - rows.cut),
    }
    if incumbent is not None:
        mine, theirs = (odds_of(one, rows.raw)[rows.cut :].argmax(axis=1) for one in (model, incumbent))
        scores["agreement"] = float((mine == theirs).mean())
    return scores


def _batch_deviation(log_likelihoods: Array) -> float:
    """Standard deviation of the mean log-likelihood of a batch of bars, as the drift test takes them."""
    batches = log_likelihoods[len(log_likelihoods) % BATCH_BARS :].reshape(-1, BATCH_BARS)
    return float(batches.mean(axis=1).std())


def _parameters(states: int, width: int) -> int:
    """Free numbers of a model: start, transition, means, scales."""
    return (states - 1) + states * (states - 1) + states * width + states * width * (width + 1) // 2


def main() -> int:
    """Read a request, write progress and an answer. 0 with a model, 1 without."""
    os.nice(NICENESS)
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=FitRequest)
    if not all(all(map(math.isfinite, bar)) and min(bar[:4]) > 0.0 and bar.volume >= 0.0 for bar in request.bars):
        _say(NotFitted("Bars must have finite prices above 0 and volumes of 0 or more."))
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
