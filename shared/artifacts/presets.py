"""A preset: one strategy's parameters for one instrument, immutable, named by its content."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import msgspec

from shared.artifacts.canonical import canonical_json, content_id, from_canonical_json
from shared.contracts.errors import BadMessage
from shared.contracts.instruments import check_symbol
from shared.contracts.times import timeframe_length
from shared.contracts.wire import TOKEN
from shared.trading.strategy import Strategy

Number = bool | int | float
PRESET_SCHEMA = 1  # of the fields of a Preset
BIGGEST_INT = 2**53  # beyond it a float no longer tells neighbours apart


class Preset(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether its parameters lie inside their bounds is the strategy's to say, see shared/trading."""

    strategy: str
    source_hash: str  # of the strategy's code: other code, other preset
    schema_version: int
    params: dict[str, Number]
    symbol: str
    timeframe: str
    origin: Literal["backtest", "manual", "default"]

    def __post_init__(self) -> None:
        if not TOKEN.fullmatch(self.strategy):
            raise ValueError(f"a strategy's name must be 1 to 64 of letters, digits, _ and -, was {self.strategy!r}")
        if self.schema_version < 1:
            raise ValueError(f"schema_version must be at least 1, was {self.schema_version}")
        check_symbol(self.symbol)
        timeframe_length(self.timeframe)
        for name, value in self.params.items():
            if not name.isidentifier():
                raise ValueError(f"a parameter's name must be an identifier, was {name!r}")
            if not math.isfinite(value) or (isinstance(value, int) and abs(value) > BIGGEST_INT):
                raise ValueError(f"{name} must be a finite number within +-2^53, was {value!r}")


def preset_of(
    strategy: Strategy,
    params: Mapping[str, Number],
    symbol: str,
    timeframe: str,
    origin: Literal["backtest", "manual", "default"],
) -> Preset:
    """These parameters for this strategy's code as it is now."""
    return Preset(
        strategy=strategy.name,
        source_hash=strategy.source,
        schema_version=PRESET_SCHEMA,
        params=dict(params),
        symbol=symbol,
        timeframe=timeframe,
        origin=origin,
    )


def default_preset(strategy: Strategy, symbol: str, timeframe: str) -> Preset:
    """The author's own parameters: the same bytes, and so the same id, wherever it is made."""
    return preset_of(strategy, strategy.defaults._asdict(), symbol, timeframe, "default")


def preset_bytes(preset: Preset) -> bytes:
    """The bytes under whose hash the preset is known, and that travel in its events."""
    return canonical_json(preset)


def preset_id(preset: Preset) -> str:
    """SHA-256 of its bytes, in hex."""
    return content_id(preset_bytes(preset))


def preset_from_bytes(blob: bytes, expected_id: str | None = None) -> Preset:
    """The preset in these bytes. Raises BadMessage when they are not one, or not the one that was expected."""
    if expected_id is not None and content_id(blob) != expected_id:
        raise BadMessage(f"Expected the preset {expected_id}, its bytes have the SHA-256 {content_id(blob)}.")
    return from_canonical_json(blob, Preset)
