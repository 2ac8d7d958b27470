"""Applicants for the governor, and what honest workers find out about them. Bars are minutes from the start of 2024."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from shared.artifacts.canonical import content_id
from shared.artifacts.models import ModelManifest, manifest_bytes, model_bytes
from shared.artifacts.presets import Preset, preset_bytes, preset_id
from shared.contracts.governance import (
    Costs,
    Figures,
    ModelTrained,
    PresetCandidate,
    Span,
)
from shared.contracts.jobs import EvidenceGiven, EvidenceOrdered
from shared.contracts.times import parse_time
from shared.regimes.features import FEATURE_SCHEMA
from shared.regimes.hmm import regime_model
from shared.trading.strategies import BUILT_IN

START = parse_time("2024-01-01")
MINUTE = timedelta(minutes=1)
GOOD = Figures(
    bars=1_000,
    trades=20,
    net_return=0.05,
    sharpe=2.0,
    max_drawdown=0.05,
    win_rate=0.5,
    profit_factor=1.5,
    expectancy_r=0.2,
    fees=3.0,
)
UNIT = [[1.0 if i == j else 0.0 for j in range(4)] for i in range(4)]


def at(bar: int) -> datetime:
    """When this bar opened."""
    return START + bar * MINUTE


def span(first: int, last: int, data: str = "a" * 64) -> Span:
    return Span(first=at(first), last=at(last), bars=last - first + 1, data_sha256=data)


def a_preset(entry: int = 30) -> Preset:
    momentum = BUILT_IN["momentum"]
    return Preset(
        strategy="momentum",
        source_hash=momentum.source,
        schema_version=1,
        params=momentum.params({"entry": entry})._asdict(),
        symbol="BTC-USDT",
        timeframe="1m",
        origin="backtest",
    )


def candidate(preset: Preset | None = None, *, proposed: int = 5_000, trials: int = 24) -> PresetCandidate:
    """Found on bars 0..2999, tested on 3000..3999, proposed when 5,000 bars had closed."""
    preset = preset or a_preset()
    return PresetCandidate(
        preset_id=preset_id(preset),
        preset=preset_bytes(preset),
        venue="sim",
        strategy="momentum",
        symbol="BTC-USDT",
        timeframe="1m",
        origin="backtest",
        train=span(0, 2_999),
        train_figures=GOOD,
        test=span(3_000, 3_999),
        test_figures=GOOD,
        costs=Costs(fee_bps=0.0, slippage_bps=0.0),
        trials=trials,
        proposed_at=at(proposed),
    )


def a_model(shift: float) -> bytes:
    return model_bytes(
        regime_model(
            start=[1 / 3] * 3,
            transition=[[0.98 if i == j else 0.01 for j in range(3)] for i in range(3)],
            means=[[0.8, 3.0, -6.2, 0.0], [-0.8, -3.0, -6.2, 0.0], [0.0, 0.0, -6.2, 0.0]],
            scales=[UNIT] * 3,
            labels=("BULL", "BEAR", "CHOP"),
            center=[shift, 0.0, -6.2, 0.0],
            spread=[1.0] * 4,
        )
    )


def trained(shift: float = 0.0, *, is_synthetic: bool = False) -> tuple[ModelTrained, bytes]:
    """A model fitted on bars 0..3999, the last 800 of which chose among fits; and its bytes."""
    content = a_model(shift)
    manifest = ModelManifest(
        model_id=content_id(content),
        venue="sim",
        symbol="BTC-USDT",
        timeframe="1m",
        feature_schema=FEATURE_SCHEMA,
        labels=("BULL", "BEAR", "CHOP"),
        trained_on=span(0, 3_999),
        held_out=span(3_200, 3_999),
        scores={"log_likelihood": -3.0},
        seed=0,
        starts=1,
        tag="",
        is_synthetic=is_synthetic,
        code_version="test",
        trained_at=at(5_000),
    )
    said = ModelTrained(
        model_id=manifest.model_id,
        symbol="BTC-USDT",
        venue="sim",
        timeframe="1m",
        manifest=manifest_bytes(manifest),
        trained_on=manifest.trained_on,
        metric_name="log_likelihood",
        metric_value=-3.0,
        is_synthetic=is_synthetic,
        trained_at=at(5_000),
    )
    return said, content


LIKELY = {
    "agreement": 0.95,
    "log_likelihood": -3.0,
    "log_likelihood_one_gaussian": -3.2,
    "share_bull": 0.4,
    "share_bear": 0.3,
    "share_chop": 0.3,
    "switches": 0.02,
}


def answer(order: EvidenceOrdered, figures: Figures | None = GOOD, **changes: Any) -> EvidenceGiven:
    """What an honest worker gives: the whole span, with bars that it really had."""
    bars = (order.last - order.first) // MINUTE + 1
    is_model = order.worker == "ml_service"
    given = EvidenceGiven(
        job_id=order.job_id,
        worker=order.worker,
        subject_id=order.subject_id,
        span=Span(first=order.first, last=order.last, bars=bars, data_sha256="e" * 64),
        figures=None if is_model else figures,
        stressed=None if is_model else figures,
        metrics=LIKELY if is_model else {},
        trials=1,
        failure="",
        given_at=order.ordered_at,
    )
    return msgspec.structs.replace(given, **changes)
