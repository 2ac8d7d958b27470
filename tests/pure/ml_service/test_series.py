"""A series says what each bar tells, and when a training is due by the market's time."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest

from services.ml_service.schedule import newest_tick
from services.ml_service.series import Series, SeriesState
from services.ml_service.settings import MlSettings
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import ModelDrifted
from shared.contracts.market import BarClosed
from shared.contracts.times import parse_time, to_ms
from shared.regimes.hmm import RegimeModel, regime_model
from shared.regimes.reader import BARS_TO_RESUME
from tests.candles import candles

START = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def bars(count: int, first: int = 0, seed: int = 3) -> list[BarClosed]:
    closes = (100.0 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.002, first + count)))).tolist()
    return [
        BarClosed(
            venue="sim",
            symbol="BTC-USDT",
            timeframe="1m",
            opened_at=START + bar * MINUTE,
            closed_at=START + (bar + 1) * MINUTE,
            **made._asdict(),
        )
        for bar, made in enumerate(candles(closes, seed))
    ][first:]


def settings(**changes: object) -> MlSettings:
    return MlSettings(**{"min_train_bars": 400, "train_bars": 800, "retrain_bars": 100, **changes})


def series() -> Series:
    return Series(SeriesState(venue="sim", symbol="BTC-USDT", timeframe="1m"))


def a_model() -> RegimeModel:
    stay = [[0.98 if i == j else 0.01 for j in range(3)] for i in range(3)]
    unit = [[1.0 if i == j else 0.0 for j in range(4)] for i in range(4)]
    means = [[0.8, 3.0, -6.2, 0.0], [-0.8, -3.0, -6.2, 0.0], [0.0, 0.0, -6.2, 0.0]]
    names = ("BULL", "BEAR", "CHOP")
    return regime_model([1 / 3] * 3, stay, means, [unit] * 3, names, [0.0, 0.0, -6.2, 0.0], [1.0] * 4)


def test_a_training_is_due_once_there_are_enough_bars_and_then_every_so_many() -> None:
    one, when = series(), list[int]()
    for number, bar in enumerate(bars(720), start=1):
        one.on_bar(bar)
        if one.due(settings(synthetic_bootstrap=False)) == "market":
            when.append(number)
            one.state.trained_ms = one.state.last_ms
    assert when == [400, 500, 600, 700]


def test_bars_that_never_were_count_as_time() -> None:
    one, market = series(), bars(600)
    for bar in market[:400]:
        one.on_bar(bar)
    one.state.trained_ms = one.state.last_ms
    one.on_bar(market[499])  # 99 bars are absent: 100 bars of venue time have passed
    assert one.due(settings()) == "market"


def test_with_too_few_bars_one_model_of_made_up_ones_is_due_and_no_second() -> None:
    one = series()
    one.on_bar(bars(1)[0])
    assert one.due(settings()) == "synthetic"
    assert one.due(settings(synthetic_bootstrap=False)) is None
    one.state.is_bootstrapped = True
    assert one.due(settings()) is None


def test_nothing_is_due_while_training_or_while_the_governor_thinks() -> None:
    one = series()
    for bar in bars(400):
        one.on_bar(bar)
    one.is_training = True
    assert one.due(settings()) is None
    one.is_training, one.state.pending = False, "a" * 64
    assert one.due(settings()) is None


def test_a_transition_is_told_once_and_unknown_has_no_probability() -> None:
    one, told = series(), []
    market = bars(400)
    for bar in market[:100]:
        assert one.on_bar(bar)[1] is None  # UNKNOWN all along
    one.use(a_model(), "m" * 64, to_ms(market[99].closed_at), {})
    for bar in market[100:]:
        reading, transition, _ = one.on_bar(bar)
        if transition is not None:
            told.append(transition)
            assert transition.after == reading.regime
    assert told[0].before == "UNKNOWN" and math.isnan(told[0].model_probability)
    assert all(0.0 < one.model_probability < 1.0 for one in told[1:])
    assert [t.before for t in told[1:]] == [t.after for t in told[:-1]]


def test_a_restart_goes_on_with_the_same_readings() -> None:
    market, whole = bars(900), series()
    for bar in market[:100]:
        whole.on_bar(bar)
    whole.use(a_model(), "m" * 64, to_ms(market[99].closed_at), {})
    for bar in market[100:700]:
        whole.on_bar(bar)
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(whole.state), type=SeriesState)
    restarted = Series(kept, list(whole.bars)[-BARS_TO_RESUME:], a_model())
    for bar in market[700:]:
        assert msgspec.msgpack.encode(restarted.on_bar(bar)) == msgspec.msgpack.encode(whole.on_bar(bar))


def test_a_demotion_of_another_model_changes_nothing() -> None:
    one, market = series(), bars(120)
    one.use(a_model(), "m" * 64, to_ms(START), {})
    for bar in market[:100]:
        one.on_bar(bar)
    assert not one.drop("x" * 64) and one.on_bar(market[100])[0].model_id == "m" * 64
    assert one.drop("m" * 64) and one.on_bar(market[101])[0].regime == "UNKNOWN"


@pytest.mark.parametrize("wrong", [{"min_train_bars": 10}, {"min_train_bars": 500, "train_bars": 400}, {"starts": 0}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(NeedsOperator):
        MlSettings.load(**wrong)


def test_a_model_that_no_longer_foretells_its_market_is_told_and_when_dropped_another_is_due() -> None:
    one, market, drifts = series(), bars(900), list[ModelDrifted]()
    for bar in market[:100]:
        one.on_bar(bar)
    one.use(a_model(), "m" * 64, to_ms(market[99].closed_at), {"log_likelihood": 5.0, "log_likelihood_deviation": 0.5})
    one.state.trained_ms = one.state.last_ms
    for bar in market[100:]:
        heard = one.on_bar(bar)
        drifts += [heard.drift] if heard.drift else []
    assert drifts[0].model_id == "m" * 64 and drifts[0].expected == 5.0 > drifts[0].seen + 1.0
    one.state.trained_ms = one.state.last_ms
    assert one.due(settings()) is None
    one.drop("m" * 64)
    assert one.due(settings()) == "market"


EVERY_FOUR_HOURS = MlSettings(retrain_cron="0 */4 * * *", min_train_bars=400, retrain_bars=10)


def ticks_served(one: Series, market: list[BarClosed]) -> list[str]:
    """At which closes a training is due, when each is done before the next bar."""
    served: list[str] = []
    for bar in market:
        one.on_bar(bar)
        if one.due(EVERY_FOUR_HOURS) == "market":
            served.append(f"{bar.closed_at:%H:%M}")
            one.state.trained_ms = one.state.last_ms
    return served


def test_a_schedule_trains_at_the_close_that_it_names_whatever_the_count_of_bars() -> None:
    assert ticks_served(series(), bars(900)) == ["06:40", "08:00", "12:00"]  # the first when there are bars enough


def test_missed_ticks_run_once_at_the_next_bar_and_never_twice_also_after_a_restart() -> None:
    one, market = series(), bars(1_400)
    assert ticks_served(one, market[:470]) == ["06:40"]
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(one.state), type=SeriesState)
    later = Series(kept, list(one.bars))
    assert ticks_served(later, market[1_000:1_300]) == ["16:41", "20:00"]  # 08:00, 12:00 and 16:00 are one
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(later.state), type=SeriesState)
    assert ticks_served(Series(kept, list(later.bars)), market[1_300:]) == []


def test_a_training_that_is_not_done_when_the_service_stops_is_still_due() -> None:
    one, market = series(), bars(481)
    assert ticks_served(one, market[:479]) == ["06:40"]
    one.on_bar(market[479])
    assert one.due(EVERY_FOUR_HOURS) == "market"
    kept = msgspec.msgpack.decode(msgspec.msgpack.encode(one.state), type=SeriesState)
    assert ticks_served(Series(kept, list(one.bars)), market[480:]) == ["08:01"]


@pytest.mark.parametrize(
    ("expression", "now", "tick"),
    [
        ("0 3 * * *", "2024-01-05T03:00", "2024-01-05T03:00"),
        ("0 3 * * *", "2024-01-05T02:59", "2024-01-04T03:00"),
        ("*/15 9-17 * * mon-fri", "2024-01-07T12:00", "2024-01-05T17:45"),  # a Sunday
        ("0 0 29 2 *", "2023-06-01T00:00", "2020-02-29T00:00"),
    ],
)
def test_the_newest_tick_is_the_last_one_up_to_now(expression: str, now: str, tick: str) -> None:
    assert newest_tick(expression, parse_time(now)) == parse_time(tick)


@pytest.mark.parametrize("expression", ["every day", "0 25 * * *", "0 3 * *", "0 0 30 2 *"])
def test_what_is_no_schedule_is_refused_with_an_example(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETRAIN_CRON", expression)
    with pytest.raises(NeedsOperator, match=r"such as '0 3 \* \* \*', was"):
        MlSettings.load()
