"""What a model finds in simulated markets, where the truth is known, and in real bars, where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest

from services.ml_service.em import Array
from services.ml_service.evidence import judge
from services.ml_service.fit_lines import FitRequest, Fitted
from services.ml_service.fitting import fit, odds_of
from services.venue_sim.market import SimulatedSeries
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model
from shared.regimes.features import WARMUP_BARS, Candle, Features, features_of
from shared.regimes.hmm import RegimeModel
from shared.regimes.labels import NAMES

TRAINED, BARS = 4_000, 9_000
UNSEEN = slice(TRAINED, BARS)


class World(NamedTuple):
    """A simulated market and what really held in it."""

    bars: list[Candle]
    truth: Array  # (n,) places in NAMES
    rows: Array  # (n, d) features; the first ones, while warming up, are those of the first that has some


def trained(bars: list[Candle], **more: object) -> Fitted:
    """A model as the service would train it: the last fifth held out."""
    fields = {"states": (3,), "starts": 4, "seed": 7, **more}
    return fit(FitRequest(bars, len(bars) // 5, **fields), lambda _: None)


def model_of(fitted: Fitted) -> RegimeModel:
    return load_model(fitted.model, content_id(fitted.model))


def rows_of(bars: list[Candle]) -> list[Features]:
    return [row for row in features_of(bars) if row is not None]


def world(symbol: str, seed: int) -> World:
    market = SimulatedSeries(symbol, seed=seed)
    bars = [Candle(*market.candle(bar)[1:]) for bar in range(BARS)]
    truth = np.array([NAMES.index(market.climate(bar).name) for bar in range(BARS)])
    rows = np.array(rows_of(bars))
    return World(bars, truth, np.concatenate([np.repeat(rows[:1], WARMUP_BARS - 1, axis=0), rows]))


def oracle_of(bars: list[Candle], truth: Array) -> Array:
    """Odds (n, 3) by a filter that knows how the market works: each climate's own way of moving and how long it lasts.

    It reads what is news in each bar, its return and the logarithm of its range, with the moments that these really
    have in each climate (from the truth of all bars, the future included), and so no window makes it late.
    """
    log = np.log(np.array(bars)[:, :4])
    news = np.column_stack([log[:, 3] - log[:, 0], np.log(log[:, 1] - log[:, 2] + 1e-6)])
    counts = np.zeros((3, 3))
    np.add.at(counts, (truth[:-1], truth[1:]), 1.0)
    transition = counts / counts.sum(axis=1, keepdims=True)
    densities = np.stack([_normal(news, news[truth == k]) for k in range(3)], axis=1)
    believed = np.empty((len(news), 3))
    belief = np.full(3, 1 / 3)
    for t, density in enumerate(densities):
        belief = belief @ transition * density
        belief /= belief.sum()
        believed[t] = belief
    return believed


def _normal(news: Array, of: Array) -> Array:
    away = news - of.mean(axis=0)
    covariance = np.cov(of, rowvar=False)
    squares = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
    return np.exp(-0.5 * squares) / np.sqrt(np.linalg.det(covariance))


def brier(believed: Array, truth: Array) -> float:
    """Mean squared distance of the odds from what held: 0 for a seer, 2/3 for who says a third each.

    Source: Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78, 1950.
    """
    return float(((believed - np.eye(3)[truth]) ** 2).sum(axis=1).mean())


@pytest.fixture(scope="module", params=[("BTC-USDT", 7), ("ETH-USDT", 7), ("SOL-USDT", 3)], ids=lambda p: p[0])
def simulated(request: pytest.FixtureRequest) -> World:
    return world(*request.param)


def test_on_simulated_truth_the_names_are_right_nearly_as_often_as_an_oracles(simulated: World) -> None:
    believed = odds_of(model_of(trained(simulated.bars[:TRAINED])), simulated.rows)[UNSEEN]
    known, truth = oracle_of(simulated.bars, simulated.truth)[UNSEEN], simulated.truth[UNSEEN]
    ours, theirs = ((odds.argmax(axis=1) == truth).mean() for odds in (believed, known))
    print(f"causal accuracy {ours:.3f}, of an oracle {theirs:.3f}; Brier score {brier(believed, truth):.3f}")
    assert ours > theirs - 0.02
    assert all((believed.argmax(axis=1) == k).mean() > 0.1 for k in range(3))


def test_on_simulated_truth_odds_come_true_as_often_as_they_say(simulated: World) -> None:
    believed, truth = (
        odds_of(model_of(trained(simulated.bars[:TRAINED])), simulated.rows)[UNSEEN],
        simulated.truth[UNSEEN],
    )
    assert brier(believed, truth) < 0.1
    said = believed.ravel()
    held = np.eye(3)[truth].ravel()
    bins = np.clip((said * 10).astype(int), 0, 9)
    off = sum(
        (bins == b).mean() * abs(said[bins == b].mean() - held[bins == b].mean())
        for b in range(10)
        if (bins == b).any()
    )
    assert off < 0.03, "expected calibration error"


def test_an_ensemble_is_right_on_simulated_truth_too(simulated: World) -> None:
    model = model_of(trained(simulated.bars[:TRAINED], states=(2, 3, 4, 5)))
    named = odds_of(model, simulated.rows)[UNSEEN].argmax(axis=1)
    assert (named == simulated.truth[UNSEEN]).mean() > 0.85


def test_on_real_bitcoin_hours_regimes_say_more_of_unseen_bars_than_one_gaussian(bitcoin: list[Candle]) -> None:
    rows = rows_of(bitcoin[-4_000:])
    figures = judge(model_of(trained(bitcoin[-4_000:-800])), None, rows[1_000:-800], rows[-800:])
    assert figures["log_likelihood"] > figures["log_likelihood_one_gaussian"] + 0.1
    assert all(figures[f"share_{name}"] > 0.05 for name in ("bull", "bear", "chop"))
    assert figures["switches"] < 0.1, "regimes last"


def test_on_real_bitcoin_hours_a_regime_tells_the_volatility_of_the_next_bar(bitcoin: list[Candle]) -> None:
    """Out of sample: the bars are later than any that the model has seen."""
    bars = bitcoin[-8_000:]
    model = model_of(trained(bars[:4_000]))
    rows = np.array(rows_of(bars))
    named = odds_of(model, rows)[-4_001:-1].argmax(axis=1)
    moves = np.abs(np.diff(np.log([bar.close for bar in bars[-4_001:]])))
    medians = [np.median(moves[named == k]) for k in range(3) if (named == k).sum() > 100]
    assert max(medians) > 1.2 * min(medians)


@pytest.fixture(scope="module")
def bitcoin(test_data: Path) -> list[Candle]:
    table = pq.read_table(test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet", columns=list(Candle._fields))
    return [Candle(*row.values()) for row in table.to_pylist()]
