"""Asks the ingester for the bars that it holds, and in which parts. What a service makes of the columns is its own."""

from __future__ import annotations

from datetime import datetime

import httpx
import msgspec

from shared.contracts.errors import BadMessage, TryAgain
from shared.contracts.governance import Span

TIMEOUT_S = 10.0


class IngesterClient:
    """`GET /bars` of the ingester at an address."""

    def __init__(self, address: str) -> None:
        self._client = httpx.AsyncClient(base_url=address, timeout=TIMEOUT_S)

    async def bars(self, symbol: str, timeframe: str, first: datetime, last: datetime) -> bytes:
        """An Arrow file of the bars that opened in [first, last]: timestamp (ms), open, high, low, close, volume.

        Raises TryAgain when it does not answer, BadMessage when it refuses.
        """
        return await self._ask("/bars", symbol, timeframe, first, last)

    async def chunks(self, symbol: str, timeframe: str, first: datetime, last: datetime) -> tuple[Span, ...]:
        """The stored parts that hold bars which opened in [first, last], oldest first, by the hash of their content.

        Raises TryAgain when it does not answer, BadMessage when it refuses or answers something else.
        """
        body = await self._ask("/chunks", symbol, timeframe, first, last)
        try:
            return msgspec.json.decode(body, type=tuple[Span, ...])
        except msgspec.DecodeError as error:
            raise BadMessage(f"Expected the ingester's parts, could not read them: {error}.") from error

    async def _ask(self, path: str, symbol: str, timeframe: str, first: datetime, last: datetime) -> bytes:
        asked = {"symbol": symbol, "timeframe": timeframe, "first": first.isoformat(), "last": last.isoformat()}
        try:
            answer = await self._client.get(path, params=asked)
        except httpx.HTTPError as error:
            raise TryAgain(f"The ingester at {self._client.base_url} does not answer: {error!r}.") from error
        if answer.status_code >= 500:
            raise TryAgain(f"The ingester answers {answer.status_code} for {asked}.")
        if answer.status_code != 200:
            raise BadMessage(f"The ingester answers {answer.status_code} for {asked}: {answer.text[:300]}")
        return answer.content

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
