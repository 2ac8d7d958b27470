"""What the readings say together: how regimes follow one another, how long they last, and whether the model still
foretells its market. Pure: the rows come from `queries`, the model's own matrix from `expectation`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from shared.contracts.regime import RegimeName
from shared.regimes.features import LONG
from shared.regimes.labels import NAMES

DRIFT_BARS = LONG  # the batch of ml_service's drift test: bars share their windows with their neighbours
DWELL_FROM = (1, 2, 4, 8, 16, 32, 64, 128)  # bars: where each column of the histogram begins; the last has no end


class Read(NamedTuple):
    """How one bar was read."""

    regime: RegimeName
    model_id: str
    log_likelihood: float | None  # of the bar given those before it, nats; None while unknown


class Dwell(msgspec.Struct, frozen=True, kw_only=True):
    """How long one regime lasts, by the spells that were seen whole: begun and left under one model.

    A spell longer than what is kept is never seen whole, so long ones are a little too few.
    """

    spells: int
    mean_bars: float  # NaN without a spell
    histogram: list[int]  # spells by length, in the columns of `DWELL_FROM`


def transition_counts(reads: Sequence[Read]) -> list[list[int]]:
    """How many times each regime (row) was followed by each (column), by `NAMES`: (3, 3).

    Only pairs that one model named: from a model to the next, a change of name may be the model's alone.
    """
    counts = [[0] * len(NAMES) for _ in NAMES]
    for before, after in pairwise(reads):
        if _is_pair(before, after):
            counts[NAMES.index(before.regime)][NAMES.index(after.regime)] += 1
    return counts


def dwells(reads: Sequence[Read]) -> dict[RegimeName, Dwell]:
    """How long each regime lasted."""
    spells: dict[RegimeName, list[int]] = {name: [] for name in NAMES}
    length = 0  # of the spell at hand; 0 while its beginning was not seen
    for before, now in pairwise(reads):
        if not _is_pair(before, now):
            length = 0
        elif now.regime != before.regime:
            if length:
                spells[before.regime].append(length)
            length = 1
        elif length:
            length += 1
    return {name: _dwell(lengths) for name, lengths in spells.items()}


def drift_line(reads: Sequence[Read]) -> list[float | None]:
    """The mean log-likelihood of the last `DRIFT_BARS` bars at each, nats a bar; None until one model read so many."""
    line: list[float | None] = []
    run: list[float] = []  # of the model at hand
    for i, read in enumerate(reads):
        if read.log_likelihood is None or (i and read.model_id != reads[i - 1].model_id):
            run = []
        if read.log_likelihood is not None:
            run = [*run[1 - DRIFT_BARS :], read.log_likelihood]
        line.append(math.fsum(run) / DRIFT_BARS if len(run) == DRIFT_BARS else None)
    return line


def _is_pair(before: Read, after: Read) -> bool:
    return "UNKNOWN" not in (before.regime, after.regime) and before.model_id == after.model_id


def _dwell(lengths: Sequence[int]) -> Dwell:
    ends = (*DWELL_FROM[1:], math.inf)
    return Dwell(
        spells=len(lengths),
        mean_bars=sum(lengths) / len(lengths) if lengths else math.nan,
        histogram=[sum(begin <= n < end for n in lengths) for begin, end in zip(DWELL_FROM, ends, strict=True)],
    )
