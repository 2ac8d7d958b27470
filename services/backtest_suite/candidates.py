"""What was found, as a candidate that the governor can judge: made here for searches and for people alike."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from services.backtest_suite.manifests import Params
from shared.artifacts.presets import preset_bytes, preset_id, preset_of
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Costs, Figures, PresetCandidate, Span
from shared.contracts.wire import open_envelope, pack, unpack, wrap
from shared.trading.strategy import Strategy

MOST_IN_A_FILE = 1000


@dataclass(frozen=True)
class Found:
    """A parameter set that did best in training, and how it did after that."""

    params: Params
    train: Span
    train_figures: Figures
    test: Span
    test_figures: Figures
    trials: int  # sets that were run on the training span


def candidate_of(
    found: Found, strategy: Strategy, *, venue: str, symbol: str, timeframe: str, costs: Costs, proposed_at: datetime
) -> PresetCandidate:
    """The candidate, with what its maker found and how many sets it was the best of."""
    preset = preset_of(strategy, found.params, symbol, timeframe, "backtest")
    return PresetCandidate(
        preset_id=preset_id(preset),
        preset=preset_bytes(preset),
        venue=venue,
        strategy=strategy.name,
        symbol=symbol,
        timeframe=timeframe,
        origin="backtest",
        train=found.train,
        train_figures=found.train_figures,
        test=found.test,
        test_figures=found.test_figures,
        costs=costs,
        trials=found.trials,
        proposed_at=proposed_at,
    )


def written(candidates: Sequence[PresetCandidate]) -> bytes:
    """A file of them: JSON to be read, and in `message` the bytes of the wire, which are exact and guard themselves."""
    rows: list[dict[str, Any]] = [
        {
            "preset": msgspec.json.decode(one.preset),
            "trials": one.trials,
            "train": one.train_figures,
            "test": one.test_figures,
            "message": base64.b64encode(pack(wrap(one, "backtest_suite"))).decode(),
        }
        for one in candidates
    ]
    return msgspec.json.format(msgspec.json.encode({"candidates": rows}), indent=2)


class _Row(msgspec.Struct):
    message: str


class _File(msgspec.Struct):
    candidates: list[_Row]


def candidates_in(content: bytes) -> list[PresetCandidate]:
    """The candidates of such a file. Raises BadMessage when it is none, or one was changed by hand."""
    try:
        rows = msgspec.json.decode(content, type=_File).candidates
        messages = [base64.b64decode(row.message, validate=True) for row in rows]
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError) as error:
        raise BadMessage(
            f"Expected a file of `trimtab backtest presets --write`, could not read it: {error}."
        ) from error
    if not 1 <= len(messages) <= MOST_IN_A_FILE:
        raise BadMessage(f"Expected 1 to {MOST_IN_A_FILE} candidates, were {len(messages)}.")
    return [open_envelope(unpack(message), PresetCandidate) for message in messages]
