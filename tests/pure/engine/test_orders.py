"""The life of an order: its id, its states, and where it may be sent at all."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from services.engine.orders import Order, order_id
from services.engine.paper_venue import PaperVenue
from services.engine.service import equal_shares
from services.engine.settings import EngineSettings
from services.engine.venue import OrderRefused, Ticket
from services.engine.venues import check_live
from shared.contracts.errors import NeedsOperator
from shared.contracts.wire import TOKEN
from tests.pure.engine.house import START, instrument

SLEEVE = "momentum.BTC-USDT.1m"


def order() -> Order:
    return Order(
        order_id=order_id("main", "sim", SLEEVE, 0, "", 1),
        sleeve=SLEEVE,
        venue="sim",
        symbol="BTC-USDT",
        side="buy",
        quantity=Decimal(1),
        reason="signal",
        attempt=1,
        decided_ms=0,
        leg="",
        at=START,
    )


def test_an_order_id_is_made_from_what_the_order_is_for() -> None:
    about = ("main", "sim", SLEEVE, 1_700_000_000_000, "", 1)

    assert order_id(*about) == order_id(*about)
    others = [
        order_id("other", *about[1:]),
        order_id(*about[:2], "trend_follow.BTC-USDT.1m", *about[3:]),
        order_id(*about[:3], 1_700_000_060_000, "", 1),
        order_id(*about[:4], "flatten.c1", 1),
        order_id(*about[:5], 2),
    ]
    assert len({order_id(*about), *others}) == 6


def test_an_order_id_fits_the_venue_and_a_subject() -> None:
    made = order_id("a" * 64, "binance", SLEEVE, 2**62, "flatten." + "c" * 64, 2)

    assert len(made) <= 36 and TOKEN.fullmatch(made)


def test_an_order_that_never_arrived_is_tried_once_more_and_no_more() -> None:
    second = order().next_attempt("main")

    assert second is not None and second.order_id != order().order_id
    assert (second.attempt, second.state, second.quantity) == (2, "intent", Decimal(1))
    assert second.next_attempt("main") is None


async def test_the_paper_venue_refuses_what_a_venue_refuses() -> None:
    venue = PaperVenue("sim", {"BTC-USDT": instrument()}, lambda ticket, price: None)

    with pytest.raises(OrderRefused, match=r"multiple of 0\.0001"):
        await venue.submit(Ticket(order_id="t", symbol="BTC-USDT", side="buy", quantity=Decimal("0.00005")))
    with pytest.raises(OrderRefused, match="not traded here"):
        await venue.submit(Ticket(order_id="t", symbol="DOGE-USDT", side="buy", quantity=Decimal(1)))
    assert venue.opened("BTC-USDT", 100.0, START) == []


@pytest.mark.parametrize(("cash", "among"), [(Decimal(10_000), 6), (Decimal("0.05"), 3), (Decimal("7.123"), 4)])
def test_the_sleeves_sum_to_the_account(cash: Decimal, among: int) -> None:
    shares = equal_shares(cash, among)

    assert sum(shares) == cash and len(shares) == among
    assert max(shares) - min(shares) < Decimal("0.02")


def test_without_a_setting_the_rails_leave_each_sleeve_its_share_and_room_to_grow() -> None:
    six = EngineSettings(strategies="a,b", symbols="BTC-USDT,ETH-USDT,SOL-USDT").limits
    one = EngineSettings(strategies="a", symbols="BTC-USDT").limits
    said = EngineSettings(max_order_pct=5, max_position_pct=20).limits

    assert (round(six.max_order, 4), round(six.max_position, 4)) == (Decimal("0.2083"), Decimal("0.4167"))
    assert (one.max_order, one.max_position) == (1, 1)
    assert (said.max_order, said.max_position) == (Decimal("0.05"), Decimal("0.2"))


# -- nothing trades for real by accident -----------------------------------------------------------------------------

LIVE: dict[str, Any] = {"venue": "binance", "mode": "live", "live": "main", "api_key": "k", "api_secret": "s"}


def in_file(folder: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    (folder / "trimtab.toml").write_text(f'mode = "{mode}"\n', encoding="utf-8")
    monkeypatch.setenv("TRIMTAB_CONFIG", str(folder / "trimtab.toml"))


def test_paper_is_the_default() -> None:
    assert EngineSettings().mode == "paper"
    check_live(EngineSettings())


def test_live_needs_both_switches_and_then_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_file(tmp_path, monkeypatch, "live")

    check_live(EngineSettings(**LIVE))


@pytest.mark.parametrize(
    ("changes", "mode_in_file", "words"),
    [
        ({"live": ""}, "live", "TRIMTAB_LIVE=main"),
        ({"live": "other"}, "live", "TRIMTAB_LIVE=main"),
        ({}, "paper", "trimtab.toml"),
        ({"venue": "sim"}, "live", "simulated venue"),
        ({"dry_run": True}, "live", "DRY_RUN"),
        ({"api_key": ""}, "live", "API_KEY"),
    ],
)
def test_live_without_one_of_them_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], mode_in_file: str, words: str
) -> None:
    in_file(tmp_path, monkeypatch, mode_in_file)

    with pytest.raises(NeedsOperator, match=words):
        check_live(EngineSettings(**{**LIVE, **changes}))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [("symbols", "BTCUSDT", "BTC-USDT"), ("symbols", "", "at least one"), ("strategies", "a,a", "each once")],
)
def test_a_wrong_setting_says_what_is_expected(setting: str, value: str, words: str) -> None:
    with pytest.raises(NeedsOperator, match=words):
        EngineSettings.load(**{setting: value})
