"""Law 3: what the engine trades on paper, bar by bar over the bus, is what the compiled backtest trades on those bars."""

from __future__ import annotations

import random
from decimal import Decimal
from pathlib import Path

import pytest

from shared.contracts import subjects
from shared.contracts.governance import Costs
from shared.contracts.times import to_ms
from shared.trading.columns import Columns
from shared.trading.compiled import Terms, scan
from shared.trading.scales import Scale
from shared.trading.strategies import BUILT_IN
from tests.pure.engine.house import bars, house_of, instrument

HISTORY, BARS = 150, 1500


def wandering(seed: int) -> list[float]:
    """Closes that trend for a while, one way or the other, and wander in between."""
    chance = random.Random(seed)
    closes, drift = [100.0], 0.0
    for _ in range(BARS - 1):
        if chance.random() < 0.01:
            drift = chance.choice((-0.001, 0.0, 0.001))
        closes.append(round(closes[-1] * (1.0 + drift + chance.gauss(0.0, 0.003)), 2))
    return closes


@pytest.mark.parametrize("name", sorted(BUILT_IN))
async def test_the_fills_on_paper_are_those_of_the_backtest(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    market = bars(*wandering(seed=3), history=HISTORY)
    async with house_of(tmp_path, monkeypatch, (name,)) as house:
        # Only what the backtest does not know is out of the way: the account's breakers.
        await house.up(daily_loss_pct=99.0, drawdown_pct=99.0, loss_streak=10_000)
        await house.play(market)
        told = house.said(subjects.TRADE_FILL)

    columns = Columns.of(
        [to_ms(bar.opened_at) for bar in market],
        *([getattr(bar, field) for bar in market] for field in ("open", "high", "low", "close", "volume")),
    )
    terms = Terms(instrument(), "1m", Costs(fee_bps=10.0, slippage_bps=5.0), Decimal(1000))
    run = scan(BUILT_IN[name], columns, {}, terms, trade_from=HISTORY, with_fills=True)

    scale = Scale.of(instrument())
    assert run.fills is not None and len(run.fills) >= 4
    assert [
        (to_ms(fill.at), scale.lots(fill.quantity) * (1 if fill.side == "buy" else -1), fill.price, fill.fee)
        for fill in told
    ] == [
        (int(columns.opened_at_ms[bar]), int(lots), scale.price(int(ticks)), scale.amount(int(fee)))
        for bar, lots, ticks, fee, *_ in run.fills
    ]
