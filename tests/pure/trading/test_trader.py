"""One sleeve as the engine hosts it: which preset is followed, what a venue's answers do, and what a restart keeps."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from typing import NamedTuple

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.errors import BadMessage
from shared.contracts.execution import TradeClosed, TradeFill
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.contracts.times import from_ms
from shared.trading.kernel import kernel
from shared.trading.orders import Intent
from shared.trading.sketches import bars, fall, flat, rise
from shared.trading.snapshots import KeptCandidate, Snapshot
from shared.trading.strategies import BUILT_IN
from shared.trading.strategy import strategy
from shared.trading.trader import SleeveRefused, Trader
from shared.trading.values import UNKNOWN, Bar, Regime, Target

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
PERP = Instrument(
    symbol="BTC-USDT-PERP", base="BTC", quote="USDT", kind="perpetual", tick=Decimal("0.01"), lot=Decimal("0.001")
)
BULL = Regime(0.8, 0.1, 0.1)


class Params(NamedTuple):
    above: float = 100.0  # price above which it is long
    stop: float = 0.0  # price units
    short_below: float = 0.0


class State(NamedTuple):
    bars: int


@kernel
def start(p: Params) -> State:
    return State(0)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Long above a price, short below another."""
    side = 1.0 if bar.close > p.above else -1.0 if bar.close < p.short_below else 0.0
    return State(s.bars + 1), Target(side, p.stop, 0.0, 0.0, 0)


BOUNDS = {"above": (0.0, 1e9), "stop": (0.0, 1e9), "short_below": (0.0, 1e9)}
LEVEL = strategy("level", Params, start, step, bounds=BOUNDS, warmup=lambda p: 2)


def trader_with(instrument: Instrument = BTC, fee_bps: float = 0, **presets: dict[str, float]) -> Trader:
    """1,000 USDT; the first preset is chosen."""
    trader = Trader(LEVEL, instrument, "1m", Decimal(1000), Costs(fee_bps=fee_bps, slippage_bps=0))
    for name, params in presets.items():
        trader.admit(name, params)
    trader.choose(next(iter(presets)), "decision-1")
    return trader


def filled(
    trader: Trader,
    intent: Intent,
    price: str,
    share: str = "1",
    fee: str = "0",
    fee_asset: str = "USDT",
    minute: int = 0,
) -> TradeClosed | None:
    """The venue's answer to an intent."""
    fill = TradeFill(
        venue="sim",
        strategy="level",
        symbol=trader.instrument.symbol,
        timeframe="1m",
        trade_id="1",
        order_id="order-1",
        side=intent.side,
        quantity=intent.quantity * Decimal(share),
        price=Decimal(price),
        fee=Decimal(fee),
        fee_asset=fee_asset,
        at=from_ms(minute * 60_000),
    )
    return trader.on_fill(fill)


def wanted(trader: Trader, market: list[Bar], may_trade: bool = True) -> Intent | None:
    """The intent of the last of these bars; there is none before."""
    intents = [trader.on_bar(bar, BULL, "model-1", may_trade).intent for bar in market]
    assert not any(intents[:-1])
    return intents[-1]


def entered(trader: Trader, price: str = "101") -> Trader:
    """In a position, from a market that rose above 100 on its third bar."""
    intent = wanted(trader, bars(flat(2) + rise(1, 0.01)))
    assert intent is not None
    filled(trader, intent, price)
    return trader


def test_an_intent_names_what_decided_it() -> None:
    trader = trader_with(calm={"above": 100.0})
    intent = wanted(trader, bars(flat(2) + rise(1, 0.01)))
    assert intent is not None
    assert (intent.side, intent.quantity, intent.reason, intent.is_entry) == ("buy", Decimal("9.900"), "signal", True)
    assert (intent.preset_id, intent.decision_id, intent.model_id) == ("calm", "decision-1", "model-1")
    assert (intent.opened_at, intent.regime) == (from_ms(2 * 60_000), "BULL")


