"""Law 2 over many instruments: a strategy that sees any future of any of them is found, by instrument, column and bar."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from services import leakcheck as verb
from shared.contracts.governance import Costs
from shared.trading.columns import Columns, MarketColumns
from shared.trading.compiled.portfolios import PortfolioTerms
from shared.trading.compiled.weights import stepped_weights
from shared.trading.kernel import kernel
from shared.trading.leakcheck import Leak, leaks, other_future, portfolio_tables
from shared.trading.portfolio import Market
from shared.trading.strategies import BUILT_IN_PORTFOLIOS
from shared.trading.strategy import PortfolioStrategy, portfolio_strategy
from shared.trading.values import Regime
from tests.pure.trading.portfolio.markets import SYMBOLS, instrument

UNKNOWN = [np.array([np.nan])] * 3
QUICK: dict[str, dict[str, Any]] = {
    "pairs": {"bars": 20, "enter": 1.0},
    "cross_sectional_momentum": {"bars": 20, "top": 1, "every": 5},
}


def walks(count: int = 400, instruments: int = 2) -> MarketColumns:
    """Walks that go together, minute by minute; the last is listed after a quarter of the time."""
    rng = np.random.default_rng(4)
    common = np.cumsum(rng.normal(0.0, 0.01, count))
    columns: dict[str, Columns] = {}
    for k, symbol in enumerate(SYMBOLS[:instruments]):
        close = 100.0 * np.exp(common + np.cumsum(rng.normal(0.0, 0.01, count)))
        first = count // 4 if k == instruments - 1 else 0
        columns[symbol] = Columns.of(60_000 * np.arange(first, count), *[close[first:]] * 4, np.ones(count - first))
    return MarketColumns.of(columns)


MARKET = walks()


def terms(market: MarketColumns) -> PortfolioTerms:
    instruments = tuple(instrument(symbol, kind="perpetual") for symbol in market.symbols)
    return PortfolioTerms(instruments, "1m", Costs(fee_bps=10, slippage_bps=5), Decimal(10_000))


@pytest.mark.parametrize("name", BUILT_IN_PORTFOLIOS)
def test_our_strategies_over_many_see_no_future_in_any_tier(name: str) -> None:
    made, params = BUILT_IN_PORTFOLIOS[name], BUILT_IN_PORTFOLIOS[name].params(QUICK[name])
    decided, _ = stepped_weights(made, params, MARKET, UNKNOWN)
    assert decided.is_decided.sum() > 10  # there is something to look at
    for tier, compute in portfolio_tables(made, params, terms(MARKET)).items():
        assert leaks(compute, MARKET) == [], tier


def first_leak(compute: Any) -> Leak:
    (leak,) = leaks(compute, MARKET)
    return leak


def test_a_leak_is_told_by_its_instrument_its_column_and_its_first_bar() -> None:
    def ranked(market: MarketColumns) -> object:
        """B-USDT is compared with its next close, A-USDT with its last."""
        close = np.nan_to_num(market.close)
        return {
            "A-USDT rise": close[:, 0] - np.append(0.0, close[:-1, 0]),
            "B-USDT rise": np.append(close[1:, 1], 0.0) - close[:, 1],
        }

    leak = first_leak(ranked)
    assert (leak.column, leak.bar) == ("B-USDT rise", 99)  # listed at bar 100: 99 knew it
    assert "B-USDT rise sees the future, first at bar 99 (1970-01-01 01:39)" in str(leak)


def test_what_only_compares_instruments_is_found_as_well() -> None:
    """Were all instruments moved alike, the ratio of two would be the same in every future."""
    leak = first_leak(lambda market: {"ratio": np.append((market.close[:, 0] / market.close[:, 1])[1:], np.nan)})
    assert (leak.column, leak.bar) == ("ratio", 99)


def test_knowing_which_bars_will_be_absent_is_a_leak() -> None:
    """An instrument that is to be delisted is left out in time: survivorship, written as a column."""
    leak = first_leak(lambda market: {"B-USDT lives": np.append(np.isnan(market.close[1:, 1]), False)})
    assert leak.column == "B-USDT lives"


def test_another_future_of_a_market_leaves_the_past_and_is_one_that_could_have_been() -> None:
    changed = other_future(MARKET, 200, np.random.default_rng(1), 0.3)
    assert np.array_equal(changed.close[:200], MARKET.close[:200], equal_nan=True)
    assert not np.any(changed.close[200:] == MARKET.close[200:])
    there = ~np.isnan(changed.close[200:])
    assert 0.8 < there.mean() < 0.97  # some bars are absent, and then all of their prices are
    assert np.array_equal(there, ~np.isnan(changed.volume[200:]))
    up, down = (np.nanmean(np.log(changed.close[200:, k] / MARKET.close[200:, k])) for k in (0, 1))
    assert (up, down) == (pytest.approx(0.3, abs=0.05), pytest.approx(-0.3, abs=0.05))


class Nothing(NamedTuple):
    bars: int = 1


class Seen(NamedTuple):
    bars: int


CLOSES: dict[int, float] = {}  # what the planted strategy below has seen of B-USDT, in every run that it was in


@kernel
def nothing_seen(p: Nothing, instruments: int) -> Seen:
    return Seen(0)


@kernel
def remembers(s: Seen, market: Market, regime: Regime, p: Nothing, weights: list[float]) -> tuple[Seen, bool]:
    """Holds A-USDT when the next close of B-USDT is known to be higher, from a run before this one."""
    CLOSES[market.opened_at_ms] = market.close[1]
    weights[0] = 1.0 if CLOSES.get(market.opened_at_ms + 60_000, 0.0) > market.close[1] else 0.0
    return Seen(s.bars + 1), True


def kept() -> PortfolioStrategy:
    CLOSES.clear()
    return portfolio_strategy("kept", Nothing, nothing_seen, remembers, bounds={"bars": (1, 2)}, warmup=lambda p: 1)


def test_one_instrument_that_is_weighed_by_the_future_of_another_is_found() -> None:
    made = kept()
    leak = first_leak(portfolio_tables(made, made.params(), terms(MARKET))["stepped"])
    assert (leak.column, leak.bar) == ("A-USDT weight", 100)  # the first bar of B-USDT


def test_the_verb_looks_at_all_instruments_of_the_data(test_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hours = [test_data / "crypto" / "spot_1h" / f"{name}_1h.parquet" for name in ("ETHUSDT", "BTCUSDT")]
    assert verb.check("pairs", hours, "", "", 500, as_json=False) == verb.EXIT_CLEAN
    told = capsys.readouterr().out
    assert "pairs, stepped: nothing sees the future" in told
    assert "on 500 bars of ETH-USDT, BTC-USDT 1h" in told
    assert verb.check("cross_sectional_momentum", (), "", "", 300, as_json=True) == verb.EXIT_CLEAN
    assert '"checked": ["stepped", "compiled"], "leaks": []' in capsys.readouterr().out
