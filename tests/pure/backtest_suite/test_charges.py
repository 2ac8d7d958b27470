"""Costs as people write them: tiers, slippage that moves, funding. What they do to a fill stands in test_matching."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from services.backtest_suite.charges import costs_of, slippage_model_of, tiers_of
from services.backtest_suite.data import Bars
from services.backtest_suite.driver import DECIDED, Experiment
from services.backtest_suite.funding import read_funding
from services.backtest_suite.manifests import Reading
from services.backtest_suite.repeating import repeat
from services.backtest_suite.run_store import RunStore
from services.backtest_suite.sources import bars_found
from services.backtest_suite.summaries import costs_told
from services.backtest_suite.workers import Order
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.governance import SlippageModel
from shared.trading.compiled import Targets
from tests.pure.backtest_suite.markets import BTC, FREE, HOUR_MS, START_MS, bars_at, experiment, trends

PERP = msgspec.structs.replace(BTC, symbol="BTC-USDT-PERP", kind="perpetual")
EIGHT_HOURS = 8 * HOUR_MS


def test_tiers_are_written_as_what_was_traded_and_the_fee_from_there_on() -> None:
    assert tiers_of("100000=8, 1e6=6.5") == ((Decimal(100_000), 8.0), (Decimal("1e6"), 6.5))
    assert tiers_of("") == ()
    with pytest.raises(BadMessage, match=r"such as 100000=8,1000000=6 .*, was '100000'"):
        tiers_of("100000")
    with pytest.raises(BadMessage, match="rising notionals"):
        costs_of(fee_bps=10, slippage_bps=5, fee_tiers="100=8,50=6")


def test_a_slippage_model_is_a_name_or_the_parts_that_shall_be_on() -> None:
    assert slippage_model_of("") is None
    assert slippage_model_of("size", seed=3) == SlippageModel(volatility=False, size=True, seed=3)
    mixed = slippage_model_of("volatility,weekend=1.5,noise=0.75,seed=9", seed=3)
    assert mixed == SlippageModel(volatility=True, size=False, weekend=1.5, noise=0.75, seed=9)
    # The figures of the docstring of SlippageModel.
    assert slippage_model_of("crypto") == SlippageModel(weekend=1.5, stress=2.0, stress_fall=0.05, noise=0.75)
    assert slippage_model_of("shares,noise=0,size=off") == SlippageModel(size=False, stress=2.0, stress_fall=0.03)
    with pytest.raises(BadMessage, match="Did you mean 'volatility'"):
        slippage_model_of("volatilty")
    with pytest.raises(BadMessage, match="weekend=much"):
        slippage_model_of("weekend=much")
    with pytest.raises(BadMessage, match=r"weekend must be .*1"):
        costs_of(fee_bps=10, slippage_bps=5, slippage_model="weekend=0.5")


def test_what_is_charged_is_told_beside_the_headline() -> None:
    costs = costs_of(fee_bps=10, slippage_bps=5, fee_tiers="100000=8", slippage_model="crypto,volatility=off")
    assert costs_told(costs) == (
        "fee 10 bps, slippage 5 bps, then 8 bps from 100,000, moving by size, weekend x 1.5, stress x 2, noise 0.75"
    )


def test_the_noise_of_the_slippage_hangs_on_the_seed_and_the_same_seed_gives_the_same_bits() -> None:
    def result(seed: int) -> str:
        costs = costs_of(fee_bps=0, slippage_bps=20, slippage_model="noise=0.75", seed=seed)
        return experiment(costs=costs).run({"fast": 5, "slow": 20}).result_sha256

    assert result(1) == result(1)
    assert result(1) != result(2)


def perpetual(count: int = 30) -> Bars:
    """Always 100 USDT."""
    return bars_at([100.0] * count, PERP)


def funding_file(folder: Path, rates: list[float], late_ms: int = 0, name: str = "funding.parquet") -> Path:
    file = folder / name
    at = START_MS + np.arange(len(rates)) * EIGHT_HOURS + late_ms
    pl.DataFrame({"timestamp": at, "funding_rate": rates}).write_parquet(file)
    return file


@pytest.mark.parametrize("late_ms", [0, 10])
def test_who_is_long_pays_the_funding_that_the_file_says_also_when_it_was_told_late(
    tmp_path: Path, late_ms: int
) -> None:
    # Bought 1 at the open of bar 1, so held at 08:00 (bar 8), 16:00 and 24:00: 100 x (0.0001 + 0.0002 - 0.0004) = -0.01.
    bars = perpetual().with_funding(funding_file(tmp_path, [0.01, 0.0001, 0.0002, -0.0004], late_ms))
    made = Experiment.of(DECIDED, bars, targets=Targets.of(np.ones(30)), size=Decimal(1), costs=FREE)
    run = made.run()
    assert run.run.charges is not None
    assert run.run.charges[:, 0].tolist() == [8, 16, 24]
    assert run.equity_final == Decimal(10_000) - Decimal("-0.01")


def test_the_exchanges_own_file_of_funding_is_read_as_it_is(tmp_path: Path) -> None:
    bulk = tmp_path / "BTCUSDT-fundingRate-2024-01.csv"
    bulk.write_text(
        "calc_time,funding_interval_hours,last_funding_rate\n1704067200000,8,0.00037409\n1704096000001,8,-0.0001\n"
    )
    read = read_funding(bulk)
    assert (read.at_ms.tolist(), read.rate.tolist()) == ([1704067200000, 1704096000001], [0.00037409, -0.0001])


def test_real_funding_loses_no_row_to_the_milliseconds_by_which_it_is_late(test_data: Path) -> None:
    late = read_funding(test_data / "defects" / "BTCUSDT_funding_jitter.parquet")
    assert len(late) == 1379
    assert (late.at_ms % EIGHT_HOURS != 0).any()


def test_funding_that_cannot_be_meant_is_refused_with_its_row(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator, match=r"row 2 .*a rate within -1\.\.1 .*, was 5\.0"):
        read_funding(funding_file(tmp_path, [0.1, 5.0]))
    (tmp_path / "twice.csv").write_text("timestamp,rate\n1704067200000,0\n1704067200000,0\n")
    with pytest.raises(NeedsOperator, match=r"row 2 .*a later time"):
        read_funding(tmp_path / "twice.csv")
    (tmp_path / "other.csv").write_text("timestamp,open\n1704067200000,0\n")
    with pytest.raises(NeedsOperator, match="a column of funding rates"):
        read_funding(tmp_path / "other.csv")
    with pytest.raises(NeedsOperator, match=r"BTC-USDT is spot.*the symbol is BTC-USDT-PERP then"):
        trends(50).with_funding(tmp_path / "other.csv")


def test_a_run_with_funding_is_another_run_and_is_repeated_only_with_the_same_funding(tmp_path: Path) -> None:
    frame = dict(zip(("timestamp", "open", "high", "low", "close", "volume"), trends(400).columns.all(), strict=True))
    pl.DataFrame(frame).write_parquet(tmp_path / "BTCUSDT-perp_1h.parquet")
    file = funding_file(tmp_path, [0.0005] * 50)
    reading = Reading(path=str(tmp_path / "BTCUSDT-perp_1h.parquet"), funding=str(file))
    (found,) = bars_found(reading)
    with RunStore(tmp_path / "runs") as store:
        plain, funded = (
            store.run(Experiment.of(experiment().strategy, bars, readings=(found.reading,)), {"fast": 5, "slow": 20})
            for bars in (replace(found.bars, funding=None), found.bars)
        )
        assert plain.fingerprint != funded.fingerprint
        assert plain.equity_final != funded.equity_final
        assert repeat(funded.manifest, store).result_sha256 == funded.result_sha256
        funding_file(tmp_path, [0.0006] * 50)
        with pytest.raises(NeedsOperator, match="The bars have changed, or their funding"):
            repeat(funded.manifest, store)
    over_there = Order.of(funded.experiment).experiment()  # as a process of a grid is given it
    assert over_there.run({"fast": 5, "slow": 20}).result_sha256 == funded.result_sha256
