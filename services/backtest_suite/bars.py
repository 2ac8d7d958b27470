"""Closed bars as the ingester hands them out over HTTP, and the terms on which they are traded here."""

from __future__ import annotations

import asyncio
import math
from datetime import datetime
from decimal import Decimal

import numpy as np

from shared.artifacts.bar_tables import NAMES
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument, split_symbol
from shared.runtime.ingester import IngesterClient
from shared.trading.columns import Columns
from shared.trading.compiled import Terms

CASH = Decimal(10_000)  # quote currency; figures are fractions of it
TICKS_IN_A_PRICE = 6  # a tick is about a millionth of the price: finer than any venue's, so that it decides nothing


class Ingester:
    """The bars that the ingester holds, as this service reads them."""

    def __init__(self, address: str) -> None:
        self._client = IngesterClient(address)
        self.close = self._client.close

    async def columns(self, symbol: str, timeframe: str, first: datetime, last: datetime) -> Columns:
        """The bars that opened in [first, last]. Raises TryAgain when it does not answer, BadMessage on nonsense."""
        return await asyncio.to_thread(parse_columns, await self._client.bars(symbol, timeframe, first, last))


def parse_columns(body: bytes) -> Columns:
    """The columns of an Arrow file. Raises BadMessage unless they are closed bars in order."""
    import pyarrow as pa  # heavy, and needed only when there is something to run
    import pyarrow.feather

    try:
        table = pyarrow.feather.read_table(pa.BufferReader(body), columns=list(NAMES))
        times = table["timestamp"].cast(pa.int64()).to_numpy()
        prices = [table[name].cast(pa.float64()).to_numpy() for name in NAMES[1:]]
    except (pa.ArrowException, KeyError, OSError) as error:
        raise BadMessage(f"Expected bars as an Arrow file with the columns {', '.join(NAMES)}: {error}") from error
    return Columns.of(times, *prices)


def terms_for(symbol: str, timeframe: str, bars: Columns, costs: Costs) -> Terms:
    """Terms whose tick and lot are too fine to matter: the venue's own rules are the engine's to keep."""
    base, quote = split_symbol(symbol)
    digits = math.floor(math.log10(float(np.median(bars.close))))
    instrument = Instrument(
        symbol=symbol,
        base=base,
        quote=quote,
        kind="perpetual" if symbol.endswith("-PERP") else "spot",
        tick=Decimal(1).scaleb(digits - TICKS_IN_A_PRICE),
        lot=Decimal(1).scaleb(-digits - 2),  # about a hundredth of a unit of quote currency
    )
    return Terms(instrument, timeframe, costs, CASH)
