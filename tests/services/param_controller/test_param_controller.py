"""The controller among its neighbours: it waits for what it must know, chooses once an epoch, and forgets nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal as signals
import sys
from pathlib import Path

import pytest

from shared.artifacts.presets import preset_id
from shared.bus.nats import NatsBus
from shared.bus.server import Server
from shared.contracts.parameters import ParamDecision, ParamOutcome
from shared.contracts.wire import message_id

from .conftest import DEFAULT, Around, House, a_preset, bar_closed, fill, play, promoted, reading, signal, trade


async def test_a_reading_leads_to_a_decision_that_carries_its_story(house: House) -> None:
    await house.up()
    await house.tell(reading(0))
    await house.engine_does(0)

    await house.until(lambda: house.has_come_to(0) and bool(house.decisions))

    (decision,) = house.decisions
    assert decision.preset_id == preset_id(DEFAULT)
    assert decision.decided_on == reading(0).opened_at
    assert house.correlations == [message_id(reading(0))]
    assert house.progress is not None and message_id(decision) in house.progress.told


async def test_readings_of_the_past_are_passed_over(house: House) -> None:
    await house.up()
    await house.tell(*(reading(bar, is_history=True) for bar in range(300)))

    await house.until(lambda: house.has_come_to(299))

    assert house.decisions == []


async def test_a_due_decision_waits_for_the_engine_and_for_the_trades_that_it_told_of(house: House) -> None:
    await house.up()
    await play(house, range(5))  # the first decision falls on bar 0, the next is due on bar 5
    first = house.decisions[0]
    await house.tell(reading(5))
    await house.until(lambda: house.progress is not None and house.progress.holding == "decision BTC-USDT")
    assert not house.has_come_to(5)

    last = trade(5, 0.75, first)
    house.engine_told.append(message_id(last))  # told, and still on its way
    house.engine_at = 5
    await house.engine_says()
    await house.engine_says()
    assert house.outcomes == []
    await house.tell(last)
    await house.until(lambda: house.has_come_to(5))

    (outcome,) = house.outcomes
    closed_before = ((int(first.preset_id[:6], 16) + 7 * 4) % 200 - 100) / 100
    assert outcome.decision_id == first.decision_id
    assert outcome.reward == pytest.approx(closed_before + 0.75)
    assert len(house.decisions) == 2


async def test_an_entry_on_the_bar_itself_keeps_the_epoch_open(house: House) -> None:
    await house.up()
    await house.tell(reading(0))
    await house.engine_does(0)
    await house.until(lambda: house.has_come_to(0) and bool(house.decisions))
    for bar in range(1, 5):
        await house.tell(reading(bar))
        await house.engine_does(bar)
        await house.until(lambda bar=bar: house.has_come_to(bar))
    await house.tell(reading(5))
    await house.engine_does(5, signal(5, 1.0, house.decisions[0]), fill(5))

    await house.until(lambda: house.has_come_to(5))

    assert len(house.decisions) == 1


@pytest.mark.parametrize("is_reading_first", [True, False])
async def test_an_epoch_ends_on_the_bar_on_which_its_trade_closed_whichever_message_is_faster(
    house: House, is_reading_first: bool
) -> None:
    await house.up()
    await play(house, range(3))  # in on bar 2
    for bar in range(3, 8):
        await house.tell(reading(bar))
        await house.engine_does(bar)
        await house.until(lambda bar=bar: house.has_come_to(bar))
    closed = trade(8, 0.5, house.decisions[0])
    bar_8 = reading(8)

    async def close_it() -> None:
        house.engine_told.append(message_id(closed))
        await house.tell(closed, on=bar_closed(8))
        await house.until(lambda: house.has_booked(closed))

    if is_reading_first:
        await house.tell(bar_8)
        await close_it()
    else:
        await close_it()
        assert not house.has_come_to(8)
        await house.tell(bar_8)
    await house.engine_does(8)
    await house.until(lambda: house.has_come_to(8))

    assert [one.decided_on for one in house.decisions] == [reading(0).opened_at, bar_8.opened_at]
    assert [one.reward for one in house.outcomes] == [0.5]


async def test_an_engine_that_is_silent_is_not_waited_for(house: House) -> None:
    await house.up(engine_patience_s=0.05)
    await house.tell(reading(0))

    await house.until(lambda: bool(house.decisions), engine_is_up=False)

    assert house.decisions[0].decided_on == reading(0).opened_at


async def test_a_decision_counts_only_presets_admitted_before_its_close(house: House) -> None:
    await house.up()
    await house.promote(promoted(30, at=reading(0).happened_at), promoted(40, at=reading(4).happened_at))
    await play(house, range(12))

    arms = [set(decision.propensities) for decision in house.decisions]

    default, thirty, forty = preset_id(DEFAULT), preset_id(a_preset(30)), preset_id(a_preset(40))
    assert arms == [{default}, {default, thirty, forty}, {default, thirty, forty}]


async def test_every_decision_has_one_outcome_and_a_restart_between_two_bars_changes_nothing(
    house: House, tmp_path: Path
) -> None:
    await house.up()
    await house.promote(promoted(30), promoted(40))
    await play(house, range(31))
    whole = house.decisions
    assert [one.decision_id for one in house.outcomes] == [one.decision_id for one in whole[:-1]]
    await house.down()

    other = House(tmp_path / "other")
    await other.begin()
    await other.up()
    await other.promote(promoted(30), promoted(40))
    for bar in range(31):
        await play(other, range(bar, bar + 1))
        if bar % 7 == 3:
            await other.down()
            await other.up()
    await other.down()
    await other.voice.close()

    assert (other.decisions, other.outcomes) == (whole, house.outcomes)
    assert len({one.policy_version for one in whole}) == len(whole)  # each has learned from the one before


async def test_a_decision_that_was_due_at_the_stop_is_made_at_the_start(house: House) -> None:
    await house.up()
    await house.tell(reading(0))
    await house.until(lambda: house.progress is not None and bool(house.progress.holding), engine_is_up=False)
    await house.down()
    await house.up()
    await house.engine_does(0)

    await house.until(lambda: house.has_come_to(0) and bool(house.decisions))

    assert house.decisions[0].decided_on == reading(0).opened_at


async def test_a_position_is_remembered_across_a_restart_and_keeps_its_epoch_open(house: House) -> None:
    await house.up()
    await play(house, range(3))  # in on bar 2
    await house.down()
    house.progress = None
    await house.up()
    entry = message_id(fill(2))  # and it says again what it knows, for who waits for that
    await house.until(lambda: house.progress is not None and entry in house.progress.booked)
    for bar in range(3, 9):
        await house.tell(reading(bar))
        await house.engine_does(bar)
        await house.until(lambda bar=bar: house.has_come_to(bar))

    assert len(house.decisions) == 1


async def test_killed_at_any_point_it_has_the_same_posterior_bit_for_bit(
    house: House, tmp_path: Path, nats_server: Server, nats_bus: NatsBus
) -> None:
    bars = range(36)
    await house.up()
    await house.promote(promoted(30), promoted(40))
    await play(house, bars)

    around = Around(nats_bus)
    await around.begin()
    controller = Process(tmp_path / "killed", nats_server.url)
    await controller.start()
    await around.promote(promoted(30), promoted(40))
    playing = asyncio.create_task(play(around, bars))
    for at in (7, 18, 29):  # in the middle of whatever it does when the engine comes to this bar
        await around.until(lambda at=at: around.engine_at >= at)
        await controller.kill()
        await controller.start()
    await playing
    await controller.kill()

    assert facts(around.decisions) == facts(house.decisions)
    assert facts(around.outcomes) == facts(house.outcomes)


def facts(said: list[ParamDecision] | list[ParamOutcome]) -> list[str]:
    """Every number as it is, the posterior's fingerprint (`policy_version`) among them."""
    return [repr(one) for one in said]


class Process:
    """The service as the launcher starts it, to be killed."""

    def __init__(self, folder: Path, nats_url: str) -> None:
        self._environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "TRIMTAB_DATA_DIR": str(folder),
            "TRIMTAB_NATS_URL": nats_url,
            "TRIMTAB_PORT_BASE": "0",
            "TRIMTAB_PARAM_CONTROLLER_STRATEGIES": "momentum",
            "TRIMTAB_PARAM_CONTROLLER_EPOCH_BARS": "5",
            "TRIMTAB_PARAM_CONTROLLER_ENGINE_PATIENCE_S": "600",
            "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services.cli",
            "run",
            "param_controller",
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self._process.stdout.readline():
                if json.loads(line)["event"] == "ready":
                    return
        raise AssertionError("It ended before it was ready.")

    async def kill(self) -> None:
        assert self._process is not None
        self._process.send_signal(signals.SIGKILL)
        await self._process.communicate()
