"""The simulated market: the same on every machine, and with an edge that costs do not eat."""

import hashlib
import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.venue_sim.market import LISTINGS, Candle, Climate, SimulatedSeries
from shared.contracts.errors import NeedsOperator

FEE, SLIPPAGE = 0.0010, 0.0005  # of each side: 10 and 5 bps


def bars_of(series: SimulatedSeries, count: int) -> list[Candle]:
    return [series.candle(index) for index in range(count)]


def fingerprint(bars: list[Candle]) -> str:
    return hashlib.sha256(b"".join(struct.pack("<q5d", *bar) for bar in bars)).hexdigest()


def breakout_trades(bars: list[Candle], first: int, entry: int = 40, leave: int = 20) -> list[tuple[int, int, float]]:
    """(bar of entry, bar of exit, net return) of a long breakout, decided at closes and filled at the next open."""
    trades: list[tuple[int, int, float]] = []
    paid, since = 0.0, 0
    for at in range(first, len(bars) - 1):
        if not paid and bars[at].close > max(bar.high for bar in bars[at - entry : at]):
            paid, since = bars[at + 1].open * (1 + FEE + SLIPPAGE), at
        elif paid and bars[at].close < min(bar.low for bar in bars[at - leave : at]):
            trades.append((since, at, bars[at + 1].open * (1 - FEE - SLIPPAGE) / paid - 1))
            paid = 0.0
    return trades


def test_a_seed_is_the_same_market_on_every_machine() -> None:
    # Golden: renew with fingerprint(bars_of(SimulatedSeries("BTC-USDT", 7), 2000)) when the market is meant to change.
    assert fingerprint(bars_of(SimulatedSeries("BTC-USDT", 7), 2000)) == GOLDEN


GOLDEN = "31f0390f285881408f20bad30e07ba4f1e0c995e5964b61c7d5d93ce4bb743ba"


def test_each_instrument_and_each_seed_has_its_own_chance() -> None:
    paths = {
        tuple(round(bar.close / bars[0].open, 4) for bar in bars)
        for bars in (
            bars_of(SimulatedSeries(symbol, seed), 50) for symbol in ("BTC-USDT", "ETH-USDT") for seed in (7, 8)
        )
    }
    assert len(paths) == 4


def test_a_bar_does_not_depend_on_what_was_asked_before() -> None:
    far_first = SimulatedSeries("ETH-USDT", 7)
    far_first.candle(900)
    assert far_first.candle(3) == SimulatedSeries("ETH-USDT", 7).candle(3)


@settings(max_examples=25, deadline=None)
@given(symbol=st.sampled_from(sorted(LISTINGS)), seed=st.integers(0, 10**9))
def test_every_bar_is_whole_and_on_the_tick(symbol: str, seed: int) -> None:
    series = SimulatedSeries(symbol, seed)
    tick, previous = float(series.instrument.tick), None
    for bar in bars_of(series, 300):
        assert 0 < bar.low <= min(bar.open, bar.close) <= max(bar.open, bar.close) <= bar.high
        assert bar.volume >= 0
        assert all(abs(price / tick - round(price / tick)) < 1e-6 for price in bar[1:5])
        if previous is not None:
            assert bar.opened_at - previous.opened_at == 60_000 and bar.open == previous.close
        previous = bar


def test_regimes_last_long_enough_to_be_used_and_all_three_come() -> None:
    series = SimulatedSeries("SOL-USDT", 7)
    climates = [series.climate(index) for index in range(15_000)]
    changes = [at for at in range(1, len(climates)) if climates[at] is not climates[at - 1]]
    lengths = [after - before for before, after in itertools.pairwise(changes)]
    assert min(lengths) >= 40
    assert 80 < sum(lengths) / len(lengths) < 120  # 40 bars at least, then one in sixty ends: 100 on average
    for climate in Climate:
        assert 0.2 < climates.count(climate) / len(climates) < 0.5


def test_a_market_of_a_hundred_thousand_bars_keeps_its_scale() -> None:
    series = SimulatedSeries("BTC-USDT", 7)
    closes = [series.candle(index).close for index in range(0, 100_000, 100)]
    assert min(closes) > 60_000 / 3 and max(closes) < 60_000 * 3


@pytest.mark.parametrize("symbol", ["BTC-USDT", "ETH-USDT", "SOL-USDT"])
def test_a_breakout_earns_its_costs_in_every_third_of_the_default_market(symbol: str) -> None:
    bars = bars_of(SimulatedSeries(symbol, 7), 15_000)
    trades = breakout_trades(bars, first=100)
    for third in range(3):
        results = [result for at, _, result in trades if third * 5000 <= at < (third + 1) * 5000]
        assert len(results) >= 20
        assert sum(results) / len(results) > 0.003  # 30 bps a trade, after 30 bps of costs


def test_the_same_breakout_loses_while_the_market_chops() -> None:
    results: list[float] = []
    for symbol in ("BTC-USDT", "ETH-USDT", "SOL-USDT"):
        series = SimulatedSeries(symbol, 7)
        for since, until, result in breakout_trades(bars_of(series, 15_000), first=100):
            if all(series.climate(at) is Climate.CHOP for at in range(since, until + 1)):
                results.append(result)
    assert len(results) >= 20 and sum(results) / len(results) < -0.002


def test_a_symbol_that_is_not_listed_is_named_with_those_that_are() -> None:
    with pytest.raises(NeedsOperator, match=r"lists BTC-USDT.*'DOGE-USDT' is not among them"):
        SimulatedSeries("DOGE-USDT", 7)
