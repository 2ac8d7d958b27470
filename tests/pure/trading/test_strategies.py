"""Exact trades of each strategy, worked out by hand on a short series.

All bars open at the close before, and their high and low are the higher and the lower of the two. A lot is 1.0 and a tick
0.01, the fee is 10 bps, there is no slippage: 10,000 buy floor(10,000 / ((close + 0.01) x 1.001)) lots, because the price
may be rounded up by a tick and the fee is kept aside.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Literal

import numpy as np

from shared.contracts.governance import Costs
from shared.contracts.instruments import Instrument
from shared.trading.columns import Columns
from shared.trading.compiled import Terms, scan
from shared.trading.strategies import BUILT_IN

Fill = tuple[int, int, float]  # bar, lots, price
Kind = Literal["spot", "perpetual"]


def market(closes: list[float]) -> Columns:
    """Minutes that open where the one before closed, without wicks."""
    close = np.array(closes, np.float64)
    open = np.concatenate([close[:1], close[:-1]])
    size = len(close)
    return Columns.of(
        np.arange(size) * 60_000, open, np.maximum(open, close), np.minimum(open, close), close, np.ones(size)
    )


def traded(
    name: str, params: dict[str, object], closes: list[float], kind: Kind = "spot"
) -> tuple[list[Fill], Decimal, list[Decimal]]:
    """The fills, the cash at the end, and each fill's fee."""
    instrument = Instrument(
        symbol="BTC-USDT", base="BTC", quote="USDT", kind=kind, tick=Decimal("0.01"), lot=Decimal(1)
    )
    terms = Terms(instrument, "1m", Costs(fee_bps=10, slippage_bps=0), Decimal(10_000))
    run = scan(BUILT_IN[name], market(closes), params, terms, with_fills=True)
    assert run.fills is not None
    fills = [(bar, lots, ticks / 100) for bar, lots, ticks, *_ in run.fills.tolist()]
    fees = [Decimal(fee).scaleb(-8) for fee in run.fills[:, 3].tolist()]
    return fills, Decimal(run.sleeve.book.cash).scaleb(-8), fees


def test_every_strategy_that_we_bring_has_trades_worked_out_by_hand() -> None:
    here = {name.removeprefix("test_").split("_does_by_hand")[0] for name in globals() if "_does_by_hand" in name}
    assert here >= set(BUILT_IN)


def test_momentum_does_by_hand() -> None:
    closes = [100, 101, 100, 101, 100, 101, 104, 108, 112, 107, 105.5, 104, 101, 113, 112, 105, 100, 100]
    params = {"entry": 5, "exit": 5, "atr_bars": 2, "stop_atr": 2.0, "trail_atr": 3.0}
    fills, cash, fees = traded("momentum", params, closes)
    assert fills == [
        # bar 6: close 104 > 101, the highest high of bars 1..5: long. True ranges 0 1 1 1 1 1 3, so the ATR of 2 is
        # .5 .75 .875 .9375 .96875 1.984375: trail 5.95. 10,000 / (104.01 x 1.001) = 96.05
        (7, 96, 104.0),
        # bar 8 closes at 112, the best; bar 9 at 107 is 5 below; bar 10 at 105.5 is 6.5 below: trailed out. The lowest
        # low of bars 5..9 is 100, so the strategy itself would stay long: nothing is bought until it has been flat
        (11, -96, 105.5),
        # bar 12: close 101 < 104, the lowest low of bars 7..11: flat. Bar 13: 113 > 112: long, with ATR 7.2967529296875
        # 10,123.888 / (113.01 x 1.001) = 89.50
        (14, 89, 113.0),
        # bar 16: close 100 < 101, the lowest low of bars 11..15: flat. 13 below the entry is less than the stop of 14.59
        (17, -89, 100.0),
    ]
    assert fees == [Decimal("9.984"), Decimal("10.128"), Decimal("10.057"), Decimal("8.9")]
    # 10,000 + 96 x 1.5 - 20.112 - 89 x 13 - 18.957
    assert cash == Decimal("8947.931")


def test_trend_follow_does_by_hand() -> None:
    closes = [100.0] * 5 + [102, 104, 105, 104, 100, 100, 106, 106, 102, 102, 108, 106, 101, 101]
    params = {"fast": 2, "slow": 5, "atr_bars": 2, "stop_atr": 2.0, "target_atr": 3.0}
    fills, cash, fees = traded("trend_follow", params, closes)
    assert fills == [
        # bar 5: averages 101 > 100.4. ATR (0 + 2) / 2 = 1: stop 2, target 3. 10,000 / (102.01 x 1.001) = 97.93
        (6, 97, 102.0),
        # bar 7: 105 is the target. The averages stay crossed until bar 9 (102 < 103): nothing is bought meanwhile
        (8, -97, 105.0),
        # bar 11: 103 is not above 103. Bar 12: 106 > 103.2, ATR 1.8203125: stop 3.64. 10,270.921 / (106.01 x 1.001) = 96.79
        (13, 96, 106.0),
        # bar 13: 102 is 4 below: stopped, though 104 > 102.8
        (14, -96, 102.0),
        # bar 14: 102 < 103.2: free again. Bar 15: 105 > 104.8, ATR 3.7275390625: stop 7.46. 9,866.953 / (108.01 x 1.001) = 91.26
        (16, 91, 108.0),
        # bar 17: 103.5 < 103.8: flat. 101 is 7 below: not stopped
        (18, -91, 101.0),
    ]
    assert fees == [Decimal(text) for text in ("9.894", "10.185", "10.176", "9.792", "9.828", "9.191")]
    # 10,000 + 97 x 3 - 20.079 - 96 x 4 - 19.968 - 91 x 7 - 19.019
    assert cash == Decimal("9210.934")