def test_a_closed_trade_is_told_net_of_fees_and_in_units_of_its_stop() -> None:
    trader = trader_with(calm={"above": 100.0, "stop": 2.0})
    intent = wanted(trader, bars(flat(2) + rise(1, 0.01)))
    assert intent is not None
    filled(trader, intent, "101.00", fee="1", minute=3)
    leave = wanted(trader, bars([-0.02], first_close=101.0, opened_at_ms=180_000))
    assert leave is not None
    closed = filled(trader, leave, "98.00", fee="0.5", minute=4)
    assert closed is not None
    # 9.9 BTC bought at 101, sold at 98: -29.7, and 1.5 of fees; the stop put 2 x 9.9 at stake
    assert (closed.pnl, closed.fees, closed.risk) == (Decimal("-31.2"), Decimal("1.5"), Decimal("19.8"))
    assert closed.result_r == pytest.approx(-31.2 / 19.8)
    assert (closed.entry_price, closed.exit_price, closed.bars_held) == (Decimal(101), Decimal(98), 1)
    assert (closed.exit_reason, closed.regime, closed.trade_id) == ("stop", "BULL", "order-1")
    assert (trader.cash, trader.is_flat) == (Decimal("968.8"), True)


def test_parts_of_a_fill_add_up() -> None:
    trader = trader_with(calm={"above": 100.0})
    intent = wanted(trader, bars(flat(2) + rise(1, 0.01)))
    assert intent is not None
    filled(trader, intent, "101", share="0.25")
    assert trader.intent is not None
    filled(trader, intent, "103", share="0.75")
    assert (trader.intent, trader.quantity, trader.entry_price) == (None, Decimal("9.900"), pytest.approx(102.5))


def test_an_open_position_keeps_the_preset_that_opened_it() -> None:
    trader = entered(trader_with(calm={"above": 100.0}, wild={"above": 102.0}))
    trader.choose("wild", "decision-2")
    step_ = trader.on_bar(bars([0.005], first_close=101.0, opened_at_ms=180_000)[0], BULL)
    assert (step_.intent, step_.preset_id) == (None, "calm")  # wild would be flat at 101.5
    leave = wanted(trader, bars([-0.02], first_close=101.5, opened_at_ms=240_000))
    assert leave is not None
    assert (leave.preset_id, leave.decision_id) == ("calm", "decision-1")


def test_a_newcomer_is_warmed_from_kept_bars_and_enters_only_on_a_change_of_its_own_target() -> None:
    trader = trader_with(calm={"above": 500.0})
    assert wanted(trader, bars(flat(2) + rise(3, 0.01))) is None
    trader.admit("wild", {"above": 102.0})
    trader.choose("wild", "decision-2")
    assert trader.is_ready("wild")
    assert wanted(trader, bars(rise(2, 0.001), first_close=103.03, opened_at_ms=300_000)) is None  # long already
    assert wanted(trader, bars([-0.05], first_close=103.2, opened_at_ms=420_000)) is None
    again = wanted(trader, bars([0.06], first_close=98.0, opened_at_ms=480_000))
    assert again is not None
    assert again.preset_id == "wild"


def test_a_preset_that_has_not_seen_enough_bars_begins_nothing() -> None:
    trader = trader_with(calm={"above": 100.0})
    assert wanted(trader, bars(rise(1, 0.01))) is None
    assert not trader.is_ready("calm")


def test_a_retired_preset_manages_its_position_to_the_end_and_is_forgotten() -> None:
    trader = entered(trader_with(calm={"above": 100.0}))
    trader.retire("calm")
    leave = wanted(trader, bars([-0.02], first_close=101.0, opened_at_ms=180_000))
    assert leave is not None
    filled(trader, leave, "99")
    assert trader.candidates == {}
    assert wanted(trader, bars(rise(3, 0.05), first_close=99.0, opened_at_ms=240_000)) is None


def test_while_nothing_may_be_begun_a_position_can_still_be_left() -> None:
    paused = trader_with(calm={"above": 100.0})
    assert wanted(paused, bars(flat(2) + rise(2, 0.01)), may_trade=False) is None
    assert wanted(paused, bars(rise(1, 0.01), first_close=102.01, opened_at_ms=240_000)) is None  # only a change counts
    holding = entered(trader_with(calm={"above": 100.0}))
    assert wanted(holding, bars(fall(1, 0.05), first_close=101.0, opened_at_ms=180_000), may_trade=False) is not None


