"""What breaks backtesters: tiny prices, huge volumes, integers that overflow, strategies that raise, odd memory."""

from __future__ import annotations

import gc
import resource
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Costs, SlippageModel
from shared.contracts.instruments import Instrument
from shared.trading import portfolio
from shared.trading.columns import Columns
from shared.trading.compiled import Failure, Run, Targets, Terms, cache, execute, grid, scan
from shared.trading.compiled.cache import cache_folder
from shared.trading.indicators import Sma, sma, sma_step
from shared.trading.kernel import kernel, ring
from shared.trading.strategies import BUILT_IN
from shared.trading.strategy import strategy
from shared.trading.trader import SleeveRefused, Trader
from shared.trading.values import Bar, Regime, Target, flat, long

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.001"))
FREE = Costs(fee_bps=0, slippage_bps=0)


class Params(NamedTuple):
    at: int = 17_000  # bar
    zero: float = 0.0
    room: int = 1_000  # numbers
    limit: float = 0.0  # price at which to enter; 0: at the market


class State(NamedTuple):
    past: list[float]
    seen: int


@kernel
def start(p: Params) -> State:
    return State(ring(p.room), 0)


@kernel
def step(s: State, bar: Bar, regime: Regime, p: Params) -> tuple[State, Target]:
    """Divides by nothing on one bar."""
    exposure = 1.0 / p.zero if s.seen == p.at else 1.0
    return State(s.past, s.seen + 1), long(exposure, limit=p.limit)


BOUNDS = {"at": (0, 10**6), "zero": (0.0, 1.0), "room": (1, 10**6), "limit": (0.0, 1e9)}
FRAGILE = strategy("fragile", Params, start, step, bounds=BOUNDS, warmup=lambda p: 0)


def flat_bars(count: int, price: float = 100.0, volume: float = 1.0) -> Columns:
    column = np.full(count, price)
    return Columns.of(np.arange(count) * 60_000, column, column, column, column, np.full(count, volume))


def bars_of(columns: Columns) -> list[Bar]:
    return [Bar(*numbers) for numbers in zip(*(column.tolist() for column in columns.all()), strict=True)]


def test_a_strategy_that_raises_at_bar_17000_is_told_with_the_bars_time_and_values() -> None:
    with pytest.raises(Failure) as told:
        scan(FRAGILE, flat_bars(20_000), {}, Terms(BTC, "1m", FREE, Decimal(1000)))
    assert "raised ZeroDivisionError at bar 17000 (1970-01-12 19:20, open=100.0 high=100.0" in str(told.value)
    assert isinstance(told.value.__cause__, ZeroDivisionError)


def test_a_division_by_nothing_is_the_same_exception_at_the_same_bar_live_and_in_detail() -> None:
    terms = Terms(BTC, "1m", FREE, Decimal(1000))
    columns = flat_bars(30)
    for on in (terms, Terms(BTC, "1m", FREE, Decimal(1000), exits="at_venue")):
        with pytest.raises(Failure, match="ZeroDivisionError at bar 20 "):
            scan(FRAGILE, columns, {"at": 20}, on)
    trader = Trader(FRAGILE, BTC, "1m", Decimal(1000), FREE)
    trader.admit("only", {"at": 20})
    trader.choose("only")
    lived = bars_of(columns)
    for bar in lived[:20]:
        trader.on_bar(bar)
    with pytest.raises(ZeroDivisionError):
        trader.on_bar(lived[20])


class Window(NamedTuple):
    bars: int = 0


@kernel
def start_window(p: Window) -> Sma:
    return sma(p.bars)


@kernel
def step_window(s: Sma, bar: Bar, regime: Regime, p: Window) -> tuple[Sma, Target]:
    """Divides by the length of its window, which is nothing."""
    s = sma_step(s, bar.close)
    return s, long() if s.value > 0.0 else flat()


def test_the_mean_of_no_bars_is_refused_where_it_reads_its_window_before_it_divides() -> None:
    empty = strategy("empty", Window, start_window, step_window, bounds={"bars": (0, 10)}, warmup=lambda p: 0)
    with pytest.raises(Failure, match="IndexError at bar 0 "):
        scan(empty, flat_bars(30), {}, Terms(BTC, "1m", FREE, Decimal(1000)))


