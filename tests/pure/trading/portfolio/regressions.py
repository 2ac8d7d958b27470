"""Golden runs of the strategies over many instruments, on real data. A change must be seen and meant:

    python -m tests.pure.trading.portfolio.regressions

runs them on the folder `TRIMTAB_TEST_DATA`, shows what differs from `regressions.json`, and writes that anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from services.backtest_suite.data import Bars, read_bars
from shared.contracts.governance import Costs
from shared.trading.columns import MarketColumns
from shared.trading.compiled.portfolios import PortfolioRun, PortfolioTerms, scan_portfolio
from shared.trading.strategies import BUILT_IN_PORTFOLIOS

GOLDEN = Path(__file__).with_name("regressions.json")
CASH = Decimal(100_000)


def run(
    strategy: str, params: dict[str, Any], bars: list[Bars], costs: Costs, rebalance_band: float = 0.0
) -> PortfolioRun:
    """One strategy over these bars, side by side."""
    market = MarketColumns.of({each.symbol: each.columns for each in bars})
    instruments = tuple(each.instrument for each in bars)
    terms = PortfolioTerms(instruments, bars[0].timeframe, costs, CASH, rebalance_band)
    return scan_portfolio(BUILT_IN_PORTFOLIOS[strategy], market, params, terms, with_fills=True)


def hourly(data: Path, *names: str, **options: Any) -> list[Bars]:
    return [bars for name in names for bars in read_bars(data / f"crypto/spot_1h/{name}_1h.parquet", **options)]


def winners_among_86_survivors(data: Path) -> PortfolioRun:
    """The ten strongest of 86 US shares, monthly, 2000-2016. They were chosen in 2021 for having survived: far too good."""
    bars = read_bars(data / "equities/us_daily_86_2000_2016.parquet", adjusted=True)
    params = {"bars": 252, "top": 10, "every": 21}
    return run("cross_sectional_momentum", params, bars, Costs(fee_bps=1, slippage_bps=8))


def the_stronger_half_of_four_coins(data: Path) -> PortfolioRun:
    """Two of BTC, ETH, SOL (listed in 2020) and LTC, by their last week, daily, 2018-2025."""
    bars = hourly(data, "BTCUSDT", "ETHUSDT", "SOLUSDT", "LTCUSDT")
    params = {"bars": 168, "top": 2, "every": 24}
    return run("cross_sectional_momentum", params, bars, Costs(fee_bps=8, slippage_bps=5), rebalance_band=0.02)


def ether_against_bitcoin(data: Path) -> PortfolioRun:
    """The pair of ETH and BTC by the hour, as if they were perpetuals without funding."""
    bars = hourly(data, "ETHUSDT", "BTCUSDT", kind="perpetual")
    return run("pairs", {"bars": 240, "enter": 2.5, "exit": 0.0, "stop": 5.0}, bars, Costs(fee_bps=4, slippage_bps=1))


RUNS: dict[str, Callable[[Path], PortfolioRun]] = {
    made.__name__: made for made in (winners_among_86_survivors, the_stronger_half_of_four_coins, ether_against_bitcoin)
}


def told(made: PortfolioRun) -> dict[str, Any]:
    """What is kept of a run: its figures, its final equity to the unit, and the hash of its fills."""
    assert made.fills is not None
    return {
        **{
            name: round(value, 12)
            for name, value in msgspec.to_builtins(made.figures).items()
            if name != "expectancy_r"
        },
        "equity": str(made.scales[0].amount(made.stats.equity)),
        "fills": len(made.fills),
        "fills_sha256": hashlib.sha256(made.fills.astype("<i8").tobytes()).hexdigest(),
    }


def renew(data: Path) -> None:
    """Run all, print what differs, and keep it."""
    before = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    after = {name: told(made(data)) for name, made in RUNS.items()}
    for name, figures in after.items():
        for figure, value in figures.items():
            was = before.get(name, {}).get(figure)
            if was != value:
                print(f"{name}.{figure}: {was} -> {value}")
    GOLDEN.write_text(json.dumps(after, indent=2) + "\n")


if __name__ == "__main__":
    renew(Path(os.environ["TRIMTAB_TEST_DATA"]))
