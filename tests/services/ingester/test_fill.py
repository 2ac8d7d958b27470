"""A fill believes what a candle can be, and calls a bar absent only when it was asked for twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.ingester.archive import Archive
from services.ingester.book import TABLES, Series
from services.ingester.candles import SeriesName
from services.ingester.follow import Filler
from services.ingester.settings import IngesterSettings
from shared.bus.memory import MemoryBus
from shared.contracts.market import BarClosed, GapFound, QualityFlagged
from shared.contracts.subjects import SUBJECTS
from shared.contracts.times import to_ms
from shared.contracts.wire import open_envelope, unpack
from shared.runtime.clock import VenueClock
from shared.runtime.service import Host
from shared.runtime.store import Store

BTC = SeriesName("sim", "BTC-USDT", "1m")
MINUTE = 60_000
Row = list[Any]


def row(number: int, high: float = 101.0) -> Row:
    return [number * MINUTE, 100.0, high, 99.0, 100.5, 1.0]


class ScriptedAnswers:
    """A venue whose answers are written down: each question takes the next one, the last one for ever."""

    def __init__(self, *answers: list[Row]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def page(self, symbol: str, timeframe: str, since: int | None, limit: int = 1000) -> list[Row]:
        rows = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        return [each for each in rows if since is None or each[0] >= since][-limit:]


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host[IngesterSettings]]:
    async def serve(_host: Host[IngesterSettings]) -> None:
        pass

    store = await Store.open(None, TABLES)
    host = Host("ingester", IngesterSettings(data_dir=tmp_path), MemoryBus(), store, VenueClock())
    await host.start(serve)
    try:
        yield host
    finally:
        await host.stop()


async def filled(host: Host[IngesterSettings], venue: ScriptedAnswers) -> list[str]:
    """What a first fill from this venue tells, in words."""
    filler = Filler(host, venue, Series(BTC, None), Archive(host, host.settings.data_dir))  # pyright: ignore[reportArgumentType]
    host.spawn(filler.run(), "fill")
    await filler.fill_now()
    said: list[str] = []
    kinds: dict[str, type[Any]] = {subject.message.__name__: subject.message for subject in SUBJECTS}
    for _, _, payload in await host.store.rows("select subject, message_id, payload from outbox order by seq"):
        envelope = unpack(payload)
        match open_envelope(envelope, kinds[envelope.type]):
            case BarClosed() as bar:
                said.append(f"bar {to_ms(bar.opened_at) // MINUTE}")
            case GapFound() as gap:
                said.append(
                    f"{gap.reason} {to_ms(gap.first_opened_at) // MINUTE}..{to_ms(gap.last_opened_at) // MINUTE}"
                )
            case QualityFlagged() as flagged:
                said.append(f"{flagged.defect} {to_ms(flagged.opened_at) // MINUTE}")
            case other:
                said.append(type(other).__name__)
    return said


async def test_the_open_candle_is_never_taken(host: Host[IngesterSettings]) -> None:
    assert await filled(host, ScriptedAnswers([row(1), row(2), row(3)])) == ["bar 1", "bar 2"]


async def test_a_bar_that_is_there_when_asked_again_is_no_gap(host: Host[IngesterSettings]) -> None:
    late, whole = [row(1), row(2), row(4), row(5)], [row(1), row(2), row(3), row(4), row(5)]
    told = await filled(host, ScriptedAnswers(late, late, late, whole))  # two questions find the beginning
    assert told == ["bar 1", "bar 2", "bar 3", "bar 4"]


async def test_a_bar_that_is_lacking_twice_is_announced_in_its_place(host: Host[IngesterSettings]) -> None:
    venue = ScriptedAnswers([row(1), row(2), row(5), row(7), row(8)])
    assert await filled(host, venue) == ["bar 1", "bar 2", "absent 3..4", "bar 5", "absent 6..6", "bar 7"]
    assert venue.asked == 4  # two to find the beginning, and the page twice


async def test_a_bar_that_no_candle_can_be_is_asked_for_again_and_then_announced(host: Host[IngesterSettings]) -> None:
    broken = [row(1), row(2, high=50.0), row(3), row(4)]
    told = await filled(host, ScriptedAnswers(broken))
    assert told == ["bar 1", "undecodable 2..2", "invalid_bar 2", "bar 3"]


async def test_a_bar_that_is_mended_when_asked_again_is_taken(host: Host[IngesterSettings]) -> None:
    broken, mended = [row(1), row(2, high=50.0), row(3), row(4)], [row(1), row(2), row(3), row(4)]
    assert await filled(host, ScriptedAnswers(broken, broken, broken, mended)) == ["bar 1", "bar 2", "bar 3"]


async def test_a_long_past_is_fetched_page_by_page(host: Host[IngesterSettings]) -> None:
    class Long(ScriptedAnswers):
        async def page(self, symbol: str, timeframe: str, since: int | None, limit: int = 1000) -> list[Row]:
            self.asked += 1
            if since is None:
                return [row(2999), row(3000)]
            first = max(since // MINUTE, 700)  # the venue lists it from there on
            return [row(number) for number in range(first, min(3001, first + limit))]

    venue = Long()
    assert await filled(host, venue) == [f"bar {number}" for number in range(700, 3000)]
    assert venue.asked == 5  # the present, the beginning, and three pages of 1,000, 1,000 and 303 rows
