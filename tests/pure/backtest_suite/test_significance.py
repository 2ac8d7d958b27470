"""How far a figure can be believed, tried on simulated truth: intervals cover what they say, and luck does not pass."""

from __future__ import annotations

import math

import numpy as np
import pytest

from services.backtest_suite.formulas import drawdown, path_of, sharpe
from services.backtest_suite.significance import (
    bootstrap_drawdowns,
    bootstrap_sharpes,
    deflated_sharpe,
    interval,
    luck,
    permutation_percentile,
    probabilistic_sharpe,
    sharpe_error,
    significance_of,
    stationary_places,
)


def seeded(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_standard_error_is_that_of_lo_and_mertens_worked_by_hand() -> None:
    # Ten returns of +2 and ten of 0: mean 1, m2 = 1, m3 = 0, m4 = 1; s = 1 / sqrt(20 / 19) = 0.974679
    returns = np.array([2.0, 0.0] * 10)
    # 1 - 0 + (1 - 1) / 4 s^2 = 1, over 19, and 252 of them a year
    assert sharpe_error(returns) == pytest.approx(math.sqrt(1 / 19))
    assert sharpe_error(returns, 252.0) == pytest.approx(math.sqrt(252 / 19))
    assert probabilistic_sharpe(returns, 0.974679) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_the_standard_error_is_the_spread_of_sharpe_ratios_over_many_markets(kind: str) -> None:
    rng = seeded()
    found: list[tuple[float, float]] = []
    for _ in range(1500):
        # both have mean 0.25 and standard deviation 1; the second is a crash insurer's: small gains, rare large losses
        returns = rng.normal(0.25, 1.0, 250) if kind == "normal" else 1.25 - rng.exponential(1.0, 250)
        found.append((sharpe(returns, 1.0), sharpe_error(returns)))
    ratios, errors = np.array(found).T
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.06)  # 1,500 draws know a spread to 1.8 %


def test_the_probabilistic_sharpe_ratio_is_as_sure_as_it_says() -> None:
    rng = seeded()
    sure = [probabilistic_sharpe(rng.normal(0.0, 1.0, 250)) > 0.95 for _ in range(2000)]
    assert 0.035 <= np.mean(sure) <= 0.065  # 5 %, three standard errors either way


def test_the_best_of_fifty_worthless_sets_looks_good_and_is_seen_through() -> None:
    rng = seeded()
    believed, deflated, shown = [], [], []
    for _ in range(300):
        sets = rng.normal(0.0, 1.0, (50, 250))
        best = sets[np.argmax(sets.mean(axis=1) / sets.std(axis=1))]
        believed.append(probabilistic_sharpe(best) > 0.95)
        deflated.append(deflated_sharpe(best, 50) > 0.95)
        shown.append(sharpe(best, 1.0))
    assert np.mean(believed) > 0.80  # who forgets the trials believes it
    assert np.mean(deflated) <= 0.05
    assert np.mean(shown) == pytest.approx(luck(50, 1 / math.sqrt(249)), rel=0.03)


def test_an_edge_that_is_there_survives_deflation() -> None:
    noise = seeded().normal(0.0, 1.0, 1000)
    returns = (noise - noise.mean()) / noise.std() + 0.15  # a t of 4.7, where the best of 100 shows 2.5
    assert deflated_sharpe(returns, 100) > 0.95
    assert [deflated_sharpe(returns, trials) for trials in (1, 10, 1000)] == sorted(
        (deflated_sharpe(returns, trials) for trials in (1, 10, 1000)), reverse=True
    )
    assert deflated_sharpe(returns, 1) == probabilistic_sharpe(returns)
    # sets that are alike are fewer than they are many: the less they differ, the less luck among them
    assert deflated_sharpe(returns, 100, spread=0.001) > deflated_sharpe(returns, 100)


@pytest.mark.parametrize("memory", [0.0, 0.3])
def test_a_bootstrap_interval_of_ninety_percent_covers_the_truth_in_ninety_percent(memory: float) -> None:
    rng, true = seeded(), 0.08
    covered = 0
    for _ in range(300):
        noise = rng.normal(0.0, 1.0, 400)
        if memory:
            for i in range(1, len(noise)):
                noise[i] += memory * noise[i - 1]
            noise *= math.sqrt(1.0 - memory**2)
        low, high = interval(bootstrap_sharpes(true + noise, 1.0, rng, draws=200))
        covered += low <= true <= high
    assert 0.85 <= covered / 300 <= 0.95  # three standard errors


