"""Epochs: when a choice is made, how long it stands, and the one outcome that it gives."""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.param_controller.controller import ParamController
from services.param_controller.sleeves import Key, Policy, Sleeve, Turn
from shared.artifacts.presets import Preset, default_preset, preset_bytes, preset_id
from shared.contracts.errors import BadMessage
from shared.contracts.execution import Signal, TradeClosed, TradeFill
from shared.contracts.governance import PresetDemoted, PresetPromoted
from shared.contracts.regime import RegimeReading
from shared.contracts.times import parse_time
from shared.regimes.context import CONTEXT_SCHEMA
from shared.trading.strategies import BUILT_IN

START = parse_time("2024-01-01")
MINUTE = timedelta(minutes=1)
KEY = Key("sim", "momentum", "BTC-USDT", "1m")
MOMENTUM = BUILT_IN["momentum"]
DEFAULT = default_preset(MOMENTUM, "BTC-USDT", "1m")


def controller(has_defaults: bool = True) -> ParamController:
    policy = Policy(epoch_bars=24, l2=1.0, exploration=0.5, seed=7)
    return ParamController({"momentum": MOMENTUM}, policy, has_defaults=has_defaults)


def reading(bar: int, *, schema: str = CONTEXT_SCHEMA, is_history: bool = False) -> RegimeReading:
    return RegimeReading(
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        opened_at=START + bar * MINUTE,
        regime="BULL",
        bull=1.0,
        bear=0.0,
        chop=0.0,
        model_id="m",
        context=(1.0, 1.0, 0.0, 0.0, 0.0),
        context_schema=schema,
        reading_hash="0",
        is_history=is_history,
    )


def closed(bar: int) -> datetime:
    return START + (bar + 1) * MINUTE


def hear(of: ParamController, bar: int, *, is_history: bool = False) -> Turn | None:
    """The reading of a bar, with everything that the engine did up to its close known."""
    said = reading(bar, is_history=is_history)
    return of.turn(of.hear(said)[0], said)


def sleeve(of: ParamController) -> Sleeve:
    found = of.sleeve(KEY)
    assert found is not None
    return found


def another_preset(**params: int) -> Preset:
    made = MOMENTUM.params(params)._asdict()
    return Preset(
        strategy="momentum",
        source_hash=MOMENTUM.source,
        schema_version=1,
        params=made,
        symbol="BTC-USDT",
        timeframe="1m",
        origin="backtest",
    )


def promoted(preset: Preset, at: datetime) -> PresetPromoted:
    return PresetPromoted(
        preset_id=preset_id(preset),
        preset=preset_bytes(preset),
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        evidence_id="e",
        promoted_at=at,
    )


def demoted(name: str, at: datetime) -> PresetDemoted:
    return PresetDemoted(
        preset_id=name, venue="sim", strategy="momentum", symbol="BTC-USDT", timeframe="1m", reason="r", demoted_at=at
    )


def signal(bar: int, exposure: float, under: str) -> Signal:
    return Signal(
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        opened_at=START + bar * MINUTE,
        closed_at=closed(bar),
        exposure=exposure,
        exit_reason="" if exposure else "signal",
        preset_id="p",
        model_id="m",
        decision_id=under,
        regime="BULL",
    )


def fill(bar: int) -> TradeFill:
    return TradeFill(
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        trade_id=str(bar),
        order_id=f"o{bar}",
        side="buy",
        quantity=Decimal(1),
        price=Decimal(100),
        fee=Decimal(0),
        fee_asset="USDT",
        at=closed(bar),
    )


def trade(bar: int, result_r: float, under: str, side: Literal["long", "short"] = "long") -> TradeClosed:
    return TradeClosed(
        trade_id=f"t{bar}",
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        side=side,
        opened_at=START,
        closed_at=closed(bar),
        bars_held=1,
        quantity=Decimal(1),
        entry_price=Decimal(100),
        exit_price=Decimal(100),
        fees=Decimal(0),
        pnl=Decimal(0),
        risk=Decimal(1),
        result_r=result_r,
        exit_reason="signal",
        preset_id="p",
        model_id="m",
        decision_id=under,
        regime="BULL",
    )


def begun(of: ParamController, bar: int = 0) -> str:
    turn = hear(of, bar)
    assert turn is not None
    return turn.decision.decision_id


