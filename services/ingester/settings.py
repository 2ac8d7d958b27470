"""The ingester's settings: `TRIMTAB_INGESTER_<NAME>`, or the table `[ingester]`."""

from __future__ import annotations

import os
from typing import ClassVar

from pydantic import AliasChoices, Field, field_validator

from services.ingester.symbols import Universe, resolve
from shared.runtime.settings import Settings, Words, words

ASK_AGAIN_S = {"sim": 0.02}  # a simulated venue knows at once all that it will ever know


class IngesterSettings(Settings):
    SERVICE: ClassVar[str] = "ingester"

    scanner_symbols: Words = Field((), description="What a symbol scanner has chosen; it comes before all lists.")
    kind: str = Field("", description="Kind of strategy; its list is the variable {KIND}_SYMBOLS.")
    strategy_symbols: Words = Field(
        (), validation_alias=AliasChoices("TRIMTAB_INGESTER_STRATEGY_SYMBOLS", "STRATEGY_SYMBOLS")
    )
    trade_symbols: Words = Field((), validation_alias=AliasChoices("TRIMTAB_INGESTER_TRADE_SYMBOLS", "TRADE_SYMBOLS"))
    history_bars: int = Field(5000, ge=0, description="Bars fetched from before the ingester first followed a series.")
    chunk_bars: int = Field(4096, ge=1, le=1_000_000, description="Bars of a Parquet part.")

    @field_validator("scanner_symbols", "strategy_symbols", "trade_symbols", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)

    @property
    def universe(self) -> Universe:
        """The symbols to follow, and which setting named them."""
        of_kind = os.environ.get(f"{self.kind.upper()}_SYMBOLS", "") if self.kind else ""
        return resolve(self.scanner_symbols, words(of_kind), self.strategy_symbols, self.trade_symbols)

    @property
    def ask_again_s(self) -> float:
        """How long to wait before a venue is asked a second time for a bar that it lacks."""
        return ASK_AGAIN_S.get(self.venue, 1.0)
