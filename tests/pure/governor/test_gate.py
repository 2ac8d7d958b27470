"""The gate's rules, each with a case that passes and one that fails, and the profiles as data."""

from __future__ import annotations

import math
from pathlib import Path
from statistics import NormalDist

import msgspec
import pytest

from services.governor.gate import Profile, Rule, Rules, judge, model_figures, preset_figures, profile
from shared.contracts.errors import NeedsOperator
from shared.contracts.governance import Figures, Span
from shared.contracts.jobs import EvidenceGiven
from shared.contracts.times import parse_time

START = parse_time("2024-01-01")
SPAN = Span(first=START, last=parse_time("2026-12-31"), bars=26_297, data_sha256="d" * 64)
GOOD = Figures(
    bars=26_297,
    trades=60,
    net_return=0.90,
    sharpe=3.0,
    max_drawdown=0.08,
    win_rate=0.55,
    profit_factor=1.8,
    expectancy_r=0.35,
    fees=12.0,
)
EXTRAS = {  # what a worker may tell beside them
    "triple_slippage_calmar": 2.0,
    "crash_drawdown": 0.2,
    "without_top_3_net_return": 0.1,
    "bootstrap_sharpe_p5": 0.6,
    "permutation_percentile": 98.0,
    "correlation": 0.3,
    "daily_loss_p99": 0.02,
}
MODEL = {
    "log_likelihood": -3.0,
    "log_likelihood_one_gaussian": -3.2,
    "share_bull": 0.4,
    "share_bear": 0.3,
    "share_chop": 0.3,
    "switches": 0.02,
}


def evidence(
    figures: Figures | None = GOOD, stressed: Figures | None = GOOD, metrics: dict[str, float] | None = None
) -> EvidenceGiven:
    return EvidenceGiven(
        job_id="j",
        worker="backtest_suite",
        subject_id="s",
        span=SPAN,
        figures=figures,
        stressed=stressed,
        metrics=EXTRAS if metrics is None else metrics,
        trials=1,
        failure="",
        given_at=START,
    )


ALL_RULES = [
    (name, kind, rule.figure)
    for name in ("demo", "paper", "live")
    for kind in ("preset", "model")
    for rule in getattr(profile(name, "paper"), kind).all
]


def figures_of(kind: str) -> dict[str, float]:
    if kind == "model":
        return model_figures(evidence(None, None, MODEL), is_synthetic=False)
    return preset_figures(evidence(), "1h", trials=20)


@pytest.mark.parametrize(("name", "kind", "figure"), ALL_RULES)
def test_each_rule_passes_a_good_applicant_and_refuses_one_beyond_its_limit_by_name(
    name: str, kind: str, figure: str
) -> None:
    rules: Rules = getattr(profile(name, "paper"), kind)
    (rule,) = [one for one in rules.all if one.figure == figure]
    good = figures_of(kind)
    assert judge(good, rules).failed == ()
    beyond = rule.at_least - 1e-6 if math.isfinite(rule.at_least) else rule.at_most + 1e-6

    for found, shown in ((beyond, f"{beyond:.6g}"), (math.nan, "unknown")):
        verdict = judge({**good, figure: found}, rules)

        assert not verdict.is_passed
        (reason,) = verdict.failed
        assert reason.startswith(f"{figure} at ") and reason.endswith(f", was {shown}")


def test_a_figure_at_its_limit_passes() -> None:
    rules = Rules(all=(Rule("max_drawdown", at_most=0.15), Rule("trades", at_least=3)))

    assert judge({"max_drawdown": 0.15, "trades": 3.0}, rules).is_passed


@pytest.mark.parametrize(
    ("missing", "is_passed"), [(("correlation",), True), (("correlation", "daily_loss_p99"), False)]
)
def test_live_asks_for_three_of_four(missing: tuple[str, ...], is_passed: bool) -> None:
    figures = {name: value for name, value in figures_of("preset").items() if name not in missing}

    verdict = judge(figures, profile("live", "live").preset)

    assert verdict.is_passed is is_passed
    if not is_passed:
        assert verdict.failed[0].startswith("3 of 4 must hold, did 2: correlation at most 0.8, was unknown")


