"""The engine on paper: bars in, orders, fills and closed trades out."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from shared.contracts import subjects
from shared.contracts.market import GapFound
from shared.contracts.risk import Resume
from tests.pure.engine.house import MINUTE, START, House, bars


async def test_an_order_made_at_a_close_is_filled_at_the_next_open_with_slippage_and_fee(house: House) -> None:
    await house.up()

    await house.play(bars(99, 101, 103, 99, 98))

    bought, sold = house.said(subjects.TRADE_FILL)
    # 5 bps against us, to the tick: 101 x 1.0005 = 101.0505, up; 99 x 0.9995 = 98.9505, down.
    assert (bought.side, bought.price, bought.at) == ("buy", Decimal("101.06"), START + 2 * MINUTE)
    assert (sold.side, sold.price, sold.at) == ("sell", Decimal("98.95"), START + 4 * MINUTE)
    assert bought.quantity == sold.quantity
    assert bought.fee == (bought.quantity * bought.price * Decimal("0.001")).quantize(Decimal("1e-8"))
    # All of 1,000 less what a slipped price and the fee take: 1000 / ((101 x 1.0005 + 0.01) x 1.001), in lots of 0.0001.
    assert bought.quantity == Decimal("9.8851")


async def test_a_closed_trade_tells_what_was_earned_net_of_costs_and_for_what_risk(house: House) -> None:
    await house.up()

    await house.play(bars(99, 101, 103, 99, 98))

    bought, sold = house.said(subjects.TRADE_FILL)
    (trade,) = house.said(subjects.TRADE_CLOSED)
    assert trade.pnl == bought.quantity * (sold.price - bought.price) - bought.fee - sold.fee
    assert trade.risk == bought.quantity * 10  # the stop is 10 below entry
    assert trade.trade_id == bought.order_id
    assert (trade.exit_reason, trade.regime, trade.decision_id) == ("signal", "UNKNOWN", "")


async def test_every_order_tells_its_story_in_order(house: House) -> None:
    await house.up()

    await house.play(bars(99, 101, 103))

    told = [delivery.subject.split(".sim.")[0] for delivery in house.server.streams["EXEC"]]
    assert [one for one in told if not one.startswith("portfolio")] == [
        "signal",
        "order.submitted",
        "order.accepted",
        "trade.fill",
    ]


async def test_history_warms_up_and_orders_nothing(house: House) -> None:
    await house.up()

    await house.play(bars(99, 101, 103, 105, history=4))

    assert house.said(subjects.SIGNAL) == []
    assert house.said(subjects.PORTFOLIO_SNAPSHOT) == []


async def test_a_position_that_history_would_have_opened_is_not_entered_late(house: House) -> None:
    await house.up()

    await house.play(bars(99, 101, 103, 104, 105, history=3))

    assert house.said(subjects.SIGNAL) == []  # it enters on a change of the target, not in the middle of a move


async def test_the_account_is_told_once_a_bar_and_is_cash_and_inventory(house: House) -> None:
    await house.up()

    await house.play(bars(99, 101, 103, 107))

    told = house.said(subjects.PORTFOLIO_SNAPSHOT)
    assert [snapshot.at for snapshot in told] == [START + n * MINUTE for n in (1, 2, 3, 4)]
    for snapshot in told:
        inventory = sum(p.quantity * Decimal(str(p.mark_price)) for p in snapshot.positions)
        assert snapshot.equity == snapshot.cash + inventory
    assert told[0].equity == 1000
    (position,) = told[-1].positions
    assert (position.mark_price, position.quantity) == (107.0, house.said(subjects.TRADE_FILL)[0].quantity)


async def test_bars_at_or_before_the_watermark_change_nothing(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103))
    (before,) = await house.rows("select count(*), max(hash) from journal")

    late = msgspec.structs.replace(bars(99, 101, 103)[1], close=99.5, low=99.0)  # another content, an old bar
    again = bars(104, first=3)
    await house.tell(late)
    await house.play(again)

    (after,) = await house.rows("select count(*), max(hash) from journal")
    assert after[0] == before[0] + 2  # the new bar and the account's snapshot; nothing of the late one
    assert len(house.said(subjects.ORDER_SUBMITTED)) == 1


async def test_an_absent_bar_is_passed_and_counted_and_none_is_missed(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101))
    gap = GapFound(
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        first_opened_at=START + 2 * MINUTE,
        last_opened_at=START + 3 * MINUTE,
        bars=2,
        reason="absent",
    )

    await house.tell(gap)
    await house.play(bars(103, 104, first=4))

    (fill,) = house.said(subjects.TRADE_FILL)
    assert fill.at == START + 4 * MINUTE  # the next bar that exists
    status = await house.status()
    assert (status["bars_decided"], status["bars_missed"], status["bars_doubled"]) == (4, 0, 0)
    assert status["series"][0]["bars_absent"] == 2


async def test_a_bar_that_was_lost_without_a_word_is_counted_as_missed(house: House) -> None:
    await house.up()

    await house.play(bars(99, 101))
    await house.play(bars(103, 104, first=3))

    assert (await house.status())["bars_missed"] == 1


async def test_a_strategy_that_raises_stops_its_own_sleeve_with_an_alert_and_the_other_goes_on(
    house_of_two: House,
) -> None:
    house = house_of_two
    await house.up()

    await house.play(bars(99, 101, 104.5, 103, 99, 98))

    (alert,) = house.said(subjects.ALERT)
    assert alert.level == "critical" and "the strategy's own fault" in alert.text
    status = await house.status()
    assert status["halted_sleeves"] == {"above.BTC-USDT.1m": "ZeroDivisionError: the strategy's own fault"}
    assert [fill.strategy for fill in house.said(subjects.TRADE_FILL)] == ["above", "aloft", "aloft"]
    assert status["halts"] == 1 and status["bars_decided"] == 6


async def test_a_sleeve_that_stood_still_is_woken_warm_by_a_person(house_of_two: House) -> None:
    house = house_of_two
    await house.up()
    await house.play(bars(99, 101, 104.5, 103))

    await house.down()
    await house.up()  # it still stands still
    await house.tell(house.command(Resume))
    (answer,) = await house.until_said(subjects.COMMAND_ANSWERED)
    await house.play(bars(99, 98, first=4))

    assert answer.done and "above.BTC-USDT.1m goes on" in answer.detail
    assert (await house.status())["halted_sleeves"] == {}
    assert len(house.said(subjects.TRADE_CLOSED)) == 2


async def test_what_the_engine_counts_survives_a_restart(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103, 99, 98))
    before = await house.status()

    await house.down()
    await house.up()
    after = await house.status()

    assert after == before
    assert (before["orders"], before["fills"], before["trades_closed"]) == (2, 2, 1)
    assert before["equity_start"] == "1000"
    assert before["regimes"] == {"BULL": 0, "BEAR": 0, "CHOP": 0, "UNKNOWN": 5}
