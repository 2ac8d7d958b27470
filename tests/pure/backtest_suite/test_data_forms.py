"""Other forms of bars: tables of closes, an exchange's trades, what an ingester keeps; and the sessions of shares."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from services.backtest_suite.data import Bars, read_bars
from services.backtest_suite.driver import DECIDED, Experiment
from services.ingester.archive import _write
from services.ingester.candles import Candle
from shared.contracts.errors import NeedsOperator
from shared.contracts.times import from_ms, to_ms
from shared.trading.calendars import session
from shared.trading.compiled import Targets
from tests.pure.backtest_suite.markets import FREE
from tests.pure.backtest_suite.test_data import FIRST, rows_of, zip_of

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def test_a_wide_table_of_closes_is_one_series_a_column(tmp_path: Path) -> None:
    file = tmp_path / "closes.csv"
    file.write_text("date,AAPL,BRK.B\n2022-01-03,182.01,300\n2022-01-04,179.7,\n2022-01-05,174.92,310\n")
    apple, berkshire = read_bars(file, timeframe="1d")
    assert (apple.symbol, berkshire.symbol, apple.timeframe) == ("AAPL-USD", "BRK_B-USD", "1d")
    assert rows_of(apple)[1] == (to_ms(datetime(2022, 1, 4, tzinfo=UTC)), 179.7, 179.7, 179.7, 179.7, 0.0)
    assert len(berkshire) == 2  # where there is no close there is no bar
    assert any("closes alone" in note for note in apple.notes)
    assert [bars.symbol for bars in read_bars(file, symbol="BRK_B-USD", timeframe="1d")] == ["BRK_B-USD"]
    with pytest.raises(NeedsOperator, match=r"closes.csv: there is no MSFT-USD among its symbols AAPL-USD, BRK_B-USD"):
        read_bars(file, symbol="MSFT-USD")


def test_a_file_of_closes_alone_is_named_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "ETHUSDT_1h.csv").write_text("timestamp,close\n1640995200000,2\n1640998800000,3\n")
    (bars,) = read_bars(tmp_path / "ETHUSDT_1h.csv")
    assert (bars.symbol, bars.columns.high.tolist(), bars.columns.open.tolist()) == ("ETH-USDT", [2, 3], [2, 3])


def test_real_tables_of_closes_are_read_and_lack_no_session(test_data: Path) -> None:
    twenty = read_bars(test_data / "equities" / "us20_adjclose_1990_2016.parquet", universe="survivors")
    (index,) = read_bars(test_data / "equities" / "sp500_index_1990_2016.parquet")
    assert [len(twenty), twenty[0].symbol, index.symbol] == [20, "AAPL-USD", "SP500-USD"]
    assert {(bars.instrument.kind, bars.timeframe, bars.gaps) for bars in [*twenty, index]} == {("share", "1d", 0)}


# (id, price, qty, ...) as https://github.com/binance/binance-public-data#trades has them, spot's without a header
DIALECTS = {
    "spot trades": "{i},{price},{qty},{quote},{time},True,True",
    "spot trades aggregated": "{i},{price},{qty},{i},{i},{time},True,True",
    "futures trades": "{i},{price},{qty},{quote},{time},true",
    "futures trades aggregated": "{i},{price},{qty},{i},{i},{time},false",
}
HEADERS = {
    "futures trades": "id,price,qty,quote_qty,time,is_buyer_maker",
    "futures trades aggregated": "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker",
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("unit", [1, 1000], ids=["ms", "us"])
def test_an_exchanges_bulk_trades_become_bars_without_a_header_as_with_one(
    tmp_path: Path, dialect: str, unit: int
) -> None:
    trades = [(FIRST + 5, 2.0, 1.0), (FIRST + 6, 3.0, 0.5), (FIRST + 59_999, 1.0, 0.25), (FIRST + MINUTE, 9.0, 1.0)]
    lines = [
        DIALECTS[dialect].format(i=i, price=price, qty=qty, quote=price * qty, time=time * unit)
        for i, (time, price, qty) in enumerate(trades)
    ]
    bare, headed = "\n".join(lines) + "\n", "\n".join([HEADERS.get(dialect, ""), *lines]) + "\n"
    for text in {bare, headed.lstrip("\n")}:
        zip_of(tmp_path / "BTCUSDT-trades-2022-01-01.zip", text)
        (bars,) = read_bars(tmp_path / "BTCUSDT-trades-2022-01-01.zip", timeframe="1m")
        assert bars.symbol == "BTC-USDT"
        assert rows_of(bars) == [(FIRST, 2.0, 3.0, 1.0, 1.0, 1.75)]


def test_columns_of_no_known_dialect_are_refused_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT_1m.csv").write_text("1,2,3,true,true,true\n")
    with pytest.raises(NeedsOperator, match=r"a header, or 6, 7, 8, 12 columns of bars or trades .*there are 6"):
        read_bars(tmp_path / "BTCUSDT_1m.csv", timeframe="1m")


def kept_part(folder: Path, venue: str, symbol: str, first: int, count: int) -> None:
    """A part as the ingester writes it: its own function, in the place where it has them."""
    candles = [Candle(FIRST + (first + i) * MINUTE, 2.0, 3.0, 1.0, 2.5, 1.0) for i in range(count)]
    digest = hashlib.sha256(f"{venue}{symbol}{first}".encode()).hexdigest()
    _write(folder / venue / symbol / "1m" / f"{candles[0].opened_at}-{count}-{digest[:12]}.parquet", candles)


def test_the_folder_of_an_ingester_is_read_at_any_height(tmp_path: Path) -> None:
    for symbol, first in (("BTC-USDT", 0), ("BTC-USDT", 4), ("ETH-USDT-PERP", 0)):
        kept_part(tmp_path, "sim", symbol, first, 4)
    (tmp_path / "sim" / "BTC-USDT" / "1m" / "torn.part").write_text("half a part")
    for height in (tmp_path, tmp_path / "sim"):
        btc, eth = read_bars(height)
        assert [(each.symbol, each.timeframe, len(each), each.gaps) for each in (btc, eth)] == [
            ("BTC-USDT", "1m", 8, 0),
            ("ETH-USDT-PERP", "1m", 4, 0),
        ]
        assert eth.instrument.kind == "perpetual"
    (alone,) = read_bars(tmp_path / "sim" / "BTC-USDT" / "1m")
    assert len(alone) == 8
    kept_part(tmp_path, "binance", "BTC-USDT", 2, 4)
    with pytest.raises(NeedsOperator, match=r"expected bars of BTC-USDT 1m after those of"):
        read_bars(tmp_path)  # two venues: which is meant?


def hourly(days: list[datetime]) -> Bars:
    """The hours of New York's sessions on these days."""
    times: list[int] = []
    for day in days:
        opened, closed = session(day.date())
        times += range(to_ms(opened), to_ms(closed), HOUR)
    frame = pl.DataFrame(
        {"timestamp": times, **{name: [100.0] * len(times) for name in ("open", "high", "low", "close", "volume")}}
    )
    return Bars.from_frame(frame, symbol="AAPL-USD", timeframe="1h", kind="share", calendar="XNYS", lot=Decimal(1))


