"""Law 3 at its root: compiled, interpreted and hosted by the engine, a strategy does the same, bit for bit."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.execution import TradeClosed, TradeFill
from shared.contracts.governance import Costs, SlippageModel
from shared.contracts.instruments import Instrument
from shared.contracts.times import from_ms
from shared.trading import loop
from shared.trading.columns import Columns
from shared.trading.compiled import Failure, Run, Targets, Terms, execute, loops, scan
from shared.trading.indicators import Deviation, Ema, Rsi, deviation, deviation_step, ema, ema_step, rsi, rsi_step
from shared.trading.kernel import kernel, same
from shared.trading.scales import Scale
from shared.trading.strategies import BUILT_IN
from shared.trading.strategy import Strategy, strategy
from shared.trading.trader import SleeveRefused, Trader
from shared.trading.values import Bar, Regime, Target, long


class Params(NamedTuple):
    bars: int = 5
    size: float = 1.0  # of the equity
    width: float = 1.0  # x deviation, for stop, target and trail
    patience: int = 7  # bars
    turns: bool = True  # from long to short at once
    rests: int = 0  # 1: enters by limits, 2: by triggers


class State(NamedTuple):
    mean: Ema
    strength: Rsi
    spread: Deviation


@kernel
def start(p: Params) -> State:
    return State(ema(p.bars), rsi(p.bars), deviation(p.bars))


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Restless on purpose: long, short and flat, in three sizes, with every kind of exit."""
    s = State(ema_step(s.mean, bar.close), rsi_step(s.strength, bar.close), deviation_step(s.spread, bar.close))
    side = 0.0
    if s.strength.value > 55.0:
        side = 1.0
    elif s.strength.value < 45.0 and p.turns:
        side = -1.0
    if s.strength.value > 80.0 or s.strength.value < 20.0:
        side = side * 0.5
    width = p.width * s.spread.value
    limit = bar.close - side * 0.3 * width if p.rests == 1 else math.nan
    trigger = bar.close + side * 0.3 * width if p.rests == 2 else math.nan
    return s, long(side * p.size, width, 1.5 * width, 2.0 * width, p.patience, limit, trigger)


RESTLESS = strategy(
    "restless",
    Params,
    start,
    step,
    bounds={"bars": (2, 50), "size": (0.0, 1.0), "width": (0.0, 10.0), "patience": (0, 100), "rests": (0, 2)},
    warmup=lambda p: p.bars,
)
EVERY = {**BUILT_IN, "restless": RESTLESS}

# Small parameters, so that a few hundred bars hold many trades.
QUICK: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "momentum": st.fixed_dictionaries(
        {"entry": st.integers(5, 12), "exit": st.integers(2, 5), "atr_bars": st.integers(2, 9)}
    ),
    "mean_reversion": st.fixed_dictionaries(
        {
            "bars": st.integers(4, 9),
            "width": st.floats(0.5, 1.5),
            "rsi_bars": st.integers(2, 9),
            "oversold": st.floats(30.0, 50.0),
            "atr_bars": st.integers(2, 9),
            "shorts": st.booleans(),
        }
    ),
    "multi_timeframe": st.fixed_dictionaries(
        {
            "times": st.integers(2, 5),
            "trend": st.integers(2, 6),
            "rsi_bars": st.integers(2, 5),
            "dip": st.floats(20.0, 50.0),
            "rebound": st.floats(55.0, 80.0),
            "atr_bars": st.integers(2, 9),
        }
    ),
    "trend_follow": st.fixed_dictionaries(
        {"fast": st.integers(2, 5), "slow": st.integers(6, 20), "atr_bars": st.integers(2, 9)}
    ),
    "restless": st.fixed_dictionaries(
        {
            "bars": st.integers(2, 9),
            "size": st.sampled_from([0.3, 1.0]) | st.floats(0.0, 1.0),
            "width": st.floats(0.0, 3.0),
            "patience": st.integers(0, 20),
            "turns": st.booleans(),
        }
    ),
}


# How orders are filled and charged where only a backtest can.
DETAILS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "fill": st.sampled_from(["next_open", "same_close", "next_close"]),
        "exits": st.sampled_from(["on_close", "at_venue"]),
        "shorts": st.booleans(),
        "exposure": st.sampled_from([1.0, 0.3]),
        "size": st.sampled_from([None, None, Decimal(1)]),
    }
)
DEARER: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "maker_bps": st.sampled_from([None, 0.0, 2.5]),
        "min_fee": st.sampled_from([Decimal(0), Decimal("0.01")]),
        "tiers": st.sampled_from([(), ((Decimal(500), 5.0), (Decimal(5000), 1.0))]),
        "spread_bps": st.sampled_from([0.0, 3.0]),
        "slippage_model": st.none()
        | st.builds(
            SlippageModel,
            volatility=st.booleans(),
            size=st.booleans(),
            weekend=st.sampled_from([1.0, 1.5]),
            stress=st.sampled_from([1.0, 2.0]),
            noise=st.sampled_from([0.0, 0.75]),
            seed=st.integers(0, 2**31 - 1),
        ),
        "borrow_bps_year": st.sampled_from([None, 0.0, 300.0]),
        "max_volume_share": st.sampled_from([0.0, 0.1, 1.0]),
    }
)
NO_FUNDING = np.zeros(0, np.int64), np.zeros(0)