def test_a_refused_entry_waits_for_a_change_and_a_refused_exit_is_tried_again() -> None:
    trader = trader_with(calm={"above": 100.0})
    assert wanted(trader, bars(flat(2) + rise(1, 0.01))) is not None
    trader.on_reject()
    assert wanted(trader, bars(rise(1, 0.01), first_close=101.0, opened_at_ms=180_000)) is None

    holding = entered(trader_with(calm={"above": 100.0}))
    assert wanted(holding, bars(fall(1, 0.05), first_close=101.0, opened_at_ms=180_000)) is not None
    holding.on_reject()
    again = wanted(holding, bars(flat(1), first_close=95.95, opened_at_ms=240_000))
    assert again is not None
    assert (again.side, again.quantity) == ("sell", Decimal("9.900"))


def test_while_an_order_is_out_no_other_is_wanted() -> None:
    trader = trader_with(calm={"above": 100.0})
    assert wanted(trader, bars(flat(2) + rise(1, 0.01))) is not None
    assert wanted(trader, bars(fall(2, 0.05), first_close=101.0, opened_at_ms=180_000)) is None


def test_rails_can_make_an_intent_smaller_and_never_larger() -> None:
    trader = trader_with(calm={"above": 100.0})
    assert wanted(trader, bars(flat(2) + rise(1, 0.01))) is not None
    assert trader.resize(Decimal("1.0005")).quantity == Decimal("1.000")
    with pytest.raises(ValueError, match="only be made smaller"):
        trader.resize(Decimal(5))


def test_a_flattened_sleeve_stays_out_until_its_strategy_has_been_flat() -> None:
    trader = entered(trader_with(calm={"above": 100.0}))
    trader.on_bar(bars(flat(1), first_close=101.0, opened_at_ms=180_000)[0])
    leave = trader.flatten()
    assert leave is not None
    assert (leave.reason, leave.quantity) == ("command", Decimal("9.900"))
    filled(trader, leave, "101")
    assert wanted(trader, bars(rise(2, 0.01), first_close=101.0, opened_at_ms=240_000)) is None
    assert wanted(trader, bars([-0.05, 0.06], first_close=103.0, opened_at_ms=360_000)) is not None