def test_a_thousand_backtests_of_which_half_raise_leave_no_memory_behind() -> None:
    table = [{"at": i % 200 if i % 2 else 10**6, "room": 100_000} for i in range(1_000)]  # 800 KB of ring each
    columns, terms = flat_bars(300), Terms(BTC, "1m", FREE, Decimal(1000))
    for _ in range(2):  # what the allocator keeps for itself, it keeps once
        grid(FRAGILE, columns, table, terms, threads=1)
        gc.collect()
    before = resident_bytes()
    told = grid(FRAGILE, columns, table, terms, threads=1)
    assert [type(one) for one in told] == [Run, Failure] * 500
    del told
    gc.collect()  # a traceback and its frames hold each other
    assert resident_bytes() - before < 5_000_000


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def test_prices_of_a_hundred_millionth_and_volumes_of_a_billion_are_counted_exactly() -> None:
    tiny = Instrument(symbol="PEPE-USDT", base="PEPE", quote="USDT", tick=Decimal("1E-10"), lot=Decimal(1))
    close = np.array([1.23e-8, 1.23e-8, 1.5e-8, 1.5e-8])
    bars = Columns.of(np.arange(4) * 60_000, close, close, close, close, np.full(4, 1e9))
    costs = Costs(fee_bps=10, slippage_bps=0, max_volume_share=1.0)
    run = execute(Targets.of([1.0, 1.0, 0.0, 0.0]), bars, Terms(tiny, "1m", costs, Decimal(10)), with_fills=True)
    assert run.fills is not None
    # 10 USDT at 1.24e-8 (a tick of room) and 0.1 % are 805,645,966 PEPE, a little less than the bar holds
    lots = 805_645_966
    assert [(bar, bought, ticks) for bar, bought, ticks, *_ in run.fills.tolist()] == [(1, lots, 123), (3, -lots, 150)]
    fees = Decimal(lots) * Decimal("1.23E-8") * Decimal("0.001"), Decimal(lots) * Decimal("1.5E-8") * Decimal("0.001")
    cash = Decimal(10) + lots * Decimal("0.27E-8") - sum(fee.quantize(Decimal("1E-10")) for fee in fees)
    assert Decimal(run.sleeve.book.cash).scaleb(-10) == cash


def test_a_position_that_would_not_fit_the_ledgers_integers_is_refused_with_what_to_change() -> None:
    rocket = np.array([1.0, 1.0, 1e13])
    bars = Columns.of(np.arange(3) * 60_000, rocket, rocket, rocket, rocket, np.ones(3))
    for given in ({}, {"exits": "at_venue"}):
        terms: Any = Terms(BTC, "1m", FREE, Decimal(1_000_000), **given)
        with pytest.raises(Failure, match="would not fit the ledger's integers: use less cash or a coarser lot"):
            execute(Targets.of([1.0] * 3), bars, terms)
    with pytest.raises(NeedsOperator, match="cash must be above 0 and countable, was 1E"):
        execute(Targets.of([1.0] * 3), bars, Terms(BTC, "1m", FREE, Decimal("1E+12")))


def test_funding_that_drains_more_than_can_be_counted_is_refused() -> None:
    perpetual = Instrument(
        symbol="BTC-USDT-PERP", base="BTC", quote="USDT", kind="perpetual", tick=Decimal("0.01"), lot=Decimal("0.001")
    )
    times = np.arange(60_000, 60_000 * 90, 1_000)
    terms = Terms(perpetual, "1m", FREE, Decimal("5E+9"), funding=(times, np.full(len(times), 0.9)))
    with pytest.raises(Failure, match="would not fit the ledger's integers"):
        execute(Targets.of([1.0] * 90), flat_bars(90), terms)


