"""How often each regime followed each, counted bar by bar, beside what the model that named them expects. Pure but for
the rows: who asks and who answers is in regime_routes.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import groupby
from typing import NamedTuple

from shared.contracts.regime import RegimeName, RegimeReading
from shared.contracts.times import from_ms, to_ms
from shared.regimes.hmm import FilterState, Matrix, RegimeModel, Vector, predicted
from shared.regimes.labels import NAMES
from shared.regimes.transitions import Odds
from shared.runtime.store import Statement, Store

# A row for each pair that was seen on a day (UTC, of the later bar's opening), so that a change over time can be seen.
TABLES = (
    """create table transitions (
        series text not null, model_id text not null, day_ms integer not null, before text not null,
        after text not null, bars integer not null, primary key (series, model_id, day_ms, before, after)
    ) without rowid""",
)
DAY_MS = 86_400_000
SETTLING = 40  # squarings: 2^40 steps of the chain, after which nothing of its start is left but what cannot mix

Counts = list[list[int]]  # (3, 3) bars: before, after, both as in NAMES


class Day(NamedTuple):
    """What was counted on one day."""

    day: date
    counts: Counts


def surprise_bits(probability: float) -> float:
    """How surprising something of this probability is: -log2; 0 when it was certain, NaN where nobody knew."""
    return math.inf if probability == 0.0 else -math.log2(probability)  # NaN stays NaN


def counted(series: str, before: RegimeName, named_by: str, reading: RegimeReading) -> Statement | None:
    """The row of one more pair: the bar before was called `before` by the model `named_by`.

    None unless one model named both bars: from a model to the next, a change of name may be the model's alone.
    """
    if before == "UNKNOWN" or reading.regime == "UNKNOWN" or named_by != reading.model_id:
        return None
    day_ms = to_ms(reading.opened_at) // DAY_MS * DAY_MS
    return Statement(
        "insert into transitions values (?, ?, ?, ?, ?, 1) on conflict do update set bars = bars + 1",
        (series, reading.model_id, day_ms, before, reading.regime),
    )


async def days_of(store: Store, series: str, model_id: str) -> list[Day]:
    """What was counted of this series under this model, day by day, oldest first."""
    rows = await store.rows(
        "select day_ms, before, after, bars from transitions where series = ? and model_id = ? order by day_ms",
        series,
        model_id,
    )
    days: list[Day] = []
    for day_ms, pairs in groupby(rows, key=lambda row: row[0]):
        counts: Counts = [[0] * len(NAMES) for _ in NAMES]
        for _, before, after, bars in pairs:
            counts[NAMES.index(before)][NAMES.index(after)] = bars
        days.append(Day(from_ms(day_ms).date(), counts))
    return days


def total(days: Iterable[Day]) -> Counts:
    """All days together."""
    counts: Counts = [[0] * len(NAMES) for _ in NAMES]
    for day in days:
        counts = [[a + b for a, b in zip(*rows, strict=True)] for rows in zip(counts, day.counts, strict=True)]
    return counts


def model_odds(model: RegimeModel) -> Odds:
    """The model's transition matrix (n, n) between names: states of one name weighted by how often each is visited.

    Where a name has several states this is the odds of a bar picked at random; which state it was, names do not tell.
    """
    moves, labels = _moves(model), model.labels
    visits = _visits(model.start, moves)
    flows = [
        [
            math.fsum(
                visits[i] * p
                for i, row in enumerate(moves)
                for k, p in enumerate(row)
                if (labels[i], labels[k]) == pair
            )
            for pair in ((before, after) for after in NAMES)
        ]
        for before in NAMES
    ]
    return [_normal(row) if math.fsum(row) > 0.0 else None for row in flows]


def dwell_bars(odds: Odds) -> list[float | None]:
    """How many bars each regime lasts on average by these odds: 1 / (1 - odds of staying). None where nothing is
    known, or where it was never left."""
    stays = [None if row is None else row[k] for k, row in enumerate(odds)]
    return [None if stay is None or stay >= 1.0 else 1.0 / (1.0 - stay) for stay in stays]


def _moves(model: RegimeModel) -> Matrix:
    """The odds of the next state, given this one (n, n), as the filter takes them."""
    states = range(len(model.start))
    return tuple(predicted(model, FilterState(tuple(float(i == k) for k in states), 0.0)) for i in states)


def _visits(start: Vector, moves: Matrix) -> list[float]:
    """How often each state is visited in the long run (n,), begun by the model's own start.

    Of the lazy chain (half of the time it stays), which visits alike and cannot swing for ever; and of the start,
    so that blocks that never meet keep the weights that they were given.
    """
    count = len(start)
    steps = [[(p + (i == j)) / 2.0 for j, p in enumerate(row)] for i, row in enumerate(moves)]
    for _ in range(SETTLING):
        steps = [
            _normal([math.fsum(row[k] * steps[k][j] for k in range(count)) for j in range(count)]) for row in steps
        ]
    return [math.fsum(p * steps[i][j] for i, p in enumerate(start)) for j in range(count)]


def _normal(row: Sequence[float]) -> list[float]:
    whole = math.fsum(row)
    return [p / whole for p in row]