@st.composite
def any_detailed_terms(draw: st.DrawFn) -> Terms:
    """Everything that can be asked for, together."""
    terms = draw(any_terms(["spot", "perpetual", "share"]))
    given = {**msgspec.structs.asdict(terms.costs), **draw(DEARER)}
    funding = NO_FUNDING
    if terms.instrument.kind == "perpetual" and draw(st.booleans()):
        times = np.arange(0, 18_000_000, 7_000_000 // 3)
        funding = times, np.random.default_rng(draw(st.integers(0, 99))).normal(0.0, 0.01, len(times))
    return dataclasses.replace(terms, costs=Costs(**given), funding=funding, **draw(DETAILS))


@st.composite
def any_terms(draw: st.DrawFn, kinds: Sequence[str] = ("spot", "perpetual")) -> Terms:
    tick, lot = draw(st.sampled_from([("0.01", "0.00001"), ("0.05", "0.001"), ("0.00000001", "1")]))
    instrument = Instrument(
        symbol="BTC-USDT",
        base="BTC",
        quote="USDT",
        kind=draw(st.sampled_from(kinds)),
        tick=Decimal(tick),
        lot=Decimal(lot),
        min_notional=draw(st.sampled_from([Decimal(0), Decimal(5), Decimal(400)])),
    )
    costs = Costs(fee_bps=draw(st.sampled_from([0.0, 7.5, 10.0])), slippage_bps=draw(st.floats(0.0, 50.0)))
    # the largest is more ledger units than a double counts one by one
    cash = Decimal(draw(st.sampled_from(["1000.01", "100", "200000000"])))
    return Terms(instrument, "1m", costs, cash)


@st.composite
def any_bars(draw: st.DrawFn, most: int = 300) -> Columns:
    """A jumpy walk around a price from a thousandth to a few hundred, with gaps between close and open."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, most) | st.just(most))
    scale = draw(st.sampled_from([0.001, 1.0, 300.0]))
    noise = draw(st.sampled_from([0.0005, 0.01, 0.05]))
    close = scale * np.exp(np.cumsum(rng.normal(0.0, noise, count)))
    open = np.concatenate([[scale], close[:-1]]) * np.exp(rng.normal(0.0, noise / 5, count))
    high = np.maximum(open, close) * (1.0 + noise * rng.random(count))
    low = np.minimum(open, close) * (1.0 - noise * rng.random(count))
    volume = rng.random(count) * draw(st.sampled_from([1e9, 1e3]))
    return Columns.of(np.arange(count) * 60_000, open, high, low, close, volume)


def hosted(
    strategy: Strategy, bars: Columns, params: dict[str, Any], terms: Terms
) -> tuple[Trader, list[TradeClosed], list[int]]:
    """What the engine does on paper, bar by bar: fill at the open, book, step. Restarted in the middle.

    The sleeve at its end, the trades it closed, and its equity at each close.
    """

    def made() -> Trader:
        return Trader(strategy, terms.instrument, terms.timeframe, terms.cash, terms.costs)

    trader = made()
    trader.admit("only", params)
    trader.choose("only")
    closed: list[TradeClosed] = []
    curve: list[int] = []
    for i, bar in enumerate(map(Bar._make, zip(*(column.tolist() for column in bars.all()), strict=True))):
        if trader.intent is not None:
            paper = trader.paper_fill(bar.open)
            if paper is not None:
                fill = TradeFill(
                    venue="paper",
                    strategy=strategy.name,
                    symbol="BTC-USDT",
                    timeframe="1m",
                    trade_id=str(i),
                    order_id=f"order-{i}",
                    side=paper.side,
                    quantity=paper.quantity,
                    price=paper.price,
                    fee=paper.fee,
                    fee_asset=paper.fee_asset,
                    at=from_ms(bar.opened_at_ms),
                )
                ended = trader.on_fill(fill)
                closed += [ended] if ended else []
            if trader.intent is not None:
                trader.on_reject()
        trader.on_bar(bar)
        curve.append(trader.stats.equity)
        if i == len(bars) // 2:
            kept = trader.snapshot()
            trader = made()
            trader.resume(kept)
    return trader, closed, curve


def interpreted_loop(strategy: Strategy, events: loops.Events) -> loops.Loop:
    """The loop's text as plain Python, over columns as lists: what the others are measured by."""
    run = loop.bound(loop.run, step=strategy.step, **events.named)
    python = loop.bound(loop.attempt, run=run)

    def call(call: loops.Call, table: Sequence[Any], trade_from: Sequence[int]) -> list[Any]:
        bars = loop.Series(*(column.tolist() for column in call.bars))
        regimes = loop.Regimes(*(column.tolist() for column in call.beside))
        results: list[Any] = []
        for params, first in zip(table, trade_from, strict=True):
            notes = call.notes.tolist()
            owner, purse = strategy.start(params), events.opening(call.cash, call.rules)
            *told, raised = python(bars, regimes, params, owner, purse, call.rules, first, notes)
            results.append(None if raised else tuple(told))
            call.notes[:] = notes
        return results

    return call


def interpreted(strategy: Strategy, bars: Columns, params: dict[str, Any], terms: Terms) -> Run:
    """The same loop run by Python."""
    kinds = loops.PLAIN, loops.IN_DETAIL
    known = loops._loops
    loops._loops = {(strategy.source, events): interpreted_loop(strategy, events) for events in kinds}
    try:
        return scan(strategy, bars, params, terms, with_curve=True, with_fills=True)
    finally:
        loops._loops = known


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=40, deadline=None)
@given(data=st.data(), bars=any_bars(), terms=any_terms())
def test_a_strategy_does_the_same_compiled_interpreted_and_in_the_engine(
    name: str, data: st.DataObject, bars: Columns, terms: Terms
) -> None:
    params = data.draw(QUICK[name])
    run = scan(EVERY[name], bars, params, terms, with_curve=True, with_fills=True)
    plain = interpreted(EVERY[name], bars, params, terms)
    trader, closed, curve = hosted(EVERY[name], bars, params, terms)

    assert same(run.sleeve, plain.sleeve)
    assert same(run.stats, plain.stats)
    assert run.curve is not None
    assert run.curve.tolist() == curve
    assert np.array_equal(run.fills, plain.fills)
    assert same(run.sleeve, trader.sleeve)
    assert same(run.stats, trader.stats)
    assert len(closed) == run.figures.trades
    assert sum(trader.scale.units(trade.pnl) for trade in closed) == run.stats.profit - run.stats.loss


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bars=any_bars(), terms=any_terms())
def test_a_venue_in_detail_with_plain_terms_does_what_the_engine_does(
    data: st.DataObject, bars: Columns, terms: Terms
) -> None:
    params = data.draw(QUICK["restless"])
    plain = scan(RESTLESS, bars, params, terms, with_curve=True, with_fills=True)
    detail = scan(
        RESTLESS, bars, params, dataclasses.replace(terms, funding=NO_FUNDING), with_curve=True, with_fills=True
    )

    assert same(plain.sleeve, detail.sleeve)
    assert same(plain.stats, detail.stats)
    assert np.array_equal(plain.fills, detail.fills)
    assert np.array_equal(plain.curve, detail.curve)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), bars=any_bars(), terms=any_detailed_terms(), rests=st.integers(0, 2))
