"""Start and recovery are one path: the engine goes on where it was, to the bit."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from shared.artifacts.models import model_bytes
from shared.contracts import subjects
from shared.contracts.errors import NeedsOperator
from shared.contracts.wire import message_id
from tests.pure.engine.house import MINUTE, START, House, bars, house_of, model, model_promotion

WAVES = [99.0 + (bar % 5) * 0.7 for bar in range(140)]  # in and out of the market every few bars


async def test_an_order_that_waits_for_the_next_open_survives_a_restart(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101))

    await house.down()
    await house.up()
    await house.play(bars(101, 103, first=2))

    (fill,) = house.said(subjects.TRADE_FILL)
    assert (fill.at, fill.price) == (START + 2 * MINUTE, Decimal("101.06"))
    assert len(house.said(subjects.ORDER_SUBMITTED)) == 1


@pytest.mark.parametrize("every", [5, 50])
async def test_restarts_between_bars_change_no_decision_and_no_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    market, rows = bars(*WAVES), list[object]()
    for name, bars_a_life in (("whole", len(WAVES)), ("restarted", every)):
        (tmp_path / name).mkdir()
        async with house_of(tmp_path / name, monkeypatch) as house:
            promotion = model_promotion(model(), at_bar=100)
            await house.voice.put_artifact(promotion.model_id, model_bytes(model()))
            await house.tell(promotion)
            for first in range(0, len(market), bars_a_life):
                await house.up(loss_streak=10_000, daily_loss_pct=99.0, drawdown_pct=99.0)
                await house.until(lambda progress, promotion=promotion: message_id(promotion) in progress.booked)
                await house.play(market[first : first + bars_a_life])
                fills = [(f.at, f.side, f.price, f.order_id) for f in house.said(subjects.TRADE_FILL)]
                readings = await house.rows("select opened_ms, regime, model_id, reading_hash from bars order by rowid")
                await house.down()
        assert len(fills) > 20 and readings[-1][1] != "UNKNOWN"
        rows.append((fills, readings))

    assert rows[0] == rows[1]


async def test_states_of_other_code_are_warmed_again_and_the_position_stays(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103))
    await house.down()

    file = house.folder / "above.py"
    file.write_text(file.read_text().replace("State(s.bars + 1)", "State(s.bars + 2)"))
    await house.up()
    (sleeve,) = await house.get("/sleeves")
    await house.play(bars(99, 98, first=3))

    assert Decimal(sleeve["quantity"]) == house.said(subjects.TRADE_FILL)[0].quantity > 0
    (trade,) = house.said(subjects.TRADE_CLOSED)
    assert trade.closed_at == START + 4 * MINUTE


async def test_new_code_that_cannot_be_warmed_stands_still_with_an_alert(house: House) -> None:
    await house.up()
    await house.play(bars(99, 101, 103))
    await house.down()

    file = house.folder / "above.py"
    file.write_text(file.read_text().replace("s.bars + 1", "s.bars // 0"))
    await house.up()
    (alert,) = await house.until_said(subjects.ALERT)

    assert "ZeroDivisionError while it was warmed" in alert.text
    (sleeve,) = await house.get("/sleeves")
    assert Decimal(sleeve["quantity"]) > 0  # what it holds is known all the same


async def test_settings_that_no_longer_name_a_sleeve_are_refused(house_of_two: House) -> None:
    await house_of_two.up()
    await house_of_two.down()

    with pytest.raises(NeedsOperator, match=r"aloft\.BTC-USDT\.1m"):
        await house_of_two.up(strategies=("above",))
