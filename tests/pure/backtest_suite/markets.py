"""Markets and experiments in a line, for tests of the suite."""

from __future__ import annotations

from decimal import Decimal
from typing import Unpack

import numpy as np

from services.backtest_suite.data import Bars
from services.backtest_suite.driver import Experiment, Given
from services.backtest_suite.panels import Panel
from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.strategies import BUILT_IN

BTC = Instrument(symbol="BTC-USDT", base="BTC", quote="USDT", tick=Decimal("0.01"), lot=Decimal("0.00001"))
FREE = Costs(fee_bps=0, slippage_bps=0)
HOUR_MS = 3_600_000
START_MS = 1_704_067_200_000  # 2024-01-01


def bars_at(closes: list[float], instrument: Instrument = BTC) -> Bars:
    """Hourly bars with these closes, each opening where the one before closed."""
    close = np.array(closes, float)
    open = np.concatenate([close[:1], close[:-1]])
    columns = Columns.of(
        START_MS + np.arange(len(close)) * HOUR_MS,
        open,
        np.maximum(open, close),
        np.minimum(open, close),
        close,
        np.ones(len(close)),
    )
    return Bars(instrument.symbol, "1h", columns, instrument)


def trends(count: int = 1200, seed: int = 3) -> Bars:
    """Up for some days, down for some days, with noise."""
    rng = np.random.default_rng(seed)
    drift = 0.002 * np.where((np.arange(count) // 60) % 2 == 0, 1.0, -1.0)
    return bars_at((100.0 * np.exp(np.cumsum(drift + rng.normal(0.0, 0.001, count)))).round(2).tolist())


def experiment(name: str = "trend_follow", bars: Bars | None = None, **given: Unpack[Given]) -> Experiment:
    """One of our strategies on trends, or on these bars."""
    return Experiment.of(BUILT_IN[name], trends() if bars is None else bars, **given)


def perpetual(symbol: str) -> Instrument:
    """One that can be owed."""
    return Instrument(
        symbol=symbol,
        base=symbol.split("-")[0],
        quote="USDT",
        kind="perpetual",
        tick=Decimal("0.01"),
        lot=Decimal("0.001"),
    )


def two_that_go_together(count: int = 1500, seed: int = 5) -> Panel:
    """One walk, and another that strays from it by a few per cent and comes back: what `pairs` is for."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0.0, 0.003, count))
    apart = np.zeros(count)
    for i in range(1, count):
        apart[i] = 0.9 * apart[i - 1] + rng.normal(0.0, 0.01)
    prices = {"ETH-USDT-PERP": 50.0 * np.exp(walk + apart), "BTC-USDT-PERP": 400.0 * np.exp(walk)}
    return Panel(tuple(bars_at(price.round(2).tolist(), perpetual(name)) for name, price in prices.items()))
