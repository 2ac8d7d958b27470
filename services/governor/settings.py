"""The variables of the governor."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from shared.contracts.governance import Costs
from shared.runtime.settings import Settings


class GovernorSettings(Settings):
    """By which gate, at which costs, how many champions. Set one with `TRIMTAB_GOVERNOR_<NAME>`."""

    SERVICE: ClassVar[str] = "governor"

    profile: Literal["demo", "paper", "live"] = Field(
        "paper",
        description="Profile of profiles.toml; live mode takes only `live`, `demo` is for the simulated market.",
    )
    fee_bps: float = Field(10.0, ge=0, le=1000, description="What trading costs in the evidence.")
    slippage_bps: float = Field(5.0, ge=0, le=1000, description="The same; the stress test doubles it.")
    manual_bars: int = Field(1500, ge=1, description="Newest bars on which a preset made by hand is judged.")
    champions_per_sleeve: int = Field(3, ge=1, le=50, description="Promoted presets of one sleeve, its default aside.")

    @property
    def costs(self) -> Costs:
        return Costs(fee_bps=self.fee_bps, slippage_bps=self.slippage_bps)
