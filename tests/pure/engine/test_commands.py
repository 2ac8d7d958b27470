"""People speak, and rails and breakers act, on a running engine."""

from __future__ import annotations

from shared.contracts import subjects
from shared.contracts.risk import Flatten, Halt, Pause, Resume
from tests.pure.engine.house import MINUTE, START, House, bars


async def test_flatten_closes_what_is_open_at_the_next_open_and_pauses(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103))

    await house.tell(house.command(Flatten))
    (answer,) = await house.until_said(subjects.COMMAND_ANSWERED)
    await house.play(bars(104, 99, 101, 102, first=3))

    assert (answer.done, answer.detail) == (True, "1 positions are being closed; trading is paused")
    (trade,) = house.said(subjects.TRADE_CLOSED)
    assert (trade.exit_reason, trade.closed_at) == ("command", START + 3 * MINUTE)
    assert len(house.said(subjects.ORDER_SUBMITTED)) == 2  # nothing new was begun at 101


async def test_a_command_asked_twice_is_done_once(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103))
    flatten = house.command(Flatten)

    await house.tell(flatten)
    await house.until_said(subjects.COMMAND_ANSWERED)
    house.server.seen["RISK"].clear()  # the stream no longer knows that it has it
    await house.tell(flatten)
    await house.play(bars(104, 105, first=3))

    assert len(house.said(subjects.COMMAND_ANSWERED)) == 1
    assert len(house.said(subjects.TRADE_CLOSED)) == 1


async def test_pause_lets_open_positions_end_and_begins_none_until_resumed(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103))

    await house.tell(house.command(Pause))
    await house.until_said(subjects.COMMAND_ANSWERED)
    await house.play(bars(99, 101, 99, first=3))
    await house.tell(house.command(Resume))
    await house.until_said(subjects.COMMAND_ANSWERED, 2)
    await house.play(bars(101, 101, first=6))

    assert [(s.exposure, s.opened_at) for s in house.said(subjects.SIGNAL)] == [
        (1.0, START + 1 * MINUTE),
        (0.0, START + 3 * MINUTE),  # the open one ended while paused
        (1.0, START + 6 * MINUTE),
    ]


async def test_halt_orders_nothing_and_after_resuming_a_due_exit_is_made_up_for(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103))

    await house.tell(house.command(Halt))
    await house.until_said(subjects.COMMAND_ANSWERED)
    await house.play(bars(99, 98, first=3))
    assert len(house.said(subjects.ORDER_SUBMITTED)) == 1
    await house.tell(house.command(Resume))
    await house.until_said(subjects.COMMAND_ANSWERED, 2)
    await house.play(bars(97, 97, first=5))

    (trade,) = house.said(subjects.TRADE_CLOSED)
    assert trade.closed_at == START + 6 * MINUTE


async def test_a_halt_survives_a_restart(house: House) -> None:
    await house.up()
    await house.tell(house.command(Halt))
    await house.until_said(subjects.COMMAND_ANSWERED)

    await house.down()
    await house.up()
    await house.play(bars(99, 101, 103))

    assert house.said(subjects.SIGNAL) == []
    assert (await house.status())["state"] == "halted"


async def test_a_stop_is_judged_on_the_close_left_at_the_next_open_and_keeps_the_sleeve_out(house: House) -> None:
    await house.up(max_jump_pct=90.0, daily_loss_pct=90.0, drawdown_pct=90.0)
    await house.take_in(house.promotion(preset := house.preset(level=40.0, stop=10.0)))
    await house.take_in(house.decision(preset))

    await house.play(bars(39, 55, 56, 46, 45, 45, 46, 39, 48, 48))  # entered at 55.03: 45.03 is the stop

    (trade,) = house.said(subjects.TRADE_CLOSED)
    assert (trade.exit_reason, trade.closed_at) == ("stop", START + 5 * MINUTE)
    entries = [signal.opened_at for signal in house.said(subjects.SIGNAL) if signal.exposure > 0]
    # Out while the strategy still wants to be long (45, 46); in again after it did not (39).
    assert entries == [START + 1 * MINUTE, START + 8 * MINUTE]


async def test_an_order_above_a_limit_is_resized_and_told(house: House) -> None:
    await house.up(max_order_pct=20.0)

    await house.play(bars(99, 101, 101))

    (touched,) = house.said(subjects.RAIL_TOUCHED)
    assert (touched.rail, touched.action, touched.limit) == ("max_order", "resized", "20% of 1000.00")
    (fill,) = house.said(subjects.TRADE_FILL)
    assert fill.quantity * 101 <= 200 < (fill.quantity + house.lot) * 101


async def test_a_drawdown_leaves_everything_and_halts(house: House) -> None:
    await house.up(drawdown_pct=5.0, max_jump_pct=90.0)
    await house.take_in(house.promotion(preset := house.preset(level=1.0, stop=999.0)))
    await house.take_in(house.decision(preset))

    await house.play(bars(100, 101, 101, 95, 94, 93, 92))  # wants to be long all the time

    trips = house.said(subjects.BREAKER_TRIPPED)
    assert trips[-1].breaker == "drawdown" and trips[-1].after == "halted"
    (trade,) = house.said(subjects.TRADE_CLOSED)
    assert trade.exit_reason == "command"
    assert (await house.status())["halts"] == 1


async def test_a_loss_streak_pauses_entries_and_ends_by_itself(house: House) -> None:
    await house.up(loss_streak=1, cooldown_bars=3)

    await house.play(bars(99, 101, 99, 98, 101, 99, 99, 101, 101))  # lost at bar 3; wanted again at 4 and at 7

    assert [(t.breaker, t.after) for t in house.said(subjects.BREAKER_TRIPPED)] == [
        ("loss_streak", "reducing"),
        ("cooldown_over", "active"),
    ]
    entries = [signal.opened_at for signal in house.said(subjects.SIGNAL) if signal.exposure > 0]
    assert entries == [START + 1 * MINUTE, START + 7 * MINUTE]
