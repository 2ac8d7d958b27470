"""The engine's settings: `TRIMTAB_ENGINE_<NAME>`, or the table `[engine]`."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from pydantic import AliasChoices, Field, SecretStr, field_validator

from services.engine.risk import Limits
from shared.contracts.governance import Costs
from shared.contracts.instruments import check_symbol
from shared.runtime.settings import Settings, Words, words

SMALLEST_LIMIT = Decimal("0.20")  # of equity: with many sleeves no rail is below it
GROWTH = Decimal("1.25")  # x a share: what a sleeve that has earned more than others may still use


class EngineSettings(Settings):
    SERVICE: ClassVar[str] = "engine"

    strategies: Words = Field(
        ("momentum", "trend_follow"),
        validation_alias=AliasChoices("strategies", "TRADE_STRATEGIES"),
        description="Each trades each symbol as a sleeve of its own.",
    )
    symbols: Words = Field(
        ("BTC-USDT", "ETH-USDT", "SOL-USDT"), validation_alias=AliasChoices("symbols", "TRADE_SYMBOLS")
    )
    cash: Decimal = Field(
        Decimal(10_000), gt=0, description="Shared equally among the sleeves at the first start, quote."
    )
    fee_bps: float = Field(10.0, ge=0, le=1000, description="What sizing expects, and what paper fills cost.")
    slippage_bps: float = Field(5.0, ge=0, lt=10_000, description="The same.")
    api_key: SecretStr = Field(SecretStr(""), description="The venue's API key; the simulated venue needs none.")
    api_secret: SecretStr = Field(SecretStr(""), description="Its secret.")
    recv_window_ms: int = Field(5000, ge=1000, le=60_000, description="After this the venue refuses a late order.")
    reconcile_s: float = Field(30.0, gt=0, description="How often orders and balances are compared with the venue's.")

    max_order_pct: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Of the account's equity, an order's worth. Without: what a sleeve's share needs.",
    )
    max_position_pct: float | None = Field(
        None, gt=0, le=100, description="The same, of all that is held of an instrument."
    )
    max_gross_pct: float = Field(100.0, gt=0, le=100, description="The same, of all that is held.")
    orders_per_minute: int = Field(30, gt=0, description="In venue time; exits are never held up.")
    max_jump_pct: float = Field(25.0, gt=0, description="No entry on a close this far from the one before.")
    daily_loss_pct: float = Field(5.0, gt=0, description="No entries until the next day (UTC) after such a loss.")
    loss_streak: int = Field(12, gt=0, description="No entries for `cooldown_bars` after so many losses in a row.")
    cooldown_bars: int = Field(24, gt=0)
    drawdown_pct: float = Field(20.0, gt=0, description="Everything is closed and halted below the peak by this much.")

    @field_validator("strategies", "symbols", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)

    @field_validator("strategies", "symbols")
    @classmethod
    def _some_and_different(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or len(set(value)) < len(value):
            raise ValueError("at least one, and each once")
        return value

    @field_validator("symbols")
    @classmethod
    def _symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(check_symbol, value))

    @property
    def costs(self) -> Costs:
        return Costs(fee_bps=self.fee_bps, slippage_bps=self.slippage_bps)

    @property
    def limits(self) -> Limits:
        """The rails. Without a setting a sleeve may use its share of the capital, and a quarter more when it has grown."""
        sleeves = len(self.strategies) * len(self.symbols)
        return Limits(
            max_order=_fraction(self.max_order_pct, sleeves),
            max_position=_fraction(self.max_position_pct, len(self.symbols)),
            max_gross=Decimal(str(self.max_gross_pct)) / 100,
            orders_per_minute=self.orders_per_minute,
            max_jump=self.max_jump_pct / 100,
            daily_loss=Decimal(str(self.daily_loss_pct)) / 100,
            loss_streak=self.loss_streak,
            cooldown_bars=self.cooldown_bars,
            drawdown=Decimal(str(self.drawdown_pct)) / 100,
        )


def _fraction(given_pct: float | None, shares: int) -> Decimal:
    if given_pct is not None:
        return Decimal(str(given_pct)) / 100
    return min(Decimal(1), max(SMALLEST_LIMIT, GROWTH / shares))
