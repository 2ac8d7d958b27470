"""The variables of backtest_suite."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from shared.contracts.governance import Costs
from shared.runtime.settings import Settings, Words, words


class BacktestSettings(Settings):
    """When parameter sets are searched for, and on what. Set one with `TRIMTAB_BACKTEST_SUITE_<NAME>`."""

    SERVICE: ClassVar[str] = "backtest_suite"

    strategies: Words = Field(
        ("momentum", "trend_follow"),
        validation_alias=AliasChoices("strategies", "TRADE_STRATEGIES"),
        description="Strategies for which presets are searched.",
    )
    search_bars: int = Field(1000, ge=10, description="Bars of venue time between two searches for one sleeve.")
    window_bars: int = Field(4000, ge=300, description="The newest bars that a search looks at, the holdout included.")
    least_bars: int = Field(1500, ge=300, description="With fewer bars there is no search.")
    train_share: float = Field(0.5, gt=0, lt=1, description="The oldest part of the window: every set is run on it.")
    test_share: float = Field(0.25, gt=0, lt=1, description="The part after it: the best sets are run on it.")
    sets: int = Field(40, ge=1, le=10_000, description="Parameter sets that one search draws, the defaults among them.")
    tested: int = Field(10, ge=1, le=1000, description="How many, the best in training, are tried on the test part.")
    best: int = Field(3, ge=1, le=20, description="How many of those that passed there are proposed to the governor.")
    least_trades: int = Field(5, ge=1, description="A set that traded less often, in either part, is not proposed.")
    seed: int = Field(7, ge=0, description="Seed of what is drawn.")
    fee_bps: float = Field(10.0, ge=0, le=1000, description="What trading costs in a search.")
    slippage_bps: float = Field(5.0, ge=0, le=1000, description="The same.")
    threads: int = Field(0, ge=0, le=256, description="Threads of one search; 0: as many as there are cores.")

    @field_validator("strategies", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)

    @model_validator(mode="after")
    def _leaves_a_holdout(self) -> Self:
        if self.train_share + self.test_share > 0.95:
            raise ValueError("train_share + test_share must leave 0.05 or more of the window unseen for the governor")
        if self.least_bars > self.window_bars:
            raise ValueError(f"least_bars must be at most window_bars, were {self.least_bars} and {self.window_bars}")
        return self

    @property
    def costs(self) -> Costs:
        return Costs(fee_bps=self.fee_bps, slippage_bps=self.slippage_bps)
