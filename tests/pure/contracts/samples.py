"""One sample of every message, and the golden file of their bytes. Run it to renew the file: `just golden`."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from shared.contracts import execution, governance, jobs, market, operations, parameters, regime, risk
from shared.contracts.wire import Message, pack, wrap

GOLDEN = Path(__file__).parent / "golden.json"
OPENED = datetime(2024, 1, 1, 12, 0, tzinfo=UTC)
CLOSED = OPENED + timedelta(hours=1)
SERIES: dict[str, Any] = {"venue": "sim", "symbol": "BTC-USDT", "timeframe": "1h"}
SLEEVE: dict[str, Any] = {**SERIES, "strategy": "momentum"}
COMMAND: dict[str, Any] = {"command_id": "c1", "account": "main", "actor": "anna", "reason": "lunch", "at": CLOSED}
ORDER: dict[str, Any] = {**SLEEVE, "order_id": "o1", "at": CLOSED}
MODEL, PRESET, HASH = "a" * 64, "b" * 64, "c" * 64
FIGURES = governance.Figures(
    bars=500,
    trades=12,
    net_return=0.04,
    sharpe=1.2,
    max_drawdown=0.03,
    win_rate=0.5,
    profit_factor=1.6,
    expectancy_r=0.2,
    fees=11.5,
)
SPAN = governance.Span(first=OPENED, last=CLOSED, bars=2, data_sha256=HASH)
COSTS = governance.Costs(fee_bps=10.0, slippage_bps=5.0)

SAMPLES: tuple[Message, ...] = (
    market.BarClosed(
        **SERIES, opened_at=OPENED, closed_at=CLOSED, open=100.0, high=102.5, low=99.5, close=101.25, volume=12.5
    ),
    market.GapFound(
        **SERIES, first_opened_at=OPENED, last_opened_at=OPENED + timedelta(hours=2), bars=3, reason="absent"
    ),
    market.ChunkRegistered(**SERIES, first_opened_at=OPENED, last_opened_at=CLOSED, bars=2, sha256=HASH),
    market.QualityFlagged(**SERIES, opened_at=OPENED, defect="jump", detail="close 250 after 100"),
    market.UniverseUpdated(venue="sim", symbols=("BTC-USDT", "ETH-USDT"), source="trade_symbols", at=OPENED),
    regime.RegimeReading(
        **SERIES,
        opened_at=OPENED,
        regime="BULL",
        bull=0.75,
        bear=0.125,
        chop=0.125,
        model_id=MODEL,
        context=(1.0, 0.75, 0.125, 0.125),
        context_schema="odds-1",
        reading_hash=HASH,
        log_likelihood=-2.5,
    ),
    regime.MarketRegime(
        venue="sim",
        timeframe="1h",
        members=("BTC-USDT", "ETH-USDT"),
        opened_at=OPENED,
        regime="BEAR",
        bull=0.125,
        bear=0.625,
        chop=0.25,
        model_id=MODEL,
        reading_hash=HASH,
        log_likelihood=-2.5,
    ),
    regime.RegimeTransition(
        **SERIES,
        opened_at=OPENED,
        before="CHOP",
        after="BULL",
        model_probability=0.25,
        model_id=MODEL,
        surprise_bits=2.0,
    ),
    regime.RegimeMismatch(**SERIES, opened_at=OPENED, model_id=MODEL, engine_hash=HASH, service_hash="d" * 64),
    governance.ModelTrained(
        **SERIES,
        model_id=MODEL,
        manifest=b"{}",
        trained_on=SPAN,
        metric_name="held_out_log_likelihood",
        metric_value=3.5,
        is_synthetic=False,
        trained_at=CLOSED,
    ),
    governance.ModelPromoted(**SERIES, model_id=MODEL, manifest=b"{}", evidence_id="e1", promoted_at=CLOSED),
    governance.ModelDemoted(**SERIES, model_id=MODEL, reason="drift", demoted_at=CLOSED),
    governance.ModelDrifted(**SERIES, model_id=MODEL, expected=3.5, seen=1.25, bars=200, at=CLOSED),
    governance.PresetCandidate(
        **SLEEVE,
        preset_id=PRESET,
        preset=b"{}",
        origin="backtest",
        train=SPAN,
        train_figures=FIGURES,
        test=SPAN,
        test_figures=FIGURES,
        costs=COSTS,
        trials=24,
        proposed_at=CLOSED,
    ),
    governance.PresetPromoted(**SLEEVE, preset_id=PRESET, preset=b"{}", evidence_id="e1", promoted_at=CLOSED),
    governance.PresetDemoted(**SLEEVE, preset_id=PRESET, reason="a better one passed", demoted_at=CLOSED),
    governance.PresetRefused(
        **SLEEVE, preset_id=PRESET, reasons=("sharpe at least 1.0, was 0.4",), evidence_id="e1", refused_at=CLOSED
    ),
    governance.StageChanged(
        **SLEEVE,
        sequence=1,
        kind="preset",
        subject_id=PRESET,
        before="candidate",
        after="champion",
        reasons=("sharpe 1.2 of at least 1.0",),
        profile="paper-1",
        evidence_id="e1",
        actor="gate",
        changed_at=CLOSED,
        previous_hash="0" * 64,
        hash=HASH,
    ),
    parameters.ParamDecision(
        **SLEEVE,
        decision_id="d1",
        preset_id=PRESET,
        epoch=3,
        decided_on=OPENED,
        decided_at=CLOSED,
        policy_version="lints-1",
        context=(1.0, 0.75, 0.125, 0.125),
        context_schema="odds-1",
        propensities={PRESET: 0.75, "e" * 64: 0.25},
    ),
    parameters.ParamOutcome(**SLEEVE, decision_id="d1", preset_id=PRESET, trade_id="o1", reward=0.8, learned_at=CLOSED),
    execution.Signal(
        **SLEEVE,
        opened_at=OPENED,
        closed_at=CLOSED,
        exposure=1.0,
        exit_reason="",
        preset_id=PRESET,
        model_id=MODEL,
        decision_id="d1",
        regime="BULL",
    ),
    execution.OrderSubmitted(
        **ORDER,
        side="buy",
        kind="market",
        quantity=Decimal("0.015"),
        price=None,
        reason="entry",
        preset_id=PRESET,
        model_id=MODEL,
        decision_id="d1",
    ),
    execution.OrderAccepted(**ORDER, venue_order_id="28"),
    execution.OrderRejected(**ORDER, refused_by="venue", code="-2010", reason="insufficient balance"),
    execution.OrderCanceled(**ORDER, reason="by hand"),
    execution.OrderExpired(**ORDER, reason="day order"),
    execution.TradeFill(
        **SLEEVE,
        trade_id="12345",
        order_id="o1",
        side="buy",
        quantity=Decimal("0.015"),
        price=Decimal("101.25"),
        fee=Decimal("0.000015"),
        fee_asset="BTC",
        at=CLOSED,
    ),
    execution.TradeClosed(
        **SLEEVE,
        trade_id="o1",
        side="long",
        opened_at=OPENED,
        closed_at=CLOSED,
        bars_held=1,
        quantity=Decimal("0.015"),
        entry_price=Decimal(100),
        exit_price=Decimal("101.25"),
        fees=Decimal("0.003"),
        pnl=Decimal("0.01575"),
        risk=Decimal("0.02"),
        result_r=0.7875,
        exit_reason="signal",
        preset_id=PRESET,
        model_id=MODEL,
        decision_id="d1",
        regime="BULL",
    ),
    execution.PortfolioSnapshot(
        account="main",
        at=CLOSED,
        cash=Decimal("9998.5"),
        equity=Decimal("10000.01575"),
        fees=Decimal("0.003"),
        positions=(
            execution.Position(
                strategy="momentum",
                symbol="BTC-USDT",
                timeframe="1h",
                quantity=Decimal("0.015"),
                entry_price=Decimal(100),
                mark_price=101.25,
                unrealized=Decimal("0.01875"),
                preset_id=PRESET,
            ),
        ),
    ),
    risk.RailTouched(**SLEEVE, rail="max_position", action="resized", limit="2000 USDT", was="2500 USDT", at=CLOSED),
    risk.BreakerTripped(
        breaker="daily_loss",
        account="main",
        before="active",
        after="reducing",
        reason="3.1 % lost since 00:00 UTC",
        until=CLOSED + timedelta(hours=11),
        at=CLOSED,
    ),
    risk.Pause(**COMMAND),
    risk.Resume(**COMMAND),
    risk.Flatten(**COMMAND),
    risk.Halt(**COMMAND),
    risk.CommandAnswered(command_id="c1", account="main", done=True, detail="paused", at=CLOSED),
    jobs.EvidenceOrdered(
        **SLEEVE,
        job_id="j1",
        worker="backtest_suite",
        subject_id=PRESET,
        preset=b"{}",
        first=OPENED,
        last=CLOSED,
        costs=COSTS,
        ordered_at=CLOSED,
    ),
    jobs.BacktestOrdered(
        job_id="w1",
        worker="backtest_suite",
        strategy="trend_follow",
        symbol="BTC-USDT",
        timeframe="1h",
        params={"stop_atr": 2.5},
        grid={"fast": (10, 20), "slow": (50,)},
        metric="sharpe",
        first=OPENED,
        last=None,
        costs=COSTS,
        cash=Decimal(10_000),
        exposure=1.0,
        seed=7,
        ordered_at=CLOSED,
    ),
    jobs.EvidenceGiven(
        job_id="j1",
        worker="backtest_suite",
        subject_id=PRESET,
        span=SPAN,
        figures=FIGURES,
        stressed=FIGURES,
        metrics={},
        trials=24,
        failure="",
        given_at=CLOSED,
    ),
    operations.Alert(service="engine", name="sleeve_halted", level="critical", text="momentum raised", at=CLOSED),
    operations.Notified(
        notification_id="n1", channel="telegram", delivered=True, text="BTC +0.8R", detail="", at=CLOSED
    ),
    operations.Audited(audit_id="a1", service="governor", actor="anna", action="promote", detail="by hand", at=CLOSED),
    operations.Parked(
        stream="MD",
        subject="md.bar.sim.BTC-USDT.1h",
        heard_by="engine",
        reason="not a message",
        payload=b"\xc1",
        payload_sha256=HASH,
        at=CLOSED,
    ),
    operations.Progress(
        service="engine", venue="sim", at={"BTC-USDT.1h": 1704110400000}, booked=("x",), told=("y",), said_at=CLOSED
    ),
    operations.Asked(service="param_controller", asked_by="venue_sim", said_at=CLOSED),
    operations.Health(
        service="engine", ready=False, waiting_for=("nats",), version="0.1.0", restarts=1, said_at=CLOSED
    ),
)


def golden() -> dict[str, str]:
    """Message name -> the bytes of its sample on the wire, in hex."""
    return {type(sample).__name__: pack(wrap(sample, "golden")).hex() for sample in SAMPLES}


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(golden(), indent=1) + "\n", encoding="utf-8")