@kernel
def greedy_step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Long above a price, and above 110 more than it has."""
    return State(s.bars + 1), Target(2.0 if bar.close > 110.0 else float(bar.close > p.above), 0.0, 0.0, 0.0, 0)


def test_a_sleeve_whose_strategy_says_nonsense_stops_and_can_still_be_flattened() -> None:
    greedy = strategy("greedy", Params, start, greedy_step, bounds=BOUNDS, warmup=lambda p: 0)
    trader = Trader(greedy, BTC, "1m", Decimal(1000), Costs(fee_bps=0, slippage_bps=0))
    trader.admit("calm", {})
    trader.choose("calm")
    trader = entered(trader)
    for bar in bars(rise(2, 0.1), first_close=101.0, opened_at_ms=180_000):
        with pytest.raises(SleeveRefused, match=r"preset calm, bar .*was exposure 2\.0"):
            trader.on_bar(bar)
    leave = trader.flatten()
    assert leave is not None
    assert filled(trader, leave, "120") is not None
    assert trader.is_flat


def test_a_fee_taken_in_base_reduces_what_can_be_sold_and_no_satoshi_is_lost() -> None:
    trader = trader_with(calm={"above": 100.0})
    intent = wanted(trader, bars(flat(2) + rise(1, 0.01)))
    assert intent is not None
    filled(trader, intent, "101", fee="0.0099", fee_asset="BTC")  # 9.9 BTC less 10 bps: 9.8901 BTC
    assert (trader.quantity, trader.dust) == (Decimal("9.890"), Decimal("0.0001"))
    assert trader.cash == Decimal(1000) - Decimal("9.9") * 101
    leave = wanted(trader, bars([-0.02], first_close=101.0, opened_at_ms=180_000))
    assert leave is not None
    closed = filled(trader, leave, "101")
    assert closed is not None
    assert closed.pnl == -Decimal("0.0099") * 101  # the fee and nothing else: the dust counts at the last price
    assert closed.fees == Decimal("0.9999")


def test_a_fee_in_a_coin_without_a_price_is_refused_with_what_to_do() -> None:
    trader = trader_with(calm={"above": 100.0})
    intent = wanted(trader, bars(flat(2) + rise(1, 0.01)))
    assert intent is not None
    with pytest.raises(BadMessage, match="Turn off paying fees in another coin"):
        filled(trader, intent, "101", fee="0.01", fee_asset="BNB")


def test_a_position_that_turns_closes_one_trade_and_opens_another() -> None:
    trader = entered(trader_with(PERP, both={"above": 100.0, "short_below": 99.0}))
    turn = wanted(trader, bars([-0.05], first_close=101.0, opened_at_ms=180_000))
    assert turn is not None
    closed = filled(trader, turn, "95", fee="3")
    assert closed is not None
    assert closed.side == "long"
    assert trader.quantity < 0
    assert trader.trade is not None
    assert closed.fees + trader.trade.fees == 3
    assert trader.trade.cash_before == 1000 + closed.pnl


def test_a_restart_resumes_with_an_order_on_its_way() -> None:
    trader = trader_with(calm={"above": 100.0}, wild={"above": 101.5})
    intent = wanted(trader, bars(flat(2) + rise(1, 0.01)))
    assert intent is not None
    resumed = Trader(LEVEL, BTC, "1m", Decimal(1000), Costs(fee_bps=0, slippage_bps=0))
    resumed.resume(trader.snapshot())
    assert resumed.snapshot() == trader.snapshot()
    for one in (trader, resumed):
        filled(one, intent, "101")
        one.on_bar(bars([-0.02], first_close=101.0, opened_at_ms=180_000)[0])
    assert resumed.snapshot() == trader.snapshot()


def test_states_of_another_source_are_warmed_again_from_the_kept_bars() -> None:
    trader = entered(trader_with(calm={"above": 100.0}))
    kept = msgspec.msgpack.decode(trader.snapshot())
    kept["candidates"]["calm"]["state"] = b"\0" * 40
    resumed = Trader(LEVEL, BTC, "1m", Decimal(1000), Costs(fee_bps=0, slippage_bps=0))
    resumed.resume(msgspec.msgpack.encode(kept))
    assert resumed.candidates["calm"].state == trader.candidates["calm"].state
    assert (resumed.quantity, resumed.is_ready("calm")) == (trader.quantity, True)


@pytest.mark.parametrize("name", BUILT_IN)
@given(market=st.lists(st.floats(-0.02, 0.02), min_size=2, max_size=60), data=st.data())
def test_candidates_that_were_kept_some_bars_ago_go_on_to_the_bit(
    name: str, market: list[float], data: st.DataObject
) -> None:
    built_in = BUILT_IN[name]
    trader, resumed = (Trader(built_in, BTC, "1m", Decimal(1000), Costs(fee_bps=1, slippage_bps=0)) for _ in range(2))
    trader.admit("default", {})
    trader.choose("default")
    kept_at = data.draw(st.integers(0, len(market) - 1))
    old: dict[str, KeptCandidate] = {}
    for at, bar in enumerate(bars(market)):
        if at == kept_at:
            old = {"default": trader.kept_candidate("default")}
        if trader.on_bar(bar).intent is not None:
            trader.on_reject()

    snapshot = msgspec.msgpack.decode(trader.snapshot(), type=Snapshot)
    resumed.resume(msgspec.msgpack.encode(msgspec.structs.replace(snapshot, candidates=old)))

    assert resumed.snapshot() == trader.snapshot()


def test_a_strategy_that_needs_a_regime_holds_nothing_without_one() -> None:
    needy = strategy("needy", Params, start, step, bounds=BOUNDS, warmup=lambda p: 0, needs_regime=True)
    _, blind = needy.step(needy.start(Params()), bars(rise(1, 0.5))[0], UNKNOWN, Params())
    _, seeing = needy.step(needy.start(Params()), bars(rise(1, 0.5))[0], BULL, Params())
    assert (blind.exposure, seeing.exposure) == (0.0, 1.0)


def test_the_engines_part_is_light() -> None:
    heavy = "numba numpy pyarrow polars"
    code = f"import trimtab, sys; print([name for name in {heavy.split()} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert told.stdout.strip() == "[]"