def test_the_first_live_reading_chooses_the_default_preset() -> None:
    of = controller()
    assert hear(of, 0, is_history=True) is None

    turn = hear(of, 1)

    assert turn is not None and turn.lesson is None
    assert turn.decision.preset_id == preset_id(DEFAULT)
    assert turn.decision.propensities == {preset_id(DEFAULT): 1.0}
    assert turn.decision.epoch == 1


def test_live_trading_has_no_default_preset_and_so_makes_no_choice() -> None:
    assert hear(controller(has_defaults=False), 0) is None


def test_a_choice_stands_for_24_bars_and_earns_nothing_when_nothing_was_opened() -> None:
    of = controller()
    first = begun(of)
    assert [bar for bar in range(1, 24) if hear(of, bar)] == []

    turn = hear(of, 24)

    assert turn is not None and turn.lesson is not None
    assert (turn.lesson.outcome.decision_id, turn.lesson.outcome.reward) == (first, 0.0)
    assert turn.lesson.outcome.trade_id == ""
    assert turn.decision.epoch == 2


def test_a_choice_stands_until_the_trade_opened_under_it_has_closed() -> None:
    of = controller()
    first = begun(of)
    of.on_execution(signal(20, 1.0, first))
    of.on_execution(fill(21))
    assert hear(of, 24) is None
    assert hear(of, 40) is None
    of.on_execution(signal(44, 0.0, first))
    assert hear(of, 44) is None
    of.on_execution(trade(45, 1.5, first))

    turn = hear(of, 45)

    assert turn is not None and turn.lesson is not None
    assert (turn.lesson.outcome.reward, turn.lesson.outcome.trade_id) == (1.5, "t45")


def test_nothing_can_fall_due_while_the_trade_of_the_epoch_is_open() -> None:
    of = controller()
    under = begun(of)
    of.on_execution(signal(3, 1.0, under))
    of.on_execution(fill(3))
    assert of.idle_until(reading(30)) > START + timedelta(days=365_000)

    of.on_execution(trade(31, 0.5, under), START + 31 * MINUTE)

    assert of.idle_until(reading(30)) == START + 31 * MINUTE


def test_an_epoch_that_ended_with_a_trade_ends_on_no_reading_of_an_older_bar() -> None:
    of = controller()
    under = begun(of)
    of.on_execution(signal(3, 1.0, under))
    of.on_execution(fill(3))
    of.on_execution(trade(31, 0.5, under), START + 31 * MINUTE)  # faster than the readings before it
    of.on_execution(signal(31, 0.0, under))

    assert [hear(of, bar) is not None for bar in (29, 30, 31)] == [False, False, True]


def test_a_wish_to_enter_at_the_close_of_the_last_bar_keeps_the_epoch_open() -> None:
    of = controller()
    of.on_execution(signal(24, 1.0, begun(of)))

    assert hear(of, 24) is None


def test_a_wish_that_nobody_filled_within_two_bars_holds_nothing_up() -> None:
    of = controller()
    of.on_execution(signal(24, 1.0, begun(of)))
    assert hear(of, 25) is None

    turn = hear(of, 26)

    assert turn is not None and turn.lesson is not None and turn.lesson.outcome.reward == 0.0


def test_several_trades_of_one_epoch_are_one_outcome_whatever_order_they_came_in() -> None:
    rewards: list[float] = []
    results = {3: 0.1, 9: -1.0, 12: 0.7}
    for order in ((3, 9, 12), (12, 3, 9)):
        of = controller()
        first = begun(of)
        for bar in order:
            of.on_execution(trade(bar, results[bar], first))
        turn = hear(of, 24)
        assert turn is not None and turn.lesson is not None
        assert turn.lesson.outcome.trade_id == "t12"
        rewards.append(turn.lesson.outcome.reward)

    assert rewards[0] == rewards[1] == math.fsum(results.values())


def test_a_trade_of_another_decision_teaches_nothing() -> None:
    of = controller()
    begun(of)
    of.on_execution(trade(5, 9.0, "sim-momentum-BTC-USDT-1m-0"))

    turn = hear(of, 24)

    assert turn is not None and turn.lesson is not None and turn.lesson.outcome.reward == 0.0


