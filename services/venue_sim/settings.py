"""The simulated venue's settings: `TRIMTAB_VENUE_SIM_<NAME>`, or the table `[venue_sim]`."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from shared.runtime.settings import Settings, Words, words


class VenueSettings(Settings):
    SERVICE: ClassVar[str] = "venue_sim"

    market: Words = Field((), description="Files of recorded bars; none: a simulated market.")
    market_symbols: Words = Field((), description="Their symbols, in the same order, where names do not tell them.")
    symbols: Words = Field(("BTC-USDT", "ETH-USDT", "SOL-USDT"), description="Instruments of the simulated market.")
    seed: int = Field(7, description="Seed of the simulated market: the same seed is the same market.")
    history_bars: int = Field(5000, ge=0, description="Bars that have closed before the simulated market begins.")
    begins: str = Field("", description="Recorded bars that opened before this instant are history.")
    ends: str = Field("", description="Recorded bars that open at this instant or later are never told.")
    bars: int = Field(0, ge=0, description="The simulated market ends after so many bars an instrument; 0: never.")
    speed: float | Literal["max"] = Field(1.0, description="Bars a second, or max: as fast as `lockstep` has come.")
    lockstep: Words = Field((), description="Services that are waited for at speed max.")
    cash: Decimal = Field(Decimal(10_000), ge=0, description="What the account begins with, in quote currency.")
    maker_fee_bps: Decimal = Field(Decimal(10), ge=0, le=1000)
    taker_fee_bps: Decimal = Field(Decimal(10), ge=0, le=1000)
    slippage_bps: Decimal = Field(Decimal(5), ge=0, lt=10_000, description="Against the trader, on what takes.")
    api_key: str = Field("sim", description="The account's API key. It opens nothing but this simulation.")
    api_secret: SecretStr = Field(SecretStr("sim"), description="Its secret.")
    hang_up_every_bars: int = Field(0, ge=0, description="Close the market streams each so many bars; 0: never.")

    @field_validator("market", "market_symbols", "symbols", "lockstep", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)

    @field_validator("speed")
    @classmethod
    def _speed(cls, value: float | Literal["max"]) -> float | Literal["max"]:
        if value != "max" and not 0 < value <= 10_000:
            raise ValueError("a speed is above 0 and at most 10,000 bars a second, or max")
        return value

    @property
    def files(self) -> list[Path]:
        return [Path(name) for name in self.market]
