"""The notifier's settings: `TRIMTAB_NOTIFIER_<NAME>`, or the table `[notifier]`; the channels' keys keep their plain
names."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr

from shared.runtime.settings import Settings


class NotifierSettings(Settings):
    SERVICE: ClassVar[str] = "notifier"

    telegram_bot_token: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("TELEGRAM_BOT_TOKEN"), description="Empty: no Telegram."
    )
    telegram_chat_id: str = Field(
        "", validation_alias=AliasChoices("TELEGRAM_CHAT_ID"), description="The chat that is told."
    )
    telegram_url: str = Field("https://api.telegram.org", description="Base address of the Bot API.")
    telegram_per_minute: float = Field(20.0, gt=0, description="Telegram allows a bot 20 a minute in a group.")
    slack_webhook_url: SecretStr = Field(
        SecretStr(""), validation_alias=AliasChoices("SLACK_WEBHOOK_URL"), description="Empty: no Slack."
    )
    slack_per_minute: float = Field(60.0, gt=0, description="Slack allows a webhook about one a second.")
    timeout_s: float = Field(10.0, gt=0, le=60, description="How long a channel may take to answer.")

    trades: bool = Field(True, description="Closed trades.")
    min_notional: Decimal = Field(Decimal(0), ge=0, description="Trades of less than this are not told.")
    signals: bool = Field(False, description="Every wanted exposure.")
    promotions: bool = Field(True, description="What the gate promoted or demoted.")
    refusals: bool = Field(True, description="What the gate refused, with its reasons.")
    breakers: bool = Field(True, description="Trading paused, halted, active again; answers to commands.")
    rails: bool = Field(False, description="Orders made smaller or refused by a limit.")
    rejections: bool = Field(True, description="Orders that the venue refused.")
    transitions: bool = Field(False, description="Every change of a regime.")
    quality: bool = Field(False, description="Suspicious data.")
    alerts_from: Literal["info", "warning", "critical", "never"] = Field(
        "warning", description="The lowest level told."
    )
    daily: bool = Field(True, description="A summary after each day (UTC, venue time) on which a trade closed.")
