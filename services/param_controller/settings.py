"""The variables of param_controller."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AliasChoices, Field, field_validator

from shared.runtime.settings import Settings, Words, words


class ParamSettings(Settings):
    """Which sleeves choose, how often, and how boldly. Set one with `TRIMTAB_PARAM_CONTROLLER_<NAME>`."""

    SERVICE: ClassVar[str] = "param_controller"

    # Not TRIMTAB_STRATEGIES, which is the folder of users' own: TRIMTAB_PARAM_CONTROLLER_STRATEGIES, or this alias.
    strategies: Words = Field(
        ("momentum", "trend_follow"),
        validation_alias=AliasChoices("strategies", "TRADE_STRATEGIES"),
        description="Strategies that are traded.",
    )
    epoch_bars: int = Field(24, ge=1, le=10_000, description="A choice stands at least so many bars.")
    exploration: float = Field(0.5, gt=0, le=10, description="Deviation of one reward that the bandit assumes, in R.")
    l2: float = Field(1.0, gt=0, le=1e6, description="Precision of the bandit's prior: how long it doubts luck.")
    seed: int = Field(7, ge=0, description="Seed of every choice.")
    engine_patience_s: float = Field(
        5.0, gt=0, le=600, description="An engine that is silent for so long is not waited for."
    )

    @field_validator("strategies", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)
