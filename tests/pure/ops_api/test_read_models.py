"""What ops_api makes of what it hears, on the memory bus and without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.ops_api import queries
from services.ops_api.explain import explanation
from services.ops_api.history import regime_history
from services.ops_api.now import Now
from services.ops_api.presets import sleeves
from services.ops_api.queries import TradeFilter
from services.ops_api.readmodels import ReadModels
from services.ops_api.settings import OpsSettings
from services.ops_api.tables import TABLES
from services.ops_api.versions import model_versions
from shared.bus.memory import MemoryBus
from shared.contracts.errors import BadMessage
from shared.contracts.execution import TradeClosed
from shared.contracts.governance import ModelDemoted, PresetDemoted
from shared.contracts.risk import BreakerTripped
from shared.contracts.subjects import SUBJECTS
from shared.runtime.clock import VenueClock
from shared.runtime.listening import Effects, Handler
from shared.runtime.service import Host
from shared.runtime.store import Store
from tests.browser.story import PROMISED, STRATEGY, TIMEFRAME, Story, a_basket


class Folded:
    """A story, and a house that hears it."""

    def __init__(self, bus: MemoryBus, store: Store) -> None:
        self.store, self.story, self.now = store, Story(bus), Now("main", TIMEFRAME)
        self.models = ReadModels(self.now, bars_kept=5000)
        self.host = Host("ops_api", OpsSettings.load(), bus, store, VenueClock())
        self._kept = 0
        self._more = asyncio.Event()

    @classmethod
    async def on(cls, bus: MemoryBus, path: Path | None = None) -> Folded:
        house = cls(bus, await Store.open(path, TABLES, "NORMAL"))
        await house.models.recover(house.store)
        await house.host.listen({subject: house._counted(each) for subject, each in house.models.handlers().items()})
        return house

    async def caught_up(self, said: int) -> None:
        """Until so many messages were handled and kept."""
        async with asyncio.timeout(30):
            while self._kept < said:
                self._more.clear()
                await self._more.wait()

    def _counted(self, handle: Handler) -> Handler:
        def kept() -> None:
            self._kept += 1
            self._more.set()

        async def counted(message: Any, effects: Effects) -> None:
            await handle(message, effects)
            effects.afterwards(kept)

        return counted


@pytest.fixture
async def house() -> AsyncIterator[Folded]:
    made = await Folded.on(MemoryBus())
    await made.story.begin()
    await made.story.bars(300)
    await made.caught_up(made.story.teller.said)
    yield made
    await made.host.stop()


def picture(now: Now) -> dict[str, Any]:
    """All that is remembered, comparable."""
    return {
        "counts": {name: n for name, n in now.counts.items() if n},
        "stats": msgspec.json.encode(now.earnings.stats()),
        "sleeves": msgspec.json.encode(sleeves(now)),
        "latest": (now.bars, now.portfolio, now.breaker, now.models, now.markets),
        "readings": {series: msgspec.json.encode(reading) for series, reading in now.readings.items()},
    }


def test_every_subject_that_is_meant_for_ops_api_is_heard() -> None:
    meant = {s for s in SUBJECTS if "ops_api" in s.heard_by and s.stream is not None}

    assert set(ReadModels(Now("main", "1m"), 5000).handlers()) == meant


async def test_a_restart_and_a_new_data_folder_both_end_at_the_same_picture(tmp_path: Path) -> None:
    bus = MemoryBus()
    first = await Folded.on(bus, tmp_path / "ops.sqlite")
    await first.story.begin()
    await first.story.bars(200)
    await first.story.teller.tell(a_basket(199), "ml_service")
    await first.caught_up(first.story.teller.said)
    seen = picture(first.now)
    await first.store.close()

    reopened = await Store.open(tmp_path / "ops.sqlite", TABLES)
    restarted = Now("main", TIMEFRAME)
    await ReadModels(restarted, 5000).recover(reopened)
    await reopened.close()
    rebuilt = await Folded.on(bus)
    await rebuilt.caught_up(first.story.teller.said)

    assert first.now.counts["trades_closed"] > 3
    assert picture(restarted) == seen
    assert picture(rebuilt.now) == seen
    await rebuilt.host.stop()


async def test_pages_of_trades_neither_repeat_nor_lose_one_while_others_close(house: Folded) -> None:
    everything = (await queries.trade_page(house.store, TradeFilter(), 1000, "")).trades

    seen: list[TradeClosed] = []
    after = ""
    while True:
        page = await queries.trade_page(house.store, TradeFilter(), 3, after)
        seen += page.trades
        await house.story.bars(20)  # newer trades come before the first page
        await house.caught_up(house.story.teller.said)
        if not (after := page.next):
            break

    assert [one.trade_id for one in seen] == [one.trade_id for one in everything]
    assert len(seen) > 6


async def test_trades_are_filtered_by_what_one_asks_for(house: Folded) -> None:
    wanted = TradeFilter(symbol="BTC-USDT", strategy=STRATEGY, exit_reason="stop")
    everything = (await queries.trade_page(house.store, TradeFilter(), 1000, "")).trades

    page = await queries.trade_page(house.store, wanted, 1000, "")

    expected = [t for t in everything if t.symbol == "BTC-USDT" and t.exit_reason == "stop"]
    assert expected
    assert page.trades == expected
    assert page.total == len(expected)


async def test_a_cursor_of_nowhere_is_refused(house: Folded) -> None:
    with pytest.raises(BadMessage, match="`next` of another page"):
        await queries.trade_page(house.store, TradeFilter(), 3, "yesterday")


async def test_a_thinned_curve_keeps_its_last_close_and_never_invents_one(house: Folded) -> None:
    whole = await queries.equity_curve(house.store, "main", 5000)
    thin = await queries.equity_curve(house.store, "main", 20)

    assert len(whole.at_ms) == 300
    assert 15 <= len(thin.at_ms) <= 21
    assert thin.at_ms[-1] == whole.at_ms[-1]
    assert set(zip(thin.at_ms, thin.equity, strict=True)) <= set(zip(whole.at_ms, whole.equity, strict=True))


async def test_bars_come_with_the_regime_they_were_read_as(house: Folded) -> None:
    bars = await queries.bars_of(house.store, "BTC-USDT", "1m", 50)

    assert len(bars.close) == 50
    assert bars.opened_ms == sorted(bars.opened_ms)
    assert bars.regime[-1] == house.now.readings["BTC-USDT.1m"].regime
    assert set(bars.regime) <= {"BULL", "BEAR", "CHOP", "UNKNOWN"}


async def test_the_history_of_readings_says_how_well_each_bar_was_foretold(house: Folded) -> None:
    told = await regime_history(house.store, "BTC-USDT", "1m", 250)

    columns = msgspec.structs.asdict(told)
    assert {len(column) for name, column in columns.items() if name not in ("symbol", "timeframe")} == {250}
    assert told.opened_ms == sorted(told.opened_ms)
    last = house.now.readings["BTC-USDT.1m"]
    assert (told.bull[-1], told.log_likelihood[-1]) == (last.bull, last.log_likelihood)
    assert (told.promised[-1], told.model_id[-1]) == (PROMISED, last.model_id)
    seen = [one for one in told.log_likelihood[-48:] if one is not None]
    assert told.drift[-1] == pytest.approx(sum(seen) / 48)


async def test_a_shorter_history_is_the_end_of_a_longer_one(house: Folded) -> None:
    long, short = [await regime_history(house.store, "BTC-USDT", "1m", limit) for limit in (200, 60)]

    assert short.drift == long.drift[-60:]
    assert short.opened_ms == long.opened_ms[-60:]


async def test_before_the_first_model_nothing_is_known_of_a_bar(house: Folded) -> None:
    told = await regime_history(house.store, "BTC-USDT", "1m", 300)

    assert told.regime[:40] == ["UNKNOWN"] * 40
    for column in (told.bull, told.bear, told.chop, told.log_likelihood, told.drift, told.promised):
        assert column[:40] == [None] * 40


async def test_every_version_of_a_model_is_listed_with_its_scores_and_the_verdict(house: Folded) -> None:
    refused, used = await model_versions(house.store, house.now, "BTC-USDT.1m", 10)

    assert (refused.stage, refused.is_in_use, refused.promoted_at) == ("refused", False, None)
    assert refused.reasons == ("agreement must be >= 0.8, was 0.71",)
    assert (refused.how, refused.scores["agreement"]) == ("warm", 0.71)
    assert (used.stage, used.is_in_use, used.how, used.states) == ("champion", True, "cold", 3)
    assert used.promoted_at is not None
    assert used.demoted_at is None
    assert len(await model_versions(house.store, house.now, "", 10)) == 6  # of three instruments


async def test_a_demoted_model_is_no_longer_in_use(house: Folded) -> None:
    used = house.now.models["BTC-USDT.1m"]
    demoted = ModelDemoted(
        model_id=used.model_id,
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        reason="it drifted",
        demoted_at=house.story.at,
    )

    await house.story.teller.tell(demoted, "governor")
    await house.caught_up(house.story.teller.said)

    _, version = await model_versions(house.store, house.now, "BTC-USDT.1m", 10)
    assert (version.model_id, version.is_in_use, version.demoted_at) == (used.model_id, False, house.story.at)


async def test_a_manifest_that_cannot_be_read_hides_neither_the_model_nor_why(house: Folded) -> None:
    used = house.now.models["BTC-USDT.1m"]
    again = msgspec.structs.replace(used, model_id="e" * 64, manifest=b"{}", promoted_at=house.story.at)

    await house.story.teller.tell(again, "governor")
    await house.caught_up(house.story.teller.said)

    version, *_ = await model_versions(house.store, house.now, "BTC-USDT.1m", 10)
    assert (version.model_id, version.is_in_use, version.scores) == ("e" * 64, True, {})
    assert "model_id" in version.unreadable  # the first field that is missing


async def test_a_default_admitted_from_birth_is_not_counted_as_a_promotion(house: Folded) -> None:
    admitted = sum(len(presets) for presets in house.now.admitted.values())

    assert admitted == 9  # three defaults, and two a sleeve that passed the gate
    assert house.now.counts["presets_promoted"] == 6
    assert house.now.counts["presets_refused"] == 3


async def test_a_demoted_preset_is_no_longer_offered(house: Folded) -> None:
    sleeve, presets = next(iter(house.now.admitted.items()))
    promoted = next(iter(presets.values()))
    demoted = PresetDemoted(
        preset_id=promoted.preset_id,
        venue="sim",
        strategy=promoted.strategy,
        symbol=promoted.symbol,
        timeframe=promoted.timeframe,
        reason="drawdown 0.2 > 0.1",
        demoted_at=house.story.at,
    )

    await house.story.teller.tell(demoted, "governor")
    await house.caught_up(house.story.teller.said)

    assert promoted.preset_id not in house.now.admitted[sleeve]
    restarted = Now("main", TIMEFRAME)
    await ReadModels(restarted, 5000).recover(house.store)
    assert promoted.preset_id not in restarted.admitted[sleeve]


async def test_a_trade_is_explained_from_the_regime_to_the_lesson(house: Folded) -> None:
    page = await queries.trade_page(house.store, TradeFilter(), 1, "")
    trade = page.trades[0]

    found = await explanation(house.store, trade.trade_id)

    assert found is not None
    kinds = [step.kind for step in found.steps]
    for before, after in zip(
        ("StageChanged", "ParamDecision", "Signal", "OrderSubmitted", "TradeFill", "TradeClosed"),
        ("ParamDecision", "Signal", "OrderSubmitted", "TradeFill", "TradeClosed", "ParamOutcome"),
        strict=True,
    ):
        assert kinds.index(before) < kinds.index(after), kinds
    assert f"{trade.result_r:+.2f}R" in found.summary
    assert any("was read as BULL (84%)" in step.text for step in found.steps)
    assert found.causes[-1].id.startswith("BarClosed:sim.")


async def test_a_decision_is_explained_with_its_odds_and_what_came_of_it(house: Folded) -> None:
    page = await queries.trade_page(house.store, TradeFilter(), 1, "")

    found = await explanation(house.store, page.trades[0].decision_id)

    assert found is not None
    assert found.kind == "ParamDecision"
    assert "the odds were" in found.summary
    assert {"TradeClosed", "ParamOutcome"} <= {step.kind for step in found.steps}


async def test_what_nothing_speaks_of_has_no_explanation(house: Folded) -> None:
    assert await explanation(house.store, "no-such-trade") is None


async def test_only_the_step_into_a_halt_is_counted_as_one(house: Folded) -> None:
    for minute, (before, after) in enumerate((("active", "halted"), ("halted", "halted"), ("halted", "active"))):
        at = house.story.at.replace(minute=minute)
        tripped = BreakerTripped(
            breaker="drawdown",
            account="main",
            before=before,  # pyright: ignore[reportArgumentType]
            after=after,  # pyright: ignore[reportArgumentType]
            reason="r",
            until=None,
            at=at,
        )
        await house.story.teller.tell(tripped, "engine")
    await house.caught_up(house.story.teller.said)

    assert house.now.counts["halts"] == 1
    assert house.now.breaker is not None
    assert house.now.breaker.after == "active"
