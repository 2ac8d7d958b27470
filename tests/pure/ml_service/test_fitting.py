"""Fitting: planted regimes are found and named, held-out likelihood is the metric, and no model is better than a bad one."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.ml_service.bars import History, cut, data_sha256, is_sound, span_of
from services.ml_service.ensembles import members_of
from services.ml_service.evidence import gaussian_log_likelihood, judge, mean_log_likelihood
from services.ml_service.fit_lines import FitProgress, FitRequest, Fitted
from services.ml_service.fitting import fit
from services.ml_service.synthetic import made_up_bars
from services.ml_service.trainer import run_fit
from shared.artifacts.canonical import content_id
from shared.artifacts.models import load_model
from shared.contracts.errors import BadMessage
from shared.regimes.features import Candle, features_of
from shared.regimes.hmm import RegimeModel, forward_filter, odds
from shared.regimes.labels import NAMES
from shared.regimes.reader import SETTLE_BARS
from tests.candles import candles


def request(bars: list[Candle], **changes: Any) -> FitRequest:
    fields: dict[str, Any] = {"validation_bars": 500, "states": (3,), "starts": 2, "seed": 7, **changes}
    return FitRequest(bars=bars, **fields)


def model_of(fitted: Fitted) -> RegimeModel:
    return load_model(fitted.model, content_id(fitted.model))


def planted(bars: int, seed: int) -> tuple[list[Candle], list[str]]:
    """Bars, and the regime that each bar was in: 0.35 deviations of drift a bar, about 200 bars a regime."""
    rng = random.Random(seed)
    price, regime = 100.0, 2
    closes, truth = list[float](), list[str]()
    for _ in range(bars):
        if rng.random() < 1 / 200:
            regime = (regime + rng.choice((1, 2))) % 3
        price *= math.exp(0.001 * ((0.35, -0.35, 0.0)[regime] + rng.gauss(0.0, 1.0)))
        closes.append(price)
        truth.append(NAMES[regime])
    return candles(closes, seed), truth


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(request(planted(3_000, seed=1)[0]), lambda _: None)


def test_planted_regimes_are_found_and_named_on_bars_never_seen(fitted: Fitted) -> None:
    bars, truth = planted(4_000, seed=99)
    model = model_of(fitted)
    rows = features_of(bars)
    states = forward_filter(model, [row for row in rows if row is not None])
    believed = [odds(model, state) for state in states]
    named = [NAMES[belief.index(max(belief))] for belief in believed]
    # A regime is known only some 20 bars after it began, of 200; guessing would be right a third of the time.
    accuracy = np.mean([a == b for a, b in zip(named, truth[-len(named) :], strict=True)])
    assert accuracy > 0.7
    assert set(named) == {"BULL", "BEAR", "CHOP"}


def test_the_metric_is_of_rows_held_out_from_the_fit(fitted: Fitted) -> None:
    bars = planted(3_000, seed=1)[0]
    rows = [row for row in features_of(bars) if row is not None]
    held_out = forward_filter(model_of(fitted), rows)[-500:]
    told = math.fsum(state.log_likelihood for state in held_out) / 500
    assert fitted.scores["log_likelihood"] == pytest.approx(told, rel=1e-12)
    assert fitted.scores["rows_fitted"] + fitted.scores["rows_held_out"] == len(rows)
    assert fitted.scores["log_likelihood"] > fitted.scores["log_likelihood_one_gaussian"] + 0.1


def test_bars_held_out_change_nothing_in_the_fit_but_its_figure(fitted: Fitted) -> None:
    bars = planted(3_000, seed=1)[0]
    elsewhere = bars[:-500] + [bar._replace(volume=bar.volume * 1.5) for bar in bars[-500:]]
    one = fit(request(bars, starts=1), lambda _: None)
    other = fit(request(elsewhere, starts=1), lambda _: None)
    assert one.model == other.model and one.scores["log_likelihood"] != other.scores["log_likelihood"]


def test_the_same_seed_gives_the_same_bytes_in_this_process_and_in_another(fitted: Fitted) -> None:
    assert fit(request(planted(3_000, seed=1)[0]), lambda _: None).model == fitted.model


def test_a_successor_goes_on_from_the_model_before_it_and_means_the_same(fitted: Fitted) -> None:
    bars, truth = planted(6_000, seed=1)
    after = fit(request(bars[1_000:4_000], incumbent=fitted.model, news=1_000), lambda _: None)
    assert after.how in ("warm", "stepwise") and after.scores["agreement"] > 0.9
    rows = [row for row in features_of(bars) if row is not None]
    for model in map(model_of, (fitted, after)):
        named = [
            NAMES[belief.index(max(belief))]
            for state in forward_filter(model, rows)[-2_000:]
            if (belief := odds(model, state))
        ]
        assert np.mean([a == b for a, b in zip(named, truth[-2_000:], strict=True)]) > 0.6


def test_a_successor_explains_unseen_bars_as_well_as_a_fit_from_nothing(fitted: Fitted) -> None:
    bars, _ = planted(6_000, seed=1)
    rows = [row for row in features_of(bars) if row is not None]
    went_on, anew = (
        fit(request(bars[1_000:4_000], incumbent=incumbent, news=1_000, starts=4), lambda _: None)
        for incumbent in (fitted.model, b"")
    )
    told = [mean_log_likelihood(forward_filter(model_of(one), rows)[-2_000:]) for one in (went_on, anew)]
    assert told[0] > told[1] - 0.05


def test_an_ensemble_explains_unseen_bars_better_than_its_best_member() -> None:
    bars = planted(5_000, seed=1)[0]
    rows = [row for row in features_of(bars) if row is not None]
    told = {
        states: mean_log_likelihood(
            forward_filter(model_of(fit(request(bars[:3_000], states=states), lambda _: None)), rows)[-2_000:]
        )
        for states in ((2,), (3,), (4,), (5,), (2, 3, 4, 5))
    }
    assert told[2, 3, 4, 5] > max(told[one] for one in told if len(one) == 1), told


def test_an_ensembles_members_are_found_in_it_again() -> None:
    whole = model_of(fit(request(planted(3_000, seed=1)[0], states=(2, 3)), lambda _: None))
    members = members_of(whole, (2, 3))
    assert members is not None and [len(one.start) for one in members] == [2, 3]
    assert members[1].means == whole.means[2:] and members[1].labels == whole.labels[2:]
    assert members_of(whole, (5,)) is None and members_of(whole, (3,)) is None


async def test_a_process_of_its_own_gives_the_same_model_and_tells_how_it_goes(fitted: Fitted) -> None:
    told: list[FitProgress] = []
    assert (await run_fit(request(planted(3_000, seed=1)[0]), 60.0, told.append)).model == fitted.model
    assert [(one.start, one.of) for one in told] == [(1, 2), (2, 2)]


async def test_too_few_bars_are_said_and_not_fitted() -> None:
    with pytest.raises(BadMessage, match="train on more bars"):
        await run_fit(request(planted(200, seed=1)[0], validation_bars=97), 60.0, lambda _: None)


def test_a_market_that_stands_still_teaches_nothing() -> None:
    with pytest.raises(BadMessage, match="does not move"):
        fit(request([Candle(100.0, 100.0, 100.0, 100.0, 1.0)] * 2_000), lambda _: None)


async def test_a_fit_that_takes_too_long_is_ended_with_its_process() -> None:
    with pytest.raises(BadMessage, match="The fit took more than"):
        await run_fit(request(planted(3_000, seed=1)[0]), 0.01, lambda _: None)


def test_starts_that_do_not_converge_give_no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ml_service.fitting.MAX_ITERATIONS", 2)
    told: list[FitProgress] = []
    with pytest.raises(BadMessage, match="None of 2 starts of 3 states converged"):
        fit(request(planted(3_000, seed=1)[0]), told.append)
    assert [one.log_likelihood for one in told] == [None, None]


def test_the_service_itself_never_imports_what_fits() -> None:
    code = (
        "import sys, services.ml_service.service, services.ml_service.routes\n"
        "heavy = {'hmmlearn', 'sklearn', 'scipy', 'numba', 'pyarrow', 'pandas'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=Path(__file__).parents[3])


def test_evidence_is_worked_out_bar_by_bar(fitted: Fitted) -> None:
    model = model_of(fitted)
    rows = [row for row in features_of(planted(3_000, seed=4)[0]) if row is not None]
    before, judged = rows[:2_000], rows[2_000:]
    figures = judge(model, model, before, judged)
    states = forward_filter(model, rows[2_000 - SETTLE_BARS :])[SETTLE_BARS:]
    assert figures["bars"] == len(judged) and figures["agreement"] == 1.0
    assert figures["log_likelihood"] == math.fsum(state.log_likelihood for state in states) / len(judged)
    assert figures["log_likelihood"] > figures["log_likelihood_one_gaussian"] + 0.1
    assert figures["share_bull"] + figures["share_bear"] + figures["share_chop"] == pytest.approx(1.0)
    assert "agreement" not in judge(model, None, before, judged)


def test_the_reference_is_one_gaussian() -> None:
    rows = [tuple(row) for row in np.random.default_rng(3).normal(2.0, 1.0, (4_000, 3)).tolist()]
    # The entropy of a standard normal in three dimensions: 3/2 log(2 pi e) = 4.2568 nats.
    assert gaussian_log_likelihood(rows, rows) == pytest.approx(-4.2568, abs=0.03)


def test_made_up_bars_are_the_same_for_a_seed_and_have_the_volatility_of_the_real_ones() -> None:
    assert made_up_bars(500, seed=3) == made_up_bars(500, seed=3) != made_up_bars(500, seed=4)
    assert all(is_sound(bar) for bar in made_up_bars(500, seed=3))
    real = candles([100.0 * math.exp(0.02 * (-1) ** bar) for bar in range(50)])  # returns of +-0.04
    returns = np.diff(np.log([bar.close for bar in made_up_bars(5_000, 3, real)]))
    assert returns.std() == pytest.approx(0.04, rel=0.1)


def test_a_span_names_its_bars_by_their_content() -> None:
    history = History([60_000, 120_000, 240_000], candles([1.0, 2.0, 3.0]))
    span = span_of(history)
    assert (span.bars, span.first.minute, span.last.minute) == (3, 1, 4)
    assert data_sha256(cut(history, 0, 120_000)) != span.data_sha256 == data_sha256(cut(history, 0, 240_000))
    with pytest.raises(BadMessage, match="at least one bar"):
        span_of(cut(history, 300_000, 400_000))
