"""Laws that the engine keeps: reload between bars, effects once, intent before sending, unknown stays unknown."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from services.engine.desk import Desk
from services.engine.paper_venue import PaperVenue
from services.engine.records import KeptSeries
from services.engine.venue import OutcomeUnknown, Report, Ticket, Venue
from shared.artifacts.canonical import content_id
from shared.artifacts.models import manifest_bytes, manifest_from_bytes, model_bytes
from shared.artifacts.presets import default_preset, preset_id
from shared.artifacts.signing import signed
from shared.bus.bus import Outgoing
from shared.contracts import subjects
from shared.contracts.governance import ModelDemoted, ModelPromoted, PresetDemoted
from shared.contracts.instruments import Instrument
from shared.contracts.risk import Flatten
from shared.contracts.times import to_ms
from shared.contracts.wire import pack, wrap
from shared.trading.strategies import load_strategy
from tests.older import older_model
from tests.pure.engine.house import MINUTE, START, House, bars, house_of, model, model_promotion

WAVES = [100.0 + (bar % 7) * 0.1 for bar in range(100)]  # enough bars for the regime's features


# -- presets ---------------------------------------------------------------------------------------------------------


async def test_a_promoted_preset_is_used_by_new_positions_only_from_its_decision_on(house: House) -> None:
    await house.up()
    higher = house.preset(level=104.0, stop=10.0)
    await house.play(bars(99, 99.5))

    await house.take_in(house.promotion(higher, at_bar=1))
    await house.take_in(house.decision(higher, at_bar=1))
    await house.play(bars(101, 103, 105, 106, first=2))

    (signal,) = house.said(subjects.SIGNAL)
    assert signal.opened_at == START + 4 * MINUTE  # 105 is above 104; 101 was above the level of the preset before
    assert signal.preset_id == preset_id(higher)
    assert signal.decision_id == house.decision(higher, at_bar=1).decision_id


async def test_an_open_position_keeps_the_preset_that_opened_it(house: House) -> None:
    await house.up()
    higher = house.preset(level=104.0, stop=10.0)
    await house.play(bars(99, 101, 102))

    await house.take_in(house.promotion(higher, at_bar=2))
    await house.take_in(house.decision(higher, at_bar=2))
    await house.play(bars(103, 99, 98, first=3))  # 103 is below the new level, 99 below the old one

    (closed,) = house.said(subjects.TRADE_CLOSED)
    assert closed.closed_at == START + 5 * MINUTE
    assert closed.preset_id == preset_id(default_preset(load_strategy(house.folder / "above.py"), "BTC-USDT", "1m"))


async def test_a_decision_that_comes_before_its_promotion_waits_for_it(house: House) -> None:
    await house.up()
    higher = house.preset(level=104.0, stop=10.0)
    await house.play(bars(99))

    await house.take_in(house.decision(higher))
    await house.take_in(house.promotion(higher))
    await house.play(bars(101, 105, 106, first=1))

    assert [signal.preset_id for signal in house.said(subjects.SIGNAL)] == [preset_id(higher)]


async def test_a_demoted_preset_opens_nothing_more(house: House) -> None:
    await house.up()
    higher = house.preset(level=104.0, stop=10.0)
    await house.play(bars(99))
    await house.take_in(house.promotion(higher))
    await house.take_in(house.decision(higher))

    await house.take_in(
        PresetDemoted(
            preset_id=preset_id(higher),
            venue="sim",
            strategy="above",
            symbol="BTC-USDT",
            timeframe="1m",
            reason="a test",
            demoted_at=START + MINUTE,
        )
    )
    await house.play(bars(103, 105, 106, first=1))

    assert house.said(subjects.SIGNAL) == []


@pytest.mark.parametrize(
    ("params", "words"),
    [({"level": 0.5}, "level must be within 1.0..1000000.0"), ({"levle": 104.0}, "did you mean 'level'")],
)
async def test_a_preset_outside_its_bounds_is_refused_with_the_bound_and_changes_nothing(
    house: House, params: dict[str, float], words: str
) -> None:
    await house.up()

    await house.take_in(house.promotion(house.preset(**params)))

    (alert,) = house.said(subjects.ALERT)
    assert words in alert.text
    (sleeve,) = await house.get("/sleeves")
    assert list(sleeve["presets"]) == [sleeve["chosen"]]


# -- models ----------------------------------------------------------------------------------------------------------


async def reading_by_a_model(house: House) -> ModelPromoted:
    """The house is up, and a model has read its 101st bar."""
    await house.up()
    promotion = model_promotion(model(), at_bar=100)
    await house.voice.put_artifact(promotion.model_id, model_bytes(model()))
    await house.play(bars(*WAVES))
    await house.take_in(promotion)
    await house.play(bars(101, first=100))
    return promotion


async def test_a_promoted_model_decides_only_from_the_next_closed_bar(house: House) -> None:
    await house.up()
    await house.play(bars(*WAVES))
    promotion = model_promotion(model(), at_bar=100)
    await house.voice.put_artifact(promotion.model_id, model_bytes(model()))

    await house.take_in(promotion)
    await house.play(bars(101, 102, first=100))

    models = [row[0] for row in await house.rows("select model_id from bars order by opened_ms")]
    assert models == [""] * 100 + [promotion.model_id] * 2
    regimes = [row[0] for row in await house.rows("select regime from bars order by opened_ms")]
    assert regimes[:100] == ["UNKNOWN"] * 100 and set(regimes[100:]) <= {"BULL", "BEAR", "CHOP"}
    told = await house.get(f"/readings/BTC-USDT?after_ms={to_ms(START + 99 * MINUTE)}")
    assert [(one["regime"], one["model_id"]) for one in told] == list(zip(regimes[100:], models[100:], strict=True))


async def test_a_model_of_a_wrong_hash_is_refused_with_an_alert_and_the_old_one_stays(house: House) -> None:
    await house.up()
    good, bad = model_promotion(model(), at_bar=100), model_promotion(model(stays=0.9), at_bar=101)
    await house.voice.put_artifact(good.model_id, model_bytes(model()))
    await house.voice.put_artifact(bad.model_id, model_bytes(model()))  # not the bytes that the id names
    await house.play(bars(*WAVES))

    await house.take_in(good)
    await house.take_in(bad)
    await house.play(bars(101, first=100))

    (alert,) = house.said(subjects.ALERT)
    assert bad.model_id in alert.text and "The model before it stays" in alert.text
    assert await house.rows("select model_id from bars where opened_ms > 1704073140000") == [(good.model_id,)]


KEY = "the key of this house"


async def test_with_a_key_only_a_signed_model_is_used_and_none_is_read_back_that_was_not(house: House) -> None:
    unsigned = await reading_by_a_model(house)

    await house.down()
    await house.up(model_key=KEY)
    await house.play(bars(102, first=101))
    await house.take_in(msgspec.structs.replace(unsigned, promoted_at=START + 102 * MINUTE))
    await house.play(bars(103, first=102))
    manifest = signed(manifest_from_bytes(unsigned.manifest), KEY.encode())
    promotion = msgspec.structs.replace(unsigned, manifest=manifest_bytes(manifest), promoted_at=START + 103 * MINUTE)
    await house.take_in(promotion)
    await house.play(bars(104, first=103))
    await house.down()
    await house.up(model_key=KEY)
    await house.play(bars(103, first=104))

    models = [bool(row[0]) for row in await house.rows("select model_id from bars order by opened_ms")]
    assert models == [False] * 100 + [True, False, False, True, True]
    assert ["has no signature" in alert.text for alert in house.said(subjects.ALERT)] == [True, True]


async def test_a_folder_whose_model_an_older_version_kept_is_read_without_it(house: House) -> None:
    await reading_by_a_model(house)
    await house.down()
    older = older_model(model_bytes(model()))
    with closing(sqlite3.connect(house.folder / "engine.sqlite")) as kept, kept:
        kept.execute("insert into artifacts values (?, ?)", (content_id(older), older))
        (content,) = kept.execute("select content from series").fetchone()
        series = msgspec.msgpack.decode(content, type=KeptSeries)
        of_then = msgspec.structs.replace(series, model_id=content_id(older))
        kept.execute("update series set content = ?", (msgspec.msgpack.encode(of_then),))

    await house.up()
    await house.play(bars(102, first=101))

    assert await house.rows("select model_id from bars order by opened_ms desc limit 1") == [("",)]
    (alert,) = house.said(subjects.ALERT)
    assert "BTC-USDT is read without it" in alert.text


async def test_a_model_whose_bytes_come_late_is_used_as_soon_as_they_are_there(house: House) -> None:
    await house.up()
    promotion = model_promotion(model(), at_bar=100)
    await house.play(bars(*WAVES))
    await house.take_in(promotion)
    await house.play(bars(101, first=100))

    await house.voice.put_artifact(promotion.model_id, model_bytes(model()))
    await house.play(bars(102, first=101))

    assert await house.rows("select model_id from bars order by opened_ms desc limit 2") == [
        (promotion.model_id,),
        ("",),
    ]


async def test_a_demoted_model_leaves_the_regime_unknown(house: House) -> None:
    promotion = await reading_by_a_model(house)

    await house.take_in(
        ModelDemoted(
            model_id=promotion.model_id,
            venue="sim",
            symbol="BTC-USDT",
            timeframe="1m",
            reason="a test",
            demoted_at=START + 101 * MINUTE,
        )
    )
    await house.play(bars(102, first=101))

    assert await house.rows("select regime, model_id from bars order by opened_ms desc limit 1") == [("UNKNOWN", "")]


# -- effects happen once ---------------------------------------------------------------------------------------------


async def test_a_message_heard_twice_changes_nothing(house: House) -> None:
    await house.up()
    told = bars(99, 101, 103, 99, 98)
    await house.play(told)
    before = await house.rows("select * from journal")
    state = await house.rows("select * from sleeves")

    await house.down()
    house.server.seen["MD"].clear()  # the stream has forgotten its ids, as after two minutes
    for bar in told:
        envelope = wrap(bar, "test")
        await house.voice.publish([Outgoing(subjects.BAR_CLOSED.of(bar), pack(envelope), envelope.id)])
    await house.up()
    await house.play(bars(97, first=5))

    assert (await house.rows("select * from journal"))[: len(before)] == before
    assert len(await house.rows("select * from journal")) == len(before) + 2
    assert len(await house.rows("select * from fills")) == 2
    assert await house.rows("select cash from sleeves") == [row[1:2] for row in state]


class Watched(PaperVenue):
    """A paper venue that looks into the database whenever an order arrives."""

    path: Path
    seen: list[tuple[str, int]]

    async def submit(self, ticket: Ticket) -> Report:
        with closing(sqlite3.connect(self.path)) as elsewhere:  # another connection sees only what is committed
            row = elsewhere.execute(
                "select state, count(*) from orders where order_id = ?", (ticket.order_id,)
            ).fetchone()
        self.seen.append((row[0], row[1]))
        return await super().submit(ticket)


async def test_an_order_is_durable_before_it_is_sent(house: House) -> None:
    seen: list[tuple[str, int]] = []

    def watched(desk: Desk, instruments: Mapping[str, Instrument]) -> Venue:
        venue = Watched("sim", instruments, desk.fill_at)
        venue.path, venue.seen = house.folder / "engine.sqlite", seen
        return venue

    await house.up(watched)

    await house.play(bars(99, 101, 103, 99, 98))

    assert seen == [("intent", 1), ("intent", 1)]


async def test_bars_wait_for_the_disk_only_where_money_moves(house: House) -> None:
    host = await house.up()
    waited: list[bool] = []

    for at, close in enumerate((99, 98, 101, 103, 104)):  # above 100 it buys, at the open of the bar after
        await house.play(bars(close, first=at))
        waited.append(host.store.waited_for_disk)

    assert waited == [False, False, True, True, False]


class Deaf(PaperVenue):
    """A paper venue whose answers get lost. `takes` says whether the order arrived all the same."""

    takes = True
    sent: list[str]

    async def submit(self, ticket: Ticket) -> Report:
        self.sent.append(ticket.order_id)
        if self.takes or len(self.sent) > 1:
            await super().submit(ticket)
        raise OutcomeUnknown("the line went dead")


@pytest.mark.parametrize("takes", [True, False])
async def test_an_order_whose_answer_was_lost_is_asked_for_and_never_doubled(house: House, takes: bool) -> None:
    sent: list[str] = []

    def deaf(desk: Desk, instruments: Mapping[str, Instrument]) -> Venue:
        venue = Deaf("sim", instruments, desk.fill_at)
        venue.takes, venue.sent = takes, sent
        return venue

    await house.up(deaf)

    await house.play(bars(99, 101))
    await house.play(bars(103, first=2))

    assert len(sent) == (1 if takes else 2)  # unknown to the venue both times it was asked: once more, by the next id
    assert len(set(sent)) == len(sent)
    (fill,) = house.said(subjects.TRADE_FILL)
    assert fill.order_id == sent[-1]
    refused = [(one.order_id, one.code) for one in house.said(subjects.ORDER_REJECTED)]
    assert refused == ([] if takes else [(sent[0], "never_arrived")])


class Dying(PaperVenue):
    """A paper venue at which the engine dies: before the order has arrived, or after."""

    arrived: dict[str, Ticket]
    dies_after = False

    async def submit(self, ticket: Ticket) -> Report:
        if self.dies_after:
            self.arrived[ticket.order_id] = ticket
        raise MemoryError("the end of this process")


@pytest.mark.parametrize("dies_after", [False, True])
async def test_a_crash_between_intent_and_answer_leads_to_one_order(house: House, dies_after: bool) -> None:
    arrived: dict[str, Ticket] = {}

    def dying(desk: Desk, instruments: Mapping[str, Instrument]) -> Venue:
        venue = Dying("sim", instruments, desk.fill_at)
        venue.arrived, venue.dies_after = arrived, dies_after
        return venue

    def living(desk: Desk, instruments: Mapping[str, Instrument]) -> Venue:
        venue = PaperVenue("sim", instruments, desk.fill_at)
        venue.take_up(arrived.values())
        return venue

    await house.up(dying)
    with pytest.raises(MemoryError):
        await house.play(bars(99, 101))
    await house.down()

    await house.up(living)
    await house.play(bars(101, 104, first=2))

    (fill,) = house.said(subjects.TRADE_FILL)
    assert fill.at == START + 2 * MINUTE
    if dies_after:
        assert [fill.order_id] == list(arrived)
    states = [row[0] for row in await house.rows("select state from orders order by state")]
    assert states == (["filled"] if dies_after else ["filled", "lost"])


async def test_two_runs_of_the_same_messages_have_the_same_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last: list[object] = []
    for run in ("one", "two"):
        (tmp_path / run).mkdir()
        async with house_of(tmp_path / run, monkeypatch) as house:
            await house.up()
            await house.play(bars(99, 101, 103, 99, 98, 104, 99))
            last.append(await house.rows("select seq, hash from journal order by seq desc limit 1"))

    assert last[0] == last[1]


# -- what was damaged ------------------------------------------------------------------------------------------------


async def test_a_thousand_damaged_messages_are_parked_and_move_no_position(house: House) -> None:
    await house.up()
    await house.play(bars(99, 99.5))
    chance = random.Random(3)
    [bar], higher = bars(150, first=2), house.preset(level=90.0, stop=10.0)
    said = (bar, house.promotion(higher, at_bar=1), house.decision(higher, at_bar=1), house.command(Flatten))
    sent: set[bytes] = set()
    for number in range(1000):
        message = said[number % len(said)]
        whole = pack(wrap(message, "test"))
        at = chance.randrange(len(whole))
        damaged = whole[:at] + bytes([whole[at] ^ (1 << chance.randrange(8))]) + whole[at + 1 :]
        sent.add(damaged)
        await house.voice.publish([Outgoing(subjects.subject_of(message).of(message), damaged, f"damaged {number}")])

    await house.play(bars(99, 99.5, first=2))

    assert {parked.payload for parked in await house.until_said(subjects.PARKED, len(sent))} == sent
    assert house.said(subjects.SIGNAL) == house.said(subjects.ORDER_SUBMITTED) == []
    assert (await house.status())["state"] == "active"
