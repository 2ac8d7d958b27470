"""What people are told, in which words, and how notes that wait go together."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifier.channels import open_channels
from services.notifier.phrases import note_of
from services.notifier.queue import Queued, packed
from services.notifier.settings import NotifierSettings
from shared.contracts.errors import NeedsOperator
from shared.contracts.execution import TradeClosed
from shared.contracts.governance import PresetPromoted, PresetRefused
from shared.contracts.operations import Alert
from shared.contracts.risk import BreakerTripped
from shared.contracts.wire import Message

AT = datetime(2026, 3, 2, 12, tzinfo=UTC)
SLEEVE = {"venue": "sim", "strategy": "momentum", "symbol": "BTC-USDT", "timeframe": "1m"}


def wishes(**given: Any) -> NotifierSettings:
    return NotifierSettings.load(**given)


def told(message: Message, **given: Any) -> str | None:
    note = note_of(message, wishes(**given))
    return None if note is None else note.text


def trade(quantity: str = "0.5", pnl: str = "12.30") -> TradeClosed:
    return TradeClosed(
        **SLEEVE,
        trade_id="t1",
        side="long",
        opened_at=AT,
        closed_at=AT,
        bars_held=12,
        quantity=Decimal(quantity),
        entry_price=Decimal(64000),
        exit_price=Decimal("64100.50"),
        fees=Decimal("1.20"),
        pnl=Decimal(pnl),
        risk=Decimal(15),
        result_r=0.82,
        exit_reason="take_profit",
        preset_id="a" * 64,
        model_id="",
        decision_id="",
        regime="BULL",
    )


def breaker(after: Any) -> BreakerTripped:
    return BreakerTripped(
        breaker="drawdown",
        account="main",
        before="active",
        after=after,
        reason="15 % below its peak",
        until=None,
        at=AT,
    )


def alert(level: Any) -> Alert:
    return Alert(service="ingester", name="stream_lost", level=level, text="no frame for 60 s", at=AT)


def test_a_closed_trade_is_told_with_what_it_earned_and_why_it_ended() -> None:
    text = told(trade())

    assert text is not None
    for part in ("BTC-USDT", "+12.30", "+0.82R", "0.5 from 64000 to 64100.5", "12 bars", "take_profit", "fees 1.20"):
        assert part in text


def test_a_trade_below_the_least_notional_is_not_told() -> None:
    assert told(trade("0.001"), min_notional="100") is None  # 64 USDT
    assert told(trade("0.002"), min_notional="100") is not None


def test_a_refusal_names_the_rule_that_failed() -> None:
    refused = PresetRefused(
        **SLEEVE, preset_id="b" * 64, reasons=("trades must be >= 30, was 7",), evidence_id="e", refused_at=AT
    )

    assert "trades must be >= 30, was 7" in (told(refused) or "")
    assert told(refused, refusals=False) is None


def test_a_default_preset_admitted_from_birth_is_no_news() -> None:
    promoted = PresetPromoted(**SLEEVE, preset_id="c" * 64, preset=b"{}", evidence_id="", promoted_at=AT)

    assert told(promoted) is None


def test_a_halt_and_a_critical_alert_are_critical_and_nothing_else_is() -> None:
    levels = {
        name: note.level
        for name, message in {
            "halt": breaker("halted"),
            "pause": breaker("paused"),
            "critical": alert("critical"),
            "warning": alert("warning"),
            "trade": trade(),
        }.items()
        if (note := note_of(message, wishes()))
    }

    assert levels == {
        "halt": "critical",
        "pause": "ordinary",
        "critical": "critical",
        "warning": "ordinary",
        "trade": "ordinary",
    }


@pytest.mark.parametrize(
    ("lowest", "heard"),
    [("info", 3), ("warning", 2), ("critical", 1), ("never", 0)],
)
def test_alerts_are_told_from_the_level_one_asks_for(lowest: str, heard: int) -> None:
    texts = [told(alert(level), alerts_from=lowest) for level in ("info", "warning", "critical")]

    assert sum(text is not None for text in texts) == heard


async def test_half_a_telegram_is_refused_with_the_name_that_is_missing() -> None:
    with pytest.raises(NeedsOperator, match="TELEGRAM_CHAT_ID is not set"):
        await open_channels(wishes(telegram_bot_token="1:a"))


async def test_without_keys_and_under_dry_run_there_is_no_channel() -> None:
    assert await open_channels(wishes()) == []
    assert await open_channels(wishes(slack_webhook_url="http://127.0.0.1:1/x", dry_run=True)) == []


waiting = st.lists(st.tuples(st.text(min_size=1, max_size=80), st.booleans()), min_size=1, max_size=60)


@given(notes=waiting, most_chars=st.integers(150, 600))
def test_however_notes_are_merged_each_leaves_once_and_in_order(notes: list[tuple[str, bool]], most_chars: int) -> None:
    left = [Queued(seq, f"n{seq}", "ordinary", text, again) for seq, (text, again) in enumerate(notes)]
    sent: list[int] = []

    while left:
        parcel = packed(left, "Trimtab, sim paper", most_chars)
        assert len(parcel.text) <= most_chars
        assert all(note.text in parcel.text for note in parcel.notes)
        assert len({note.may_have_arrived for note in parcel.notes}) == 1
        sent += [note.seq for note in parcel.notes]
        left = left[len(parcel.notes) :]

    assert sent == list(range(len(notes)))
