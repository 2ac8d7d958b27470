"""The regime of a basket, on each venue and timeframe: the index is read as an instrument is, and nobody trades it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from services.ml_service.baskets import BASKET, Index, IndexState
from services.ml_service.series import Series
from services.ml_service.settings import MlSettings
from shared.contracts.market import BarClosed, GapFound
from shared.contracts.regime import MarketRegime, RegimeReading
from shared.contracts.times import from_ms, timeframe_length, to_ms
from shared.regimes.features import Candle
from shared.runtime.listening import Effects
from shared.runtime.service import Host


class Markets:
    """Members' bars and gaps in, the index's bars out; what regimes of both have in common is remembered."""

    def __init__(self, host: Host[MlSettings]) -> None:
        self._host = host
        self.members: tuple[str, ...] = host.settings.basket
        self.indexes: dict[str, Index] = {}  # `sim.MARKET.1m` -> its index

    async def recover(self) -> None:
        """Become what we were; a basket of other members begins anew."""
        for series, blob in await self._host.store.rows("select series, state from indexes"):
            state = msgspec.msgpack.decode(blob, type=IndexState)
            if state.members == self.members:
                self.indexes[series] = Index(state)

    def on_bar(self, bar: BarClosed) -> list[BarClosed]:
        """The bars of the index that are complete by this bar, oldest first."""
        if bar.symbol not in self.members:
            return []
        index = self._index(bar.venue, bar.timeframe)
        return _bars(bar, index.on_bar(bar.symbol, to_ms(bar.opened_at), bar))

    def on_gap(self, gap: GapFound) -> list[BarClosed]:
        """The same by a gap: who has no bar in a slot is not waited for."""
        if gap.symbol not in self.members:
            return []
        index = self._index(gap.venue, gap.timeframe)
        return _bars(gap, index.on_gap(gap.symbol, to_ms(gap.last_opened_at)))

    def told(self, reading: RegimeReading, series: Mapping[str, Series]) -> MarketRegime:
        """The index's reading as it is told. Members that have read the same bar are paired with it."""
        index, odds = self._index(reading.venue, reading.timeframe), (reading.bull, reading.bear, reading.chop)
        for member in self.members:
            one = series.get(f"{reading.venue}.{member}.{reading.timeframe}")
            last = None if one is None else one.last
            if last is not None and last.opened_at_ms == to_ms(reading.opened_at):
                theirs = (last.bull, last.bear, last.chop)
                if all(map(math.isfinite, (*odds, *theirs))):
                    index.pair(member, odds, theirs)
        return MarketRegime(
            venue=reading.venue,
            timeframe=reading.timeframe,
            members=self.members,
            opened_at=reading.opened_at,
            regime=reading.regime,
            bull=reading.bull,
            bear=reading.bear,
            chop=reading.chop,
            model_id=reading.model_id,
            reading_hash=reading.reading_hash,
            log_likelihood=reading.log_likelihood,
        )

    def keep(self, member: BarClosed | GapFound, effects: Effects) -> None:
        """Keep the index as it is after this word of a member."""
        if member.symbol in self.members:
            index = self._index(member.venue, member.timeframe)
            name, state = f"{member.venue}.{BASKET}.{member.timeframe}", msgspec.msgpack.encode(index.state)
            effects.execute("insert or replace into indexes values (?, ?)", name, state)

    def _index(self, venue: str, timeframe: str) -> Index:
        return self.indexes.setdefault(f"{venue}.{BASKET}.{timeframe}", Index(IndexState(self.members)))


def _bars(by: BarClosed | GapFound, complete: list[tuple[int, Candle]]) -> list[BarClosed]:
    """The index's bars that are complete by this word of a member."""
    length = timeframe_length(by.timeframe)
    return [
        BarClosed(
            venue=by.venue,
            symbol=BASKET,
            timeframe=by.timeframe,
            opened_at=from_ms(ms),
            closed_at=from_ms(ms) + length,
            is_history=by.is_history,
            **candle._asdict(),
        )
        for ms, candle in complete
    ]
