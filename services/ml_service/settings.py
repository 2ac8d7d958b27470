"""The variables of ml_service."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import AliasChoices, Field, field_validator, model_validator

from services.ml_service.schedule import newest_tick
from shared.contracts.times import EPOCH
from shared.regimes.features import WARMUP_BARS
from shared.regimes.hmm import MAX_STATES
from shared.runtime.settings import Settings, Words, words


def check_states(states: tuple[int, ...]) -> None:
    """Raises ValueError unless a model can have these states."""
    if not states or min(states) < 1 or sum(states) > MAX_STATES or len(set(states)) < len(states):
        raise ValueError(f"states must be different numbers >= 1 that sum to at most {MAX_STATES}, were {list(states)}")


class MlSettings(Settings):
    """When a model is trained, and on what. Set one with `TRIMTAB_ML_SERVICE_<NAME>`."""

    SERVICE: ClassVar[str] = "ml_service"

    states: tuple[int, ...] = Field(
        (3,), description="Hidden states of the model, as [3]; several, as [2, 3, 4, 5], make an ensemble."
    )
    basket: Words = Field(
        (), description="Instruments whose regime is also read as that of one market; at least two, empty: none."
    )
    starts: int = Field(4, ge=1, le=50, description="Random starts of a fit; the best one on held-out rows is taken.")
    seed: int = Field(7, ge=0, lt=2**31, description="Seed of the first start.")
    train_bars: int = Field(4000, description="The newest bars that a training looks at.")
    min_train_bars: int = Field(800, description="With fewer bars there is no training.")
    retrain_bars: int = Field(1000, ge=1, description="Bars of venue time between two trainings.")
    retrain_cron: str = Field(
        "",
        validation_alias=AliasChoices("RETRAIN_CRON"),
        description="When to train again, in cron's words by venue time (UTC), instead of by retrain_bars: '0 3 * * *'.",
    )
    governor_share: float = Field(
        0.2, gt=0, lt=0.5, description="The newest part of the bars, which training leaves unseen for the governor."
    )
    validation_share: float = Field(
        0.2, gt=0, lt=0.5, description="Of the rest, the newest part, on which the fits are compared."
    )
    fit_timeout_s: float = Field(120.0, gt=0, description="A fit that takes longer is given up.")
    synthetic_bootstrap: bool = Field(
        True, description="With too few bars for a training, begin with a model of made-up ones. Marked, never live."
    )
    patience_s: float = Field(
        2.0, gt=0, description="History after which no bar has come for so long is complete, and is trained on."
    )

    @field_validator("basket", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)

    @model_validator(mode="after")
    def _possible_basket(self) -> Self:
        if len(self.basket) == 1 or len(set(self.basket)) < len(self.basket):
            raise ValueError(f"basket must name at least two different instruments, or none, was {list(self.basket)}")
        return self

    @field_validator("retrain_cron")
    @classmethod
    def _is_a_schedule(cls, expression: str) -> str:
        if expression:
            newest_tick(expression, EPOCH)  # raises ValueError
        return expression

    @model_validator(mode="after")
    def _possible_states(self) -> Self:
        check_states(self.states)
        return self

    @model_validator(mode="after")
    def _enough_bars(self) -> Self:
        if not 4 * WARMUP_BARS <= self.min_train_bars <= self.train_bars:
            raise ValueError(
                f"{4 * WARMUP_BARS} <= min_train_bars <= train_bars must hold, "
                f"were {self.min_train_bars} and {self.train_bars}"
            )
        return self