def test_a_gap_is_filled_where_the_market_opens_and_not_where_it_closed() -> None:
    opens, closes = np.array([100.0, 40.0, 40.0]), np.array([100.0, 41.0, 40.0])
    bars = Columns.of(
        np.arange(3) * 60_000, opens, np.maximum(opens, closes), np.minimum(opens, closes), closes, np.ones(3)
    )
    run = execute(Targets.of([0.5] * 3), bars, Terms(BTC, "1m", FREE, Decimal(1000)), with_fills=True)
    assert run.fills is not None
    assert run.fills[:, 2].tolist() == [4000]


@pytest.mark.parametrize("kind", ["read-only", "strided", "arrow", "other-endian", "float32"])
def test_columns_of_any_memory_give_the_same_run_and_compile_nothing_again(kind: str) -> None:
    rng = np.random.default_rng(3)
    close = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 300))) * 8) / 8  # what float32 holds as well
    made: dict[str, Any] = {
        "read-only": close.copy(),
        "strided": np.repeat(close, 3)[::3],
        "arrow": pa.chunked_array([pa.array(close)]).combine_chunks(),
        "other-endian": close.astype(">f8"),
        "float32": close.astype(np.float32),
    }
    made["read-only"].flags.writeable = False
    times, ones = np.arange(300) * 60_000, np.ones(300)
    terms = Terms(BTC, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(1000))
    plain = scan(BUILT_IN["momentum"], Columns.of(times, close, close, close, close, ones), {}, terms)
    odd = Columns.of(times, *[made[kind]] * 4, ones)
    assert all(column.flags.c_contiguous and column.flags.writeable for column in odd.all())
    assert scan(BUILT_IN["momentum"], odd, {}, terms).stats == plain.stats


def test_where_the_cache_cannot_be_written_it_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "not-a-folder"
    file.write_text("")
    monkeypatch.setenv("TRIMTAB_CACHE", str(file))
    with pytest.warns(UserWarning, match=r"not kept .* set TRIMTAB_CACHE to a folder of yours"):
        folder = cache_folder.__wrapped__()
    (folder / "entry").write_bytes(b"kept as long as the process lives")


# what only a backtest can do is refused by the engine's Trader, not ignored


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tiers", ((Decimal(1), 5.0),)),
        ("slippage_model", SlippageModel()),
        ("borrow_bps_year", 30.0),
        ("max_volume_share", 0.1),
    ],
)
def test_the_engine_refuses_costs_that_only_a_backtest_can_charge(name: str, value: Any) -> None:
    costs = Costs(**{"fee_bps": 0.0, "slippage_bps": 0.0, name: value})
    with pytest.raises(NeedsOperator, match=f"Only a backtest can charge {name}: leave them out for BTC-USDT"):
        Trader(FRAGILE, BTC, "1m", Decimal(1000), costs)


def test_the_engine_refuses_an_order_that_rests_and_a_backtest_lets_it() -> None:
    trader = Trader(FRAGILE, BTC, "1m", Decimal(1000), FREE)
    trader.admit("only", {"limit": 99.0})
    trader.choose("only")
    with pytest.raises(SleeveRefused, match="by a limit or a trigger, is for backtests only"):
        trader.on_bar(bars_of(flat_bars(1))[0])
    column, low = np.full(3, 100.0), np.array([100.0, 98.0, 98.0])
    dipped = Columns.of(np.arange(3) * 60_000, column, column, low, column, column)
    run = scan(FRAGILE, dipped, {"limit": 99.0}, Terms(BTC, "1m", FREE, Decimal(1000)), with_fills=True)
    assert run.fills is not None
    assert run.fills[:, [0, 2]].tolist() == [[1, 9900]]


def test_another_tuple_among_ours_is_another_entry_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry names the classes of its arguments: one that was kept for a class that is gone could not be loaded."""

    class Gone(NamedTuple):
        lots: int

    before = cache.entry_key(portfolio.rules_of)
    monkeypatch.setattr(portfolio, "Gone", Gone, raising=False)
    monkeypatch.setattr(cache, "tuples", cache.tuples.__wrapped__)
    assert cache.entry_key(portfolio.rules_of) != before
    monkeypatch.delattr(portfolio, "Gone")
    assert cache.entry_key(portfolio.rules_of) == before