def test_a_half_day_that_is_missing_lacks_the_bars_that_it_would_have_had() -> None:
    wednesday, friday, monday = (datetime(2024, 11, day, tzinfo=UTC) for day in (27, 29, 25))
    # Thursday was Thanksgiving, and on the Friday after it New York closes at one: 4 bars of an hour.
    assert hourly([wednesday, friday]).missing == 0
    assert hourly([wednesday, friday + timedelta(days=3)]).missing == 4
    assert hourly([monday, wednesday]).missing == 7  # the Tuesday was a whole one


def trade_of(bars: Bars, fill: str) -> list[datetime]:
    """When a trade from the first to the last bar but one was entered and left."""
    targets = Targets.of([1.0] * (len(bars) - 2) + [0.0] * 2)
    run = Experiment.of(DECIDED, bars, targets=targets, costs=FREE, fill=fill).run()  # type: ignore[arg-type]
    return [each for trade in run.trades for each in (trade.entry_at, trade.exit_at)]


def test_a_shares_bar_opens_and_closes_with_its_session() -> None:
    days = [
        to_ms(datetime(2024, 7, day, tzinfo=UTC)) for day in (1, 2, 3, 5, 8)
    ]  # the third ends early, the fourth is none
    frame = pl.DataFrame(
        {"timestamp": days, **{name: [100.0] * 5 for name in ("open", "high", "low", "close", "volume")}}
    )
    daily = Bars.from_frame(frame, symbol="AAPL-USD", timeframe="1d", kind="share", calendar="XNYS", lot=Decimal(1))
    opened, closed = (datetime(2024, 7, 2, hour, minute, tzinfo=UTC) for hour, minute in ((13, 30), (20, 0)))
    assert trade_of(daily, "next_open") == [opened, opened + timedelta(days=6)]
    assert trade_of(daily, "next_close") == [closed, closed + timedelta(days=6)]
    early = daily.between(from_ms(days[1]), from_ms(days[-1]))
    assert trade_of(early, "next_close")[0] == datetime(2024, 7, 3, 17, 0, tzinfo=UTC)
    hours = hourly([datetime(2024, 7, 2, tzinfo=UTC), datetime(2024, 7, 3, tzinfo=UTC)])
    assert np.diff(hours.columns.opened_at_ms[-2:]).tolist() == [HOUR]
    # The last bar of the half day opens at 12:30 and closes at 13:00 in New York, 17:00 UTC.
    assert trade_of(hours, "next_close")[1] == datetime(2024, 7, 3, 17, 0, tzinfo=UTC)
