"""Which venue the settings mean. Paper is the default, and nothing trades for real by accident (design, law 8)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path

from services.engine.ccxt_venue import CcxtVenue
from services.engine.desk import Desk
from services.engine.paper_venue import PaperVenue
from services.engine.settings import EngineSettings
from services.engine.venue import Venue
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import Instrument

Rules = Callable[[Iterable[str]], Awaitable[dict[str, Instrument]]]
MakeVenue = Callable[[Desk, Mapping[str, Instrument]], Venue]

SIMULATED = "sim"
SIMULATED_KEY = "sim"  # opens nothing but the simulated venue


def connect(settings: EngineSettings) -> tuple[Rules, MakeVenue]:
    """What tells the rules of trading, and what makes the venue once they are known. Raises NeedsOperator."""
    check_live(settings)
    exchange = _exchange(settings)
    if settings.venue == SIMULATED or settings.mode == "live":
        return exchange.instruments, lambda desk, instruments: exchange

    def paper(desk: Desk, instruments: Mapping[str, Instrument]) -> Venue:
        return PaperVenue(settings.venue, instruments, desk.fill_at, exchange.close)

    return exchange.instruments, paper


def check_live(settings: EngineSettings) -> None:
    """Live needs both switches, a real venue and its keys, and nobody who said DRY_RUN."""
    if settings.mode != "live":
        return
    if settings.venue == SIMULATED:
        raise NeedsOperator('The simulated venue is no place for `mode = "live"`: say `paper`, or name a real venue.')
    if not _is_live_in_file() or settings.live != settings.account:
        raise NeedsOperator(
            'Live trading needs `mode = "live"` in trimtab.toml and TRIMTAB_LIVE=<account>, here '
            f"TRIMTAB_LIVE={settings.account}. One of them is missing; nothing was sent."
        )
    if settings.dry_run:
        raise NeedsOperator('DRY_RUN is set: nothing trades for real. Unset it, or say mode = "paper".')
    if not settings.api_key.get_secret_value() or not settings.api_secret.get_secret_value():
        raise NeedsOperator("Live trading needs TRIMTAB_ENGINE_API_KEY and TRIMTAB_ENGINE_API_SECRET.")


def _is_live_in_file() -> bool:
    """A variable alone must not do it: variables are inherited without anybody looking."""
    path = Path(os.environ.get("TRIMTAB_CONFIG", "trimtab.toml"))
    return path.exists() and tomllib.loads(path.read_text(encoding="utf-8")).get("mode") == "live"


def _exchange(settings: EngineSettings) -> CcxtVenue:
    if settings.venue == SIMULATED:
        return CcxtVenue(
            SIMULATED,
            base_url=settings.venue_url or settings.address_of("venue_sim"),
            api_key=SIMULATED_KEY,
            secret=SIMULATED_KEY,
            recv_window_ms=settings.recv_window_ms,
            is_local=True,
        )
    if settings.venue != "binance":
        raise NeedsOperator(f"A venue must be sim or binance, was {settings.venue!r}.")
    return CcxtVenue(
        settings.venue,
        base_url=settings.venue_url,
        api_key=settings.api_key.get_secret_value(),
        secret=settings.api_secret.get_secret_value(),
        recv_window_ms=settings.recv_window_ms,
        is_local=False,
    )