def test_a_position_turned_over_in_one_fill_still_belongs_to_the_epoch() -> None:
    of = controller()
    first = begun(of)
    of.on_execution(signal(2, 1.0, first))
    of.on_execution(fill(3))
    of.on_execution(signal(22, -1.0, first))
    of.on_execution(fill(23))
    of.on_execution(trade(23, 0.5, first))
    assert hear(of, 24) is None

    of.on_execution(signal(25, 0.0, first))
    of.on_execution(trade(26, -0.2, first, side="short"))

    turn = hear(of, 26)

    assert turn is not None and turn.lesson is not None
    assert turn.lesson.outcome.reward == pytest.approx(0.3)


def test_a_preset_promoted_at_a_close_is_chosen_from_the_next_close_however_fast_its_message_was() -> None:
    of = controller()
    newcomer = another_preset(entry=30)
    of.promote(promoted(newcomer, at=closed(0)))
    assert begun(of) is not None
    assert sleeve(of).admitted(closed(0)) == [preset_id(DEFAULT)]

    turn = hear(of, 24)

    assert turn is not None
    assert set(turn.decision.propensities) == {preset_id(DEFAULT), preset_id(newcomer)}


def test_a_demoted_preset_is_let_go_at_once_unless_a_position_stands_on_it() -> None:
    for is_held in (False, True):
        of = controller()
        of.promote(promoted(another_preset(entry=30), at=START))
        first = begun(of)
        current = sleeve(of).current
        assert current is not None
        if is_held:
            of.on_execution(signal(0, 1.0, first))
            of.on_execution(fill(1))
        of.demote(demoted(current.preset_id, at=closed(1)))
        assert hear(of, 1) is None  # the same close: for everybody it still is admitted

        turn = hear(of, 2)

        assert (turn is None) is is_held
        assert turn is None or turn.decision.preset_id != current.preset_id


def test_a_promotion_whose_bytes_are_not_what_its_id_says_is_refused() -> None:
    forged = promoted(another_preset(entry=30), at=START)
    with pytest.raises(BadMessage, match="SHA-256"):
        controller().promote(msgspec.structs.replace(forged, preset_id="0" * 64))


def test_a_preset_of_other_code_is_not_admitted() -> None:
    of = controller()
    other = msgspec.structs.replace(another_preset(entry=30), source_hash="0" * 64)

    assert of.promote(promoted(other, at=START)) is None
    assert sleeve(of).admitted(closed(5)) == [preset_id(DEFAULT)]


def test_a_new_context_schema_starts_new_posteriors() -> None:
    of = controller()
    first = begun(of)
    of.on_execution(trade(3, 2.0, first))
    before = hear(of, 24)
    assert before is not None

    said = reading(48, schema="other/1")
    after = of.turn(of.hear(said)[0], said)

    assert after is not None and after.lesson is not None
    assert after.lesson.context_schema == CONTEXT_SCHEMA
    fresh = of.bandit(sleeve(of), "other/1", 5)
    assert fresh.lessons(preset_id(DEFAULT)) == 0
    assert of.bandit(sleeve(of), CONTEXT_SCHEMA, 5).lessons(preset_id(DEFAULT)) == 2


def test_a_reading_is_decided_on_once() -> None:
    of = controller()
    begun(of)

    assert hear(of, 0) is None


@given(
    entries=st.sets(st.integers(0, 119)),
    exits=st.sets(st.integers(0, 119)),
    demoted_at=st.none() | st.integers(1, 119),
)
def test_no_decision_falls_due_on_a_bar_for_which_it_was_said_that_nothing_can(
    entries: set[int], exits: set[int], demoted_at: int | None
) -> None:
    of = controller()
    other = another_preset(entry=30)
    of.promote(promoted(other, START))
    idle_until = START
    for bar in range(120):
        made = hear(of, bar)
        if made is not None:
            assert idle_until <= START + bar * MINUTE
        current = sleeve(of).current
        if current is not None and bar in entries:
            of.on_execution(signal(bar, 1.0, current.decision_id))
            of.on_execution(fill(bar))
        if bar in exits:
            of.on_execution(signal(bar, 0.0, ""))
        idle_until = of.idle_until(reading(bar))
        if current is not None and bar == demoted_at:
            of.demote(demoted(current.preset_id, closed(bar)))
            idle_until = of.idle_until(reading(bar))  # what was said before is taken back
