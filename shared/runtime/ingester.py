"""Asks the ingester for the bars that it holds. What a service makes of the columns is its own."""

from __future__ import annotations

from datetime import datetime

import httpx

from shared.contracts.errors import BadMessage, TryAgain

TIMEOUT_S = 10.0


class IngesterClient:
    """`GET /bars` of the ingester at an address."""

    def __init__(self, address: str) -> None:
        self._client = httpx.AsyncClient(base_url=address, timeout=TIMEOUT_S)

    async def bars(self, symbol: str, timeframe: str, first: datetime, last: datetime) -> bytes:
        """An Arrow file of the bars that opened in [first, last]: timestamp (ms), open, high, low, close, volume.

        Raises TryAgain when it does not answer, BadMessage when it refuses.
        """
        asked = {"symbol": symbol, "timeframe": timeframe, "first": first.isoformat(), "last": last.isoformat()}
        try:
            answer = await self._client.get("/bars", params=asked)
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
