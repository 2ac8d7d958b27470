"""What the service and its fitting process say to each other."""

from __future__ import annotations

import msgspec

from shared.artifacts.models import How
from shared.regimes.features import Candle


class FitRequest(msgspec.Struct, frozen=True):
    """What to fit: closed bars, oldest first, of which the last `validation_bars` are held out."""

    bars: list[Candle]
    validation_bars: int
    states: tuple[int, ...]  # of the model; several make an ensemble of one member each
    starts: int
    seed: int
    incumbent: bytes = b""  # npz of the model in use; b"" when there is none that a new one should go on from
    news: int = 0  # the last so many of the bars before the held-out ones have come since the incumbent was fitted


class FitProgress(msgspec.Struct, frozen=True, tag="progress"):
    """One start is done."""

    start: int  # 1, 2, ...
    of: int
    iterations: int
    log_likelihood: float | None  # held out, nats a bar; None when it did not converge


class Fitted(msgspec.Struct, frozen=True, tag="fitted"):
    """The best start."""

    model: bytes  # npz
    how: How
    scores: dict[str, float]


class NotFitted(msgspec.Struct, frozen=True, tag="failed"):
    """There is no model, and why."""

    reason: str


FitLine = FitProgress | Fitted | NotFitted
