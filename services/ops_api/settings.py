"""The page's settings: `TRIMTAB_OPS_API_<NAME>`, or the table `[ops_api]`."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, SecretStr, field_validator

from shared.runtime.settings import Settings, Words, words

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class OpsSettings(Settings):
    SERVICE: ClassVar[str] = "ops_api"

    login_secret: SecretStr = Field(
        SecretStr(""), description="Opens `/?login=...` once, for a session that may command; empty: nobody can log in."
    )
    open_reads: bool | None = Field(
        None, description="Whether reading needs no token. Not said: only while listening on loopback."
    )
    allowed_hosts: Words = Field(
        (*LOOPBACK, "ops_api"), description="Names by which this service is called; others are refused (DNS rebinding)."
    )
    market: Literal["", "simulated", "recorded"] = Field(
        "", description="Where the bars come from, for people; not said: simulated at venue sim, else the exchange."
    )
    answer_timeout_s: float = Field(5.0, gt=0, le=60, description="How long a command waits for the engine's answer.")
    bars_kept: int = Field(5000, ge=100, description="Bars and readings kept for the page, each series.")

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _words(cls, value: object) -> object:
        return words(value)

    @property
    def reads_are_open(self) -> bool:
        return self.host in LOOPBACK if self.open_reads is None else self.open_reads

    @property
    def market_shown(self) -> str:
        """`simulated`, `recorded`, or `exchange`."""
        return self.market or ("simulated" if self.venue == "sim" else "exchange")
