"""A model that is refitted as the service refits it, over years of real bars: what its names mean from one to the next.

Each refit sees the newest window only, goes on from the model in use, and takes its place when the two name enough of
the same bars alike, as the gate demands. A bar is read by the model that was in use when it closed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq

from services.governor.gate import profile
from services.ml_service.em import Array
from services.ml_service.fit_lines import FitRequest
from services.ml_service.fitting import fit, odds_of
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model
from shared.regimes.compiled import filtered
from shared.regimes.features import WARMUP_BARS, Candle, features_of
from shared.regimes.hmm import RegimeModel
from shared.regimes.labels import NAMES
from shared.regimes.reader import SETTLE_BARS

UNSEEN_SHARE = VALIDATION_SHARE = 0.2  # as ml_service's settings have them
LEAST_AGREEMENT = next(
    rule.at_least for rule in profile("paper", "paper").model.successor if rule.figure == "agreement"
)


class Market(NamedTuple):
    """Real bars, with the features of each; the first ones, while warming up, are NaN."""

    name: str
    opened_ms: Array
    bars: list[Candle]
    rows: Array


class Refit(NamedTuple):
    """One refit, judged on the newest part of its window, which no fit has seen."""

    at: int  # place of the bar after its window
    how: str
    agreement: float  # with the model in use: the share of bars that both name alike
    is_refused: bool
    is_flipped: bool  # most bars that the one called by a name, the other calls by another
    cold_agreement: float  # of two fits from nothing, this one and the one before, by what their states emit
    naive_agreement: float  # of the same two by the place of their states


@dataclass
class History:
    """What came of it."""

    market: Market
    refits: list[Refit] = field(default_factory=list)
    first: int = 0  # place of the first bar that was read
    odds: Array = field(default_factory=lambda: np.empty((0, 3)))  # (n, 3) of the bars from there on
    log_likelihoods: Array = field(default_factory=lambda: np.empty(0))
    models: list[tuple[int, RegimeModel]] = field(default_factory=list)  # from which bar on, which


def market(file: Path) -> Market:
    """The bars of a Parquet file."""
    table = pq.read_table(file)
    columns = [table[name].to_numpy().astype(np.float64).tolist() for name in Candle._fields]
    bars = [Candle(*prices) for prices in zip(*columns, strict=True)]
    nothing = (np.nan,) * 4
    opened_ms = table["timestamp"].cast("timestamp[ms]").cast("int64").to_numpy()
    return Market(file.stem, opened_ms, bars, np.array([row or nothing for row in features_of(bars)]))


def refitted(of: Market, window: int, every: int, most: int | None = None, *, with_cold: bool = True) -> History:
    """Refit each `every` bars on the last `window`, at most so often, and read all bars after the first fit."""
    history = History(of)
    ends = list(range(window, len(of.bars) - every + 1, every))[: None if most is None else most + 1]
    model, before = _first(of, ends[0], window), None
    history.first, history.models = ends[0], [(ends[0], model[1])]
    odds, told = list[Array](), list[Array]()
    for end in ends:
        if end > ends[0]:
            npz, candidate = _fitted(of, end, window, model[0], every)
            unseen = of.rows[end - int(window * UNSEEN_SHARE) - SETTLE_BARS : end]
            mine, theirs = (odds_of(one, unseen)[SETTLE_BARS:].argmax(axis=1) for one in (candidate, model[1]))
            cold = _fitted(of, end, window)[1] if with_cold else None
            agreement = float((mine == theirs).mean())
            history.refits.append(
                Refit(
                    at=end,
                    how=npz[1],
                    agreement=agreement,
                    is_refused=agreement < LEAST_AGREEMENT,
                    is_flipped=_is_flipped(mine, theirs),
                    cold_agreement=_agreement(cold, before, unseen, by_name=True),
                    naive_agreement=_agreement(cold, before, unseen, by_name=False),
                )
            )
            before = cold
            if agreement >= LEAST_AGREEMENT:
                model = npz[0], candidate
                history.models.append((end, candidate))
        read = of.rows[end - SETTLE_BARS : end + every]
        odds.append(odds_of(model[1], read)[SETTLE_BARS:])
        told.append(filtered(model[1], read)[1][SETTLE_BARS:])
    history.odds, history.log_likelihoods = np.concatenate(odds), np.concatenate(told)
    return history


def _first(of: Market, end: int, window: int) -> tuple[bytes, RegimeModel]:
    (npz, _), model = _fitted(of, end, window)
    return npz, model


def _fitted(
    of: Market, end: int, window: int, incumbent: bytes = b"", every: int = 0
) -> tuple[tuple[bytes, str], RegimeModel]:
    seen = of.bars[end - window : end - int(window * UNSEEN_SHARE)]
    held_out = int(len(seen) * VALIDATION_SHARE)
    made = fit(FitRequest(seen, held_out, (3,), 4, 7, incumbent, every if incumbent else 0), lambda _: None)
    return (made.model, made.how), load_model(made.model, content_id(made.model))


def _is_flipped(mine: Array, theirs: Array) -> bool:
    """Whether a name means to the one what another means to the other."""
    overlap = np.zeros((len(NAMES), len(NAMES)))
    np.add.at(overlap, (theirs, mine), 1.0)
    used = overlap.sum(axis=1) > 0
    return bool((overlap.argmax(axis=1)[used] != np.arange(len(NAMES))[used]).any())


def _agreement(one: RegimeModel | None, other: RegimeModel | None, rows: Array, *, by_name: bool) -> float:
    if one is None or other is None:
        return float("nan")
    read = odds_of if by_name else lambda model, rows: filtered(model, rows)[0]
    return float((read(one, rows)[SETTLE_BARS:].argmax(1) == read(other, rows)[SETTLE_BARS:].argmax(1)).mean())


def next_returns(history: History) -> Array:
    """The log return of the bar after each one that was read; NaN after the last."""
    closes = np.log([bar.close for bar in history.market.bars])
    returns = np.append(np.diff(closes), np.nan)
    return returns[history.first : history.first + len(history.odds)]


def dwells(named: Sequence[int] | Array) -> list[tuple[int, int]]:
    """(name, bars) of each stay in a regime."""
    edges = np.flatnonzero(np.diff(np.asarray(named))) + 1
    parts = np.split(np.asarray(named), edges)
    return [(int(part[0]), len(part)) for part in parts]


assert WARMUP_BARS < SETTLE_BARS  # so that a window's first rows are read by nobody