REVERSION = {"bars": 4, "width": 1.5, "rsi_bars": 2, "oversold": 30.0, "atr_bars": 2, "stop_atr": 1.5}


def test_mean_reversion_does_by_hand() -> None:
    closes = [100.0] * 5 + [92, 94, 97, 98, 98, 97, 90, 86, 83, 82, 88, 88]
    fills, cash, fees = traded("mean_reversion", REVERSION, closes)
    assert fills == [
        # bar 5: mean 98, deviation sqrt((4 + 4 + 4 + 36) / 4) = 3.46, band from 92.80: 92 is below; only falls, so the
        # strength is 0. ATR (0 + 8) / 2 = 4: stop 6. 10,000 / (92.01 x 1.001) = 108.57
        (6, 108, 92.0),
        # bar 6: 94 < 96.5. Bar 7: 97 >= 95.75, the middle
        (8, -108, 97.0),
        # bar 11: mean 95.75, deviation sqrt(44.75 / 4) = 3.34, band from 90.73: 90 is below; rise .1875 and fall 3.8125
        # a bar give 4.69. ATR 8 -> 4, then 3 3 2 1 1 4: stop 6. 10,519.588 / (90.01 x 1.001) = 116.75
        (12, 116, 90.0),
        # bar 13: 83 is 7 below: stopped. Below the middle until bar 15 (88 >= 84.75): not bought again at 82
        (14, -116, 83.0),
    ]
    assert fees == [Decimal(text) for text in ("9.936", "10.476", "10.44", "9.628")]
    # 10,000 + 108 x 5 - 20.412 - 116 x 7 - 20.068
    assert cash == Decimal("9687.52")


def test_mean_reversion_sells_the_mirror_image_where_it_may() -> None:
    closes = [100.0] * 5 + [108, 106, 103, 103]
    fills, cash, _ = traded("mean_reversion", {**REVERSION, "shorts": True}, closes, kind="perpetual")
    # bar 5: mean 102, band up to 107.20, strength 100. 10,000 / (108.01 x 1.001) = 92.49. Bar 7: 103 <= 104.25, the middle
    assert fills == [(6, -92, 108.0), (8, 92, 103.0)]
    assert cash == Decimal("10440.588")  # 10,000 + 92 x 5 - 9.936 - 9.476
    assert traded("mean_reversion", REVERSION, closes, kind="perpetual")[0] == []


def test_mean_reversion_buys_no_fall_that_the_strength_index_does_not_confirm() -> None:
    closes: list[float] = [100, 110, 120, 130, 140, 150, 128, 128]
    # bar 6: mean 137, deviation sqrt(308 / 4) = 8.77, band of one deviation from 128.23: 128 is below;
    # rise (10 + 0) / 2 = 5 and fall (0 + 22) / 2 = 11 give 31.25
    above, below = ({**REVERSION, "width": 1.0, "oversold": oversold} for oversold in (31.0, 31.5))
    assert traded("mean_reversion", above, closes)[0] == []
    assert traded("mean_reversion", below, closes)[0] == [(7, 78, 128.0)]


def test_multi_timeframe_does_by_hand() -> None:
    closes: list[float] = [100, 100, 101, 104, 106, 108, 103, 110, 101, 103, 103]
    params = {"times": 2, "trend": 2, "rsi_bars": 2, "dip": 30.0, "rebound": 60.0, "atr_bars": 2, "stop_atr": 2.0}
    fills, cash, fees = traded("multi_timeframe", params, closes)
    assert fills == [
        # Higher bars end with bars 1, 3, 5, 7, 9 at 100 104 108 110 103. Bar 6: 108 > (104 + 108) / 2, though the higher
        # bar that bar 6 is in stands at 103. Rise .96875 and fall 2.5 a bar: 27.9, a dip. 10,000 / (103.01 x 1.001) = 96.98
        (7, 96, 103.0),
        # bar 7: rise 3.984 and fall 1.25: 76, a rebound
        (8, -96, 110.0),
        # bar 8: 110 > 109; rise 1.992 and fall 5.125: 28.0, a dip. 10,651.552 / (101.01 x 1.001) = 105.34
        (9, 105, 101.0),
        # bar 9 ends a higher bar at 103 < (110 + 103) / 2: the rise is over
        (10, -105, 103.0),
    ]
    assert fees == [Decimal(text) for text in ("9.888", "10.56", "10.605", "10.815")]
    # 10,000 + 96 x 7 - 20.448 + 105 x 2 - 21.42
    assert cash == Decimal("10840.132")