def test_live_refuses_a_synthetic_model_and_demo_does_not() -> None:
    figures = model_figures(evidence(None, None, MODEL), is_synthetic=True)

    assert judge(figures, profile("live", "live").model).failed == ("synthetic at most 0, was 1",)
    assert judge(figures, profile("demo", "paper").model).is_passed


def test_a_preset_that_never_traded_is_refused_for_what_is_unknown() -> None:
    nothing = msgspec.structs.replace(
        GOOD,
        trades=0,
        net_return=0.0,
        sharpe=math.nan,
        win_rate=math.nan,
        profit_factor=math.nan,
        expectancy_r=math.nan,
    )

    failed = judge(preset_figures(evidence(nothing, nothing), "1h", 1), profile("demo", "paper").preset).failed

    assert failed == ("trades at least 3, was 0", "expectancy_r at least 0, was unknown")


def test_a_preset_without_a_losing_trade_passes_on_profit_factor() -> None:
    figures = preset_figures(evidence(msgspec.structs.replace(GOOD, profit_factor=math.inf)), "1h", 1)

    assert judge(figures, profile("paper", "paper").preset).is_passed


def test_calmar_is_the_compounded_year_over_the_drawdown() -> None:
    # 26,297 hours are 26297 / (365.2425 * 24) = 2.99995 years; 1.9 ** (1 / 2.99995) - 1 = 0.23857; over 0.08 = 2.982
    assert preset_figures(evidence(), "1h", 1)["calmar"] == pytest.approx(2.982, abs=0.001)


A_QUARTER = evidence(msgspec.structs.replace(GOOD, bars=2_184))


def test_confidence_is_the_chance_that_the_sharpe_ratio_is_above_nought() -> None:
    # a bar's Sharpe is 3 / sqrt(8765.82) = 0.032042; times sqrt(2183) it is 1.4971; the 0.5 sr^2 term is 0.0005
    expected = NormalDist().cdf(1.4971 / math.sqrt(1 + 0.5 * 0.032042**2))

    assert preset_figures(A_QUARTER, "1h", 1)["confidence"] == pytest.approx(expected, abs=1e-4)


def test_rare_large_losses_make_the_same_sharpe_ratio_mean_less() -> None:
    normal, crashing = (
        preset_figures(msgspec.structs.replace(A_QUARTER, metrics=metrics), "1h", 1)["confidence"]
        for metrics in ({"skew": 0.0, "kurtosis": 3.0}, {"skew": -4.0, "kurtosis": 60.0})
    )
    # 1 + 4 x 0.032042 + 59 / 4 x 0.032042^2 = 1.1433 instead of 1.0005
    assert normal == preset_figures(A_QUARTER, "1h", 1)["confidence"]
    assert crashing == pytest.approx(NormalDist().cdf(1.4971 / math.sqrt(1.1433)), abs=1e-4)


def test_the_more_sets_were_tried_the_less_the_same_sharpe_ratio_means() -> None:
    deflated = [preset_figures(A_QUARTER, "1h", trials)["deflated_confidence"] for trials in (1, 10, 100, 1000)]

    assert deflated[0] == preset_figures(A_QUARTER, "1h", 1)["confidence"]
    assert deflated == sorted(deflated, reverse=True)
    assert deflated[-1] < 0.05  # by luck alone the best of 1,000 would show more


def test_no_gate_of_less_than_live_may_stand_in_live_mode() -> None:
    for name in ("demo", "paper"):
        with pytest.raises(NeedsOperator, match=f"{name!r} is not for live trading: set one of live"):
            profile(name, "live")
    assert profile("live", "live").title == "live/2"


def test_a_profile_that_cannot_be_read_says_where(tmp_path: Path) -> None:
    file = tmp_path / "profiles.toml"
    file.write_text("[demo]\nversion = 1\nlimits = 3\n")
    with pytest.raises(NeedsOperator, match=r"profiles\.toml cannot be read"):
        profile("demo", "paper", file)
    with pytest.raises(NeedsOperator, match="one of demo, paper, live, was 'dmo'"):
        profile("dmo", "paper")


def test_every_profile_names_its_least_holdout() -> None:
    made: list[Profile] = [profile(name, "paper") for name in ("demo", "paper", "live")]

    assert [one.preset.least_bars for one in made] == [200, 500, 1000]