def test_a_venue_in_detail_does_the_same_compiled_and_interpreted_and_keeps_every_unit(
    data: st.DataObject, bars: Columns, terms: Terms, rests: int
) -> None:
    params = {**data.draw(QUICK["restless"]), "rests": rests}
    run = scan(RESTLESS, bars, params, terms, with_curve=True, with_fills=True)
    plain = interpreted(RESTLESS, bars, params, terms)

    assert same(run.sleeve, plain.sleeve)
    assert same(run.stats, plain.stats)
    assert np.array_equal(run.fills, plain.fills)
    assert np.array_equal(run.charges, plain.charges)
    conserved(run, bars, terms)


def conserved(run: Run, bars: Columns, terms: Terms) -> None:
    """At every close the equity is what fills, fees and charges have made of the cash, and lots never leave their bounds."""
    assert run.fills is not None and run.charges is not None and run.curve is not None
    scale = Scale.of(terms.instrument)
    cash, lots = scale.units(terms.cash), 0
    fills, charges = run.fills.tolist(), run.charges.tolist()
    marks = [int(close * float(1 / scale.tick) + 0.5) for close in bars.close.tolist()]
    for i, mark in enumerate(marks):
        taken = 0
        while fills and fills[0][0] == i:
            _, bought, ticks, fee, *_ = fills.pop(0)
            cash -= bought * ticks * scale.unit + fee
            lots += bought
            taken += abs(bought)
        while charges and charges[0][0] == i:
            cash -= charges.pop(0)[1]
        assert run.curve[i] == cash + lots * mark * scale.unit
        if terms.instrument.kind == "spot":
            assert cash >= 0 <= lots
        if terms.costs.max_volume_share:
            allowed = terms.costs.max_volume_share * bars.volume[i] / float(terms.instrument.lot)
            assert taken <= allowed * (1 + 1e-9)
    assert (run.sleeve.book.cash, run.sleeve.book.lots, run.stats.equity) == (cash, lots, run.curve[-1])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), bars=any_bars(), terms=any_terms())
