"""One account over several instruments: closed once a bar, whichever instrument comes first."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import pytest

from shared.contracts import subjects
from shared.contracts.market import BarClosed
from tests.pure.engine.house import MINUTE, START, bars, house_of

BOTH = ("BTC-USDT", "ETH-USDT")
BTC = bars(99, 101, 103, 99, 101, 104, 99, 98)
ETH = bars(99, 99, 102, 106, 99, 98, 103, 99, symbol="ETH-USDT")


def together(one: Sequence[BarClosed], other: Sequence[BarClosed]) -> list[BarClosed]:
    return [bar for pair in zip(one, other, strict=True) for bar in pair]


async def test_the_account_closes_a_bar_when_every_instrument_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path, monkeypatch, symbols=BOTH) as house:
        await house.up()

        await house.play(BTC[:1])
        assert house.said(subjects.PORTFOLIO_SNAPSHOT) == []
        await house.play(ETH[:1])

        (told,) = house.said(subjects.PORTFOLIO_SNAPSHOT)
        assert (told.at, told.equity) == (START + MINUTE, 2000)


async def test_an_instrument_without_a_bar_holds_the_account_up_only_until_the_next_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path, monkeypatch, symbols=BOTH) as house:
        await house.up()

        await house.play(BTC[:3])  # nothing of ETH

        told = [snapshot.at for snapshot in house.said(subjects.PORTFOLIO_SNAPSHOT)]
        assert told == [START + 1 * MINUTE, START + 2 * MINUTE]


async def test_which_instrument_comes_first_decides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[object] = []
    for name, market in (("one", together(BTC, ETH)), ("other", together(ETH, BTC))):
        (tmp_path / name).mkdir()
        async with house_of(tmp_path / name, monkeypatch, symbols=BOTH) as house:
            # Rails and breakers that bind, so that an account marked half-way through a bar would show.
            await house.up(max_order_pct=40.0, max_gross_pct=60.0, loss_streak=2, cooldown_bars=2)
            await house.play(market)
            orders = [(o.symbol, o.at, o.side, o.quantity) for o in house.said(subjects.ORDER_SUBMITTED)]
            rails = [(t.symbol, t.at, t.rail, t.was) for t in house.said(subjects.RAIL_TOUCHED)]
            accounts = [(s.at, s.equity) for s in house.said(subjects.PORTFOLIO_SNAPSHOT)]
            trips = house.said(subjects.BREAKER_TRIPPED)
            assert rails and trips and len(orders) >= 4
            outcomes.append((sorted(orders), sorted(rails), accounts, trips))

    assert outcomes[0] == outcomes[1]


async def test_what_all_sleeves_earned_is_what_the_account_earned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house_of(tmp_path, monkeypatch, strategies=("above", "aloft"), symbols=BOTH) as house:
        await house.up()

        await house.play(together(BTC, ETH))
        await house.play(together(bars(98, first=8), bars(98, symbol="ETH-USDT", first=8)))

        last = house.said(subjects.PORTFOLIO_SNAPSHOT)[-1]
        trades, fills = house.said(subjects.TRADE_CLOSED), house.said(subjects.TRADE_FILL)
        assert last.positions == () and len(trades) >= 6
        assert last.equity == last.cash == 4000 + sum(trade.pnl for trade in trades)
        assert last.fees == sum((fill.fee for fill in fills), Decimal(0))
