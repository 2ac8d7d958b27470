"""The venue through ccxt: closed candles as they are told, and pages of past ones when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import stamina
import structlog

from services.ingester.settings import IngesterSettings
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import from_ccxt, to_ccxt
from shared.runtime.ccxt_binance import binance_class, make_binance

PAGE = 1000  # rows that Binance gives at most, whatever is asked
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 5.0  # between two attempts to connect

log = structlog.get_logger("ingester")


class Listener(Protocol):
    """Who is told what the stream says. Both are called from the socket's own task and must not wait."""

    def on_subscribed(self) -> None:
        """The venue has confirmed: from now on every closed candle will be told. What is before must be fetched."""
        ...

    def on_closed(self, symbol: str, k: dict[str, Any]) -> None:
        """A frame that says that its candle is closed."""
        ...


class Exchange:
    """One venue's market data."""

    def __init__(self, ccxt: Any) -> None:
        self._ccxt = ccxt

    @classmethod
    def connect(cls, settings: IngesterSettings, listener: Listener) -> Exchange:
        """Make the exchange object; nothing is sent yet. Raises NeedsOperator for a venue that we do not speak to."""
        is_simulated = settings.venue == "sim"
        if not is_simulated and settings.venue != "binance":
            raise NeedsOperator(f"venue must be sim or binance, was {settings.venue!r}.")
        base_url = settings.venue_url or (settings.address_of("venue_sim") if is_simulated else "")
        return cls(make_binance(_ears(listener), base_url=base_url, is_local=is_simulated))

    async def symbols(self) -> set[str]:
        """What the venue lists, by our names. Waits for a venue that is not up yet."""
        await self._patiently("markets", self._ccxt.load_markets)
        return {from_ccxt(name) for name, market in self._ccxt.markets.items() if market["spot"]}

    async def page(self, symbol: str, timeframe: str, since: int | None, limit: int = PAGE) -> list[list[Any]]:
        """Rows from `since` (ms) on, or the latest ones; the last row may not be closed yet.

        Raises NeedsOperator when the venue refuses, as it does for a timeframe that it does not have.
        """
        from ccxt.base.errors import ExchangeError

        try:
            return await self._patiently(
                f"candles {symbol}", lambda: self._ccxt.fetch_ohlcv(to_ccxt(symbol), timeframe, since, limit)
            )
        except ExchangeError as error:
            raise NeedsOperator(
                f"The venue refuses candles of {symbol} {timeframe}: {error}. Set TIMEFRAME to one that it has."
            ) from error

    async def listen(self, symbols: Sequence[str], timeframe: str) -> None:
        """Keep the subscription alive for ever: what it says goes to the listener."""
        from ccxt.base.errors import NetworkError

        wanted = [[to_ccxt(symbol), timeframe] for symbol in symbols]
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                await self._ccxt.watch_ohlcv_for_symbols(wanted)  # its futures are never resolved: see `_ears`
            except NetworkError as error:
                log.info("stream.lost", reason=str(error)[:200], pause_s=pause_s)
            if self._ccxt.was_subscribed:
                self._ccxt.was_subscribed, pause_s = False, FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)

    async def close(self) -> None:
        await self._ccxt.close()

    async def _patiently(self, what: str, ask: Callable[[], Any]) -> Any:
        """Ask again while the network or the venue fails: a read changes nothing."""
        from ccxt.base.errors import NetworkError

        async for attempt in stamina.retry_context(
            on=NetworkError, attempts=None, timeout=None, wait_initial=FIRST_PAUSE_S, wait_max=LONGEST_PAUSE_S
        ):
            with attempt:
                if attempt.num > 1:
                    log.info("venue.retry", what=what, attempt=attempt.num)
                return await ask()


def _ears(listener: Listener) -> type[Any]:
    """ccxt's connection with our ears: every frame comes with its closed flag, every confirmation when it comes.

    ccxt itself parses a frame to six numbers, drops the flag, and keeps what nobody awaits until the next frame.
    """

    class Ears(binance_class()):
        was_subscribed = False

        def handle_ohlcv(self, client: Any, message: dict[str, Any]) -> None:
            k = message["k"]
            if k["x"]:
                listener.on_closed(from_ccxt(self.safe_symbol(k["s"], None, None, "spot")), k)

        def handle_subscription_status(self, client: Any, message: dict[str, Any]) -> dict[str, Any]:
            found = super().handle_subscription_status(client, message)
            self.was_subscribed = True
            listener.on_subscribed()
            return found

    return Ears
