"""What the service and its fitting process say to each other."""

from __future__ import annotations

import msgspec


class FitRequest(msgspec.Struct, frozen=True):
    """What to fit. `closes` are prices, oldest first; the last `validation_bars` of them are held out."""

    closes: list[float]
    validation_bars: int
    n_states: int
    starts: int
    seed: int


class FitProgress(msgspec.Struct, frozen=True, tag="progress"):
    """One start is done."""

    start: int  # 1, 2, ...
    of: int
    iterations: int
    log_likelihood: float | None  # held out, nats a bar; None when it did not converge


class Fitted(msgspec.Struct, frozen=True, tag="fitted"):
    """The best start."""

    model: bytes  # npz
    scores: dict[str, float]


class NotFitted(msgspec.Struct, frozen=True, tag="failed"):
    """There is no model, and why."""

    reason: str


FitLine = FitProgress | Fitted | NotFitted