def test_targets_decided_elsewhere_earn_what_the_strategy_earns(
    data: st.DataObject, bars: Columns, terms: Terms
) -> None:
    params = RESTLESS.params(data.draw(QUICK["restless"]))
    state, told = RESTLESS.start(params), []
    for bar in map(Bar._make, zip(*(column.tolist() for column in bars.all()), strict=True)):
        state, target = RESTLESS.step(state, bar, Regime(math.nan, math.nan, math.nan), params)
        told.append(target)

    run = scan(RESTLESS, bars, params._asdict(), terms, with_curve=True)
    follow = execute(Targets.of(*zip(*told, strict=True)), bars, terms, trade_from=params.bars - 1, with_curve=True)

    assert same(run.sleeve, follow.sleeve)
    assert same(run.stats, follow.stats)
    assert np.array_equal(run.curve, follow.curve)


@settings(max_examples=80, deadline=None)
@given(
    data=st.data(),
    bars=any_bars(),
    terms=any_terms() | any_detailed_terms(),
    cut=st.floats(0.0, 1.0),
    factor=st.floats(0.5, 2.0),
)
def test_changing_the_future_changes_no_past_decision(
    data: st.DataObject, bars: Columns, terms: Terms, cut: float, factor: float
) -> None:
    params = {**data.draw(QUICK["restless"]), "rests": 0 if terms.is_plain else data.draw(st.integers(0, 2))}
    known = max(1, int(cut * len(bars)))
    changes = np.where(np.arange(len(bars)) < known, 1.0, factor)
    other = Columns.of(bars.opened_at_ms, *(column * changes for column in bars.all()[1:]))

    one = scan(RESTLESS, bars, params, terms, with_curve=True, with_fills=True)
    two = scan(RESTLESS, other, params, terms, with_curve=True, with_fills=True)
    prefix = scan(RESTLESS, bars.part(0, known), params, terms, with_curve=True, with_fills=True)

    for run in (two, prefix):
        assert one.curve is not None and one.fills is not None and run.curve is not None and run.fills is not None
        assert one.charges is not None and run.charges is not None
        assert np.array_equal(one.charges[one.charges[:, 0] < known], run.charges[run.charges[:, 0] < known])
        assert np.array_equal(one.curve[:known], run.curve[:known])
        assert np.array_equal(one.fills[one.fills[:, 0] < known], run.fills[run.fills[:, 0] < known])


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bars=any_bars(), terms=any_terms())
def test_money_is_conserved_at_every_close(data: st.DataObject, bars: Columns, terms: Terms) -> None:
    conserved(scan(RESTLESS, bars, data.draw(QUICK["restless"]), terms, with_fills=True, with_curve=True), bars, terms)


def test_a_target_that_is_no_exposure_stops_backtest_and_engine_at_the_same_bar() -> None:
    class Nothing(NamedTuple):
        at: int = 5

    @kernel
    def count(p: Nothing) -> Counter:
        return Counter(0)

    @kernel
    def too_much(s: Counter, bar: Bar, regime: Regime, p: Nothing) -> tuple[Counter, Target]:
        """Asks for twice its equity on one bar."""
        return Counter(s.seen + 1), long(2.0 if s.seen == p.at else 0.0)

    greedy = strategy("greedy", Nothing, count, too_much, bounds={"at": (0, 10)}, warmup=lambda p: 0)
    instrument = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
    terms = Terms(instrument, "1m", Costs(fee_bps=0, slippage_bps=0), Decimal(1000))
    ones = np.full(10, 100.0)
    bars = Columns.of(np.arange(10) * 60_000, ones, ones, ones, ones, ones)

    with pytest.raises(Failure, match=r"exposure must be a number in -1\.\.1"):
        scan(greedy, bars, {}, terms)
    with pytest.raises(SleeveRefused, match=r"00:05.*was exposure 2.0"):
        hosted(greedy, bars, {}, terms)


class Counter(NamedTuple):
    seen: int