def test_blocks_go_on_and_every_bar_is_drawn_as_often() -> None:
    places = np.concatenate(list(stationary_places(50, seeded(), 4000, block=5.0)))
    assert places.shape == (4000, 50)
    goes_on = np.mean(np.diff(places, axis=1) % 50 == 1)
    assert goes_on == pytest.approx(
        1 - 1 / 5 + 1 / 5 / 50, abs=0.005
    )  # a block ends with 1 in 5; or the next is by chance
    assert np.bincount(places.ravel()) / places.size == pytest.approx(1 / 50, rel=0.1)


def test_one_seed_gives_one_interval() -> None:
    returns = seeded(3).normal(0.0, 1.0, 100)
    assert interval(bootstrap_sharpes(returns, 252.0, seeded())) == interval(
        bootstrap_sharpes(returns, 252.0, seeded())
    )
    assert interval(bootstrap_sharpes(returns, 252.0, seeded())) != interval(
        bootstrap_sharpes(returns, 252.0, seeded(2))
    )


def test_the_drawdown_of_a_resample_is_that_of_its_path() -> None:
    returns = seeded(2).normal(0.0, 0.05, 40)
    told = bootstrap_drawdowns(returns, seeded(), draws=30)
    rows = np.concatenate(list(stationary_places(40, seeded(), 30)))
    expected = [drawdown(path_of(np.cumprod(1.0 + returns[row]), 1.0)).depth for row in rows]
    assert told == pytest.approx(expected)


def test_the_drawdown_of_another_year_goes_beyond_the_95th_percentile_about_one_time_in_twenty() -> None:
    rng = seeded()
    beyond = 0
    for _ in range(150):
        deepest = interval(bootstrap_drawdowns(rng.normal(0.0005, 0.01, 300), rng, draws=200))[1]
        beyond += drawdown(path_of(np.cumprod(1.0 + rng.normal(0.0005, 0.01, 300)), 1.0)).depth > deepest
    # The past's mean is not the future's: both are drawn, so it is somewhat more often than nominal.
    assert 0.01 <= beyond / 150 <= 0.15


@pytest.mark.parametrize("kind", ["long, flat or short", "few and long"])
def test_positions_that_know_nothing_pass_the_permutation_one_time_in_twenty(kind: str) -> None:
    rng, runs, passed = seeded(), 2000, 0
    for _ in range(runs):
        shares = np.repeat(rng.integers(-1, 2, 30), 10).astype(float)
        if kind == "few and long":
            shares = np.repeat(rng.permutation([0.0, 0.7, 0.0, 0.5, 0.0, 1.0]), 50)
        passed += permutation_percentile(shares, rng.normal(0.001, 0.01, 300), rng, draws=19) >= 95.0
    assert abs(passed / runs - 0.05) <= 3 * math.sqrt(0.05 * 0.95 / runs)  # three standard errors


def test_positions_that_know_something_are_found() -> None:
    rng = seeded()
    returns = rng.normal(0.0, 0.01, 400)
    shares = np.repeat((returns.reshape(40, 10).sum(axis=1) > 0).astype(float), 10)  # looks ahead
    assert permutation_percentile(shares, returns, rng) == pytest.approx(99.9)
    assert permutation_percentile(1.0 - shares, returns, rng) < 1.0


def test_what_cannot_be_known_is_nan() -> None:
    flat = np.zeros(50)
    assert math.isnan(permutation_percentile(flat, seeded().normal(size=50), seeded()))  # never in
    assert math.isnan(permutation_percentile(flat + 1.0, seeded().normal(size=50), seeded()))  # never out
    told = significance_of(flat, periods_per_year=252.0, trades=0, trials=3, rng=seeded())
    assert (told.trades, told.trials, told.sharpe_low, told.sharpe_high) == (0, 3, 0.0, 0.0)
    assert all(map(math.isnan, (told.sharpe, told.sharpe_error, told.probabilistic, told.deflated)))
    for few in (np.array([]), np.array([0.1]), np.full(20, math.nan)):
        told = significance_of(few, periods_per_year=252.0, trades=0, trials=1, rng=seeded())
        assert all(
            map(math.isnan, (told.sharpe, told.sharpe_error, told.sharpe_low, told.probabilistic, told.deflated))
        )


def test_all_that_stands_beside_a_headline() -> None:
    widths: list[float] = []
    for seed in range(40):
        returns = seeded(seed).normal(0.1, 1.0, 500)
        told = significance_of(returns, periods_per_year=252.0, trades=40, trials=24, rng=seeded(), draws=200)
        assert told.sharpe_low < told.sharpe < told.sharpe_high
        assert told.deflated < told.probabilistic
        widths.append((told.sharpe_high - told.sharpe_low) / (2 * 1.645 * told.sharpe_error))
    # on returns that are normal, the two ways to say how wide it is agree; one series says it to about 10 %
    assert np.mean(widths) == pytest.approx(1.0, abs=0.05)
