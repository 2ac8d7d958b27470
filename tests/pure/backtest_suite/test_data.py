"""What a backtest runs on: read exactly from every form, gaps counted, and what is wrong is named with file, row and time."""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import feather

from services.backtest_suite.data import Bars, read_bars
from shared.artifacts.bar_tables import price_decimals
from shared.contracts.errors import NeedsOperator
from shared.contracts.times import parse_time

HOUR = 3_600_000
FIRST = 1_640_995_200_000  # 2022-01-01 00:00 UTC
NAMES = ("timestamp", "open", "high", "low", "close", "volume")
Row = tuple[float, ...]


def rows(count: int = 6, first: int = FIRST) -> list[Row]:
    return [(first + at * HOUR, 100.25 + at, 102.5 + at, 99.5 + at, 101.25 + at, 10.0) for at in range(count)]


def table(content: list[Row]) -> pa.Table:
    return pa.table({name: [row[at] for row in content] for at, name in enumerate(NAMES)})


def csv_of(content: list[Row], header: bool = True, unit: float = 1) -> str:
    lines = [",".join([str(int(row[0] * unit)), *(f"{value:.10g}" for value in row[1:])]) for row in content]
    return "\n".join([",".join(NAMES)] * header + lines) + "\n"


def zip_of(path: Path, text: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside.csv", text)


WRITERS: dict[str, Callable[[Path, list[Row]], Any]] = {
    "BTCUSDT_1h.parquet": lambda path, content: pq.write_table(table(content), path),
    "BTCUSDT_1h.feather": lambda path, content: feather.write_feather(table(content), path),
    "BTCUSDT_1h.csv": lambda path, content: path.write_text(csv_of(content)),
    "BTC_USDT-1h.csv": lambda path, content: path.write_text(csv_of(content, header=False, unit=1000)),
    "spot-BTCUSDT-1h.csv": lambda path, content: path.write_text(csv_of(content, unit=0.001).replace(",", ";")),
    "BTCUSDT_1h.csv.gz": lambda path, content: path.write_bytes(gzip.compress(csv_of(content, unit=1e6).encode())),
    "BTCUSDT-1h-2022-01.zip": lambda path, content: zip_of(path, csv_of(content)),
}


def rows_of(bars: Bars) -> list[Row]:
    return list(zip(*(column.tolist() for column in bars.columns.all()), strict=True))


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_gives_the_same_bars(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, rows())
    (bars,) = read_bars(tmp_path / name)
    assert (bars.symbol, bars.timeframe, bars.universe, bars.source) == ("BTC-USDT", "1h", "unknown", name)
    assert rows_of(bars) == rows()
    assert (bars.first, bars.last, len(bars), bars.gaps) == (
        datetime(2022, 1, 1, tzinfo=UTC),
        datetime(2022, 1, 1, 5, tzinfo=UTC),
        6,
        0,
    )


TIMES = [datetime(2022, 1, 1) + timedelta(hours=at) for at in range(6)]  # noqa: DTZ001 - naive is one of the cases
PRICES = {name: [row[at] for row in rows()] for at, name in enumerate(NAMES) if at}
FRAMES: dict[str, Any] = {
    "pandas, naive index without a name": lambda: pd.DataFrame(PRICES, index=pd.DatetimeIndex(TIMES)),
    "pandas, vendor's capitals and a local zone": lambda: pd.DataFrame(
        {name.title(): values for name, values in PRICES.items()},
        index=pd.DatetimeIndex(TIMES, tz="UTC", name="Datetime").tz_convert("America/New_York"),
    ),
    "pandas, ns in a column": lambda: pd.DataFrame({"date": pd.to_datetime(TIMES).as_unit("ns"), **PRICES}),
    "pandas, texts": lambda: pd.DataFrame({"date": [f"{time:%Y-%m-%d %H:%M}" for time in TIMES], **PRICES}),
    "polars, aware": lambda: pl.DataFrame({"open_time": TIMES, **PRICES}).with_columns(
        pl.col("open_time").dt.replace_time_zone("UTC")
    ),
    "polars, whole ns": lambda: pl.DataFrame({"time": [int(row[0]) * 1_000_000 for row in rows()], **PRICES}),
    "polars, seconds with a fraction": lambda: pl.DataFrame(
        {"timestamp": [row[0] / 1000.0 for row in rows()], **PRICES}
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_gives_the_bars_of_the_file(name: str) -> None:
    bars = Bars.from_frame(FRAMES[name](), symbol="BTC-USDT")
    assert rows_of(bars) == rows()
    assert (bars.timeframe, bars.source, bars.instrument.quote) == ("1h", "frame", "USDT")


def a_ticker(*tickers: str) -> pd.DataFrame:
    """Columns of two levels, as yfinance makes them."""
    columns = pd.MultiIndex.from_product([[name.title() for name in PRICES], tickers])
    return pd.DataFrame([[price for price in row[1:] for _ in tickers] for row in rows()], TIMES, columns)


def test_a_frame_of_one_ticker_among_two_levels_is_a_plain_one_and_of_two_is_refused() -> None:
    assert rows_of(Bars.from_frame(a_ticker("AAPL"))) == rows()
    with pytest.raises(NeedsOperator, match="expected bars of one symbol, there are AAPL, MSFT"):
        Bars.from_frame(a_ticker("AAPL", "MSFT"))
    long = pl.concat([pl.DataFrame({"time": TIMES, **PRICES, "symbol": [name] * 6}) for name in ("B", "A")])
    with pytest.raises(NeedsOperator, match="expected bars of one symbol, there are A, B"):
        Bars.from_frame(long)
    assert rows_of(Bars.from_frame(long.filter(pl.col("symbol") == "A"))) == rows()


def test_a_symbol_is_taken_out_of_a_panel(tmp_path: Path) -> None:
    file = tmp_path / "panel.parquet"
    pl.concat(
        [pl.DataFrame({"time": TIMES, **PRICES, "symbol": [name] * 6}) for name in ("BRK.B", "AAPL")]
    ).write_parquet(file)
    assert [bars.symbol for bars in read_bars(file)] == ["AAPL-USD", "BRK_B-USD"]
    (one,) = read_bars(file, symbol="BRK_B-USD")
    assert (one.symbol, one.source, rows_of(one)) == ("BRK_B-USD", "panel.parquet BRK.B", rows())
    with pytest.raises(
        NeedsOperator, match=r"panel.parquet: there is no MSFT-USD among its symbols AAPL-USD, BRK_B-USD"
    ):
        read_bars(file, symbol="MSFT-USD")


def test_bars_can_be_given_to_the_compiled_loop_as_they_are() -> None:
    frame = pl.DataFrame({"timestamp": [int(row[0]) for row in rows()], **PRICES})
    for column in Bars.from_frame(frame).columns.all():  # another kind of array would be compiled for once more
        assert column.flags.c_contiguous and column.flags.writeable and column.flags.owndata


def test_days_of_a_zone_with_summer_time_are_days() -> None:
    index = pd.date_range("2024-03-01", "2024-04-30", freq="D", tz="America/New_York")
    frame = pd.DataFrame(dict.fromkeys(NAMES[1:], 1.0), index=index)
    bars = Bars.from_frame(frame)
    assert (bars.timeframe, bars.gaps) == ("1d", 0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"high": 102.0},
            r"row 3 \(2022-01-01 02:00\): expected low <= open, close <= high, was open=102.25 high=102.0",
        ),
        ({"high": 98.0}, r"row 3 \(2022-01-01 02:00\): expected high >= low"),
        ({"open": float("nan")}, "row 3 .*expected a finite price above 0, was open=nan"),
        ({"close": None}, "row 3 .*expected a finite price above 0, was .*close=nan"),
        ({"low": 0.0}, "row 3 .*expected a finite price above 0"),
        ({"high": float("inf")}, "row 3 .*expected a finite price above 0"),
        ({"volume": -1.0}, "row 3 .*expected a finite volume >= 0"),
        ({"timestamp": FIRST + HOUR}, "row 3 .*expected a later time than the bar before, not the same"),
        (
            {"timestamp": FIRST},
            "row 3 .*expected a later time than the bar before .2022-01-01 01:00.. Sort the file by time",
        ),
        ({"timestamp": FIRST + HOUR + 60_000}, "row 3 .*expected 1h after the bar before, was 0:01:00"),
        ({"timestamp": None}, "row 3: expected a time in timestamp, there is none"),
    ],
)
def test_a_bar_that_cannot_be_is_named_by_file_row_and_time(
    tmp_path: Path, change: dict[str, float | None], expected: str
) -> None:
    content: list[Any] = rows()
    content[2] = tuple((dict(zip(NAMES, content[2], strict=True)) | change).values())
    pq.write_table(table(content), tmp_path / "BTCUSDT_1h.parquet")
    with pytest.raises(NeedsOperator, match=r"BTCUSDT_1h\.parquet, " + expected):
        read_bars(tmp_path / "BTCUSDT_1h.parquet")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("BTCUSDT_1h.csv", b"", "the file is empty"),
        ("BTCUSDT_1h.csv", b"timestamp,open,high,low,close,volume\n", "expected bars, found none"),
        ("BTCUSDT_1h.csv", b"1,2,3,4\n", "6, 7, 8, 12 columns of bars or trades as exchanges publish them; there are 4 and no header"),
        ("BTCUSDT_1h.csv", b"timestamp,open,high,low,close\n1640995200000,1,1,1,1\n", "volume is missing"),
        ("BTCUSDT_1h.csv", b"when,open,high,low,close,volume\n1,1,1,1,1,1\n", "a column of times .timestamp, open_time"),
        ("BTCUSDT_1h.csv", b"date,open,high,low,close,volume\n2022-01-01,1,x,1,1,1\n", "row 1: expected a number in high, was 'x'"),
        ("BTCUSDT_1h.csv", b"date,open,high,low,close,volume\n2022-13-01,1,1,1,1,1\n", "row 1: date: A time must look like"),
        ("BTCUSDT_1h.csv", b"date,open,high,low,close,volume\n20220101,1,1,1,1,1\n", "row 1: .*was the number 20220101"),
        ("BTCUSDT_1h.csv", b"date,open,high,low,close,volume\n2022-01-01,1,1\n", "expected lines of 6 cells.*got 3"),
        ("BTCUSDT_1h.parquet", b"PAR1 but not really", "expected a Parquet file, could not read it"),
        ("BTCUSDT_1h.feather", b"", "expected a feather file, could not read it"),
        ("BTCUSDT_1h.zip", b"PK no", "expected a zip, could not read it"),
        ("BTCUSDT_1h.csv.gz", b"no", "expected a gzipped CSV, could not read it"),
        ("BTCUSDT_1h.xlsx", b"", "a name that ends in .parquet, .feather, .csv, .csv.gz, .zip"),
        ("prices.csv", b"", "the file is empty"),
        ("prices.csv", csv_of(rows()).encode(), "Cannot tell a symbol from the file name 'prices'.*Pass --symbol"),
    ],
)  # fmt: skip
def test_a_malformed_file_is_refused_with_what_was_expected(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(NeedsOperator, match=rf"{name}.*{expected}"):
        read_bars(tmp_path / name)


def test_what_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator, match=r"BTCUSDT_1h.csv: there is no such file"):
        read_bars(tmp_path / "BTCUSDT_1h.csv")
    with pytest.raises(NeedsOperator, match=r"expected files that end in .parquet"):
        read_bars(tmp_path)
    with pytest.raises(NeedsOperator, match=r"expected a pandas .* or polars frame, was list"):
        Bars.from_frame([1, 2, 3])


def test_a_timeframe_that_cannot_be_told_is_asked_for() -> None:
    frame = pl.DataFrame({"timestamp": [0, 1_000, 2_000], **{name: [1.0] * 3 for name in NAMES[1:]}})
    with pytest.raises(NeedsOperator, match="cannot tell the timeframe of 3 bars by their distance"):
        Bars.from_frame(frame)
    with pytest.raises(NeedsOperator, match="cannot tell the timeframe of 1 bars"):
        Bars.from_frame(frame.head(1))
    assert Bars.from_frame(frame.head(1), timeframe="1m").timeframe == "1m"


def test_a_gap_is_counted_and_not_filled(tmp_path: Path) -> None:
    content = [row for at, row in enumerate(rows(10)) if at not in (2, 5, 6)]
    (tmp_path / "BTCUSDT.csv").write_text(csv_of(content))
    (bars,) = read_bars(tmp_path / "BTCUSDT.csv")
    assert (len(bars), bars.gaps, bars.missing, bars.timeframe) == (7, 2, 3, "1h")
    assert bars.absent.tolist() == [0, 0, 1, 0, 2, 0, 0]


def test_parts_of_one_symbol_are_joined_and_symbols_are_kept_apart(tmp_path: Path) -> None:
    parts = {
        "BTCUSDT-1h-2022-02": rows(4, FIRST + 4 * HOUR),
        "BTCUSDT-1h-2022-01": rows(4),
        "ETHUSDT-1h-2022-01": rows(3),
    }
    for name, content in parts.items():
        (tmp_path / f"{name}.csv").write_text(csv_of(content))
    (tmp_path / "README.md").write_text("no bars")
    (tmp_path / "universe.toml").write_text('universe = "survivors"\n')
    btc, eth = read_bars(tmp_path)
    assert [(bars.symbol, len(bars), bars.gaps) for bars in (btc, eth)] == [("BTC-USDT", 8, 0), ("ETH-USDT", 3, 0)]
    assert btc.universe == "survivors" and btc.source == "BTCUSDT-1h-2022-01.csv .. BTCUSDT-1h-2022-02.csv (2 files)"
    assert read_bars(tmp_path, universe="point_in_time")[0].universe == "point_in_time"
    (tmp_path / "universe.toml").write_text('universe = "all"\n')
    with pytest.raises(NeedsOperator, match=r'universe.toml: expected one line like universe = "survivors"'):
        read_bars(tmp_path)


def test_files_that_say_two_things_of_one_time_are_refused(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT-1h-a.csv").write_text(csv_of(rows(4)))
    (tmp_path / "BTCUSDT-1h-b.csv").write_text(csv_of(rows(4, FIRST + 3 * HOUR)))
    with pytest.raises(
        NeedsOperator, match=r"b.csv: expected bars of BTC-USDT 1h after those of BTCUSDT-1h-a.csv, which end"
    ):
        read_bars(tmp_path)


def test_a_span_is_cut_out_and_an_empty_one_refused(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT_1h.csv").write_text(csv_of(rows()))
    (bars,) = read_bars(
        tmp_path / "BTCUSDT_1h.csv", first=parse_time("2022-01-01T01:00"), last=parse_time("2022-01-01T03:59")
    )
    assert [row[0] for row in rows_of(bars)] == [FIRST + at * HOUR for at in (1, 2, 3)]
    assert bars.sha256 == bars.columns.sha256() != read_bars(tmp_path / "BTCUSDT_1h.csv")[0].sha256
    with pytest.raises(NeedsOperator, match="there are only those from 2022-01-01 00:00 to 2022-01-01 05:00"):
        read_bars(tmp_path / "BTCUSDT_1h.csv", first=parse_time("2023-01-01"))


@given(decimals=st.integers(0, 8), whole=st.lists(st.integers(1, 10**9), min_size=1, max_size=20))
def test_the_tick_is_the_fewest_decimals_that_write_every_price(decimals: int, whole: list[int]) -> None:
    prices = [Decimal(number).scaleb(-decimals) for number in whole]
    needed = max(max(0, -int(price.normalize().as_tuple().exponent)) for price in prices)
    assert price_decimals(np.array([float(price) for price in prices])) == needed


def test_steps_are_found_or_taken_and_it_is_said_how() -> None:
    frame = pl.DataFrame({"timestamp": [int(row[0]) for row in rows()], **PRICES})
    found = Bars.from_frame(frame)
    assert (found.instrument.tick, found.instrument.lot) == (Decimal("0.01"), Decimal("1e-8"))
    assert found.notes[0] == "tick 0.01: the fewest decimals that write all prices"
    thirds = frame.with_columns(pl.col("open", "high", "low", "close") / 3)
    assert Bars.from_frame(thirds).instrument.tick == Decimal("0.00001")  # about 34: a millionth is 1e-5
    tiny = frame.with_columns((pl.col("open", "high", "low", "close") * 1e-8).round(8))
    assert (Bars.from_frame(tiny).instrument.tick, Bars.from_frame(tiny).instrument.lot) == (
        Decimal("1e-8"),
        Decimal("0.01"),
    )
    given_ = Bars.from_frame(frame, tick="0.05", lot=Decimal(1), kind="share", calendar="XNYS", symbol="AAPL-USD")
    assert (given_.instrument.tick, given_.instrument.lot, given_.notes) == (Decimal("0.05"), Decimal(1), ())


def test_trades_become_bars_and_the_unfinished_one_is_left_out(tmp_path: Path) -> None:
    trades = pl.DataFrame(
        {
            "time": [FIRST + 5, FIRST + 5, FIRST + 59_999, FIRST + 120_000, FIRST + 180_000],
            "price": [2.0, 3.0, 1.0, 5.0, 9.0],
            "qty": [1.0, 0.5, 0.25, 2.0, 1.0],
        }
    )
    trades.write_csv(tmp_path / "BTCUSDT_trades.csv")
    (bars,) = read_bars(tmp_path / "BTCUSDT_trades.csv", timeframe="1m")
    assert rows_of(bars) == [(FIRST, 2.0, 3.0, 1.0, 1.0, 1.75), (FIRST + 120_000, 5.0, 5.0, 5.0, 5.0, 2.0)]
    assert bars.gaps == 1  # a minute without a trade has no bar
    with pytest.raises(NeedsOperator, match=r"these are trades. Say of which timeframe"):
        read_bars(tmp_path / "BTCUSDT_trades.csv")
    trades.reverse().write_csv(tmp_path / "BTCUSDT_trades.csv")
    with pytest.raises(NeedsOperator, match=r"row 2 .*expected trades in the order of time"):
        read_bars(tmp_path / "BTCUSDT_trades.csv", timeframe="1m")


def test_longer_bars_are_whole_or_absent(tmp_path: Path) -> None:
    (tmp_path / "BTCUSDT_1h.csv").write_text(csv_of(rows(10, FIRST + HOUR)))
    (bars,) = read_bars(tmp_path / "BTCUSDT_1h.csv", timeframe="4h")  # 01:00 to 10:00: one whole bar, 04:00
    assert rows_of(bars) == [(FIRST + 4 * HOUR, 103.25, 108.5, 102.5, 107.25, 40.0)]
    with pytest.raises(NeedsOperator, match="bars of 1h cannot be made into bars of 30m"):
        read_bars(tmp_path / "BTCUSDT_1h.csv", timeframe="30m")


def test_a_jump_of_more_than_half_is_told_and_kept() -> None:
    frame = pl.DataFrame(
        {"timestamp": [FIRST + at * HOUR for at in range(3)], **{name: [100.0, 25.0, 25.0] for name in NAMES[1:]}}
    )
    bars = Bars.from_frame(frame)
    assert bars.notes[-1] == "moves above 50% from close to close: -75% at 2022-01-01 01:00. A split, or a wrong price?"
    assert len(bars) == 3


# -- real data -------------------------------------------------------------------------------------------------------


def test_the_three_dialects_of_one_exchange_are_told_apart(test_data: Path) -> None:
    minutes, hours, futures = sorted(read_bars(test_data / "raw_bulk"), key=lambda bars: -len(bars))
    assert (minutes.symbol, minutes.timeframe, len(minutes)) == ("BTC-USDT", "1m", 44_640)  # no header, us
    assert (minutes.first, minutes.gaps) == (parse_time("2026-05-01"), 0)
    assert minutes.columns.close[0] == 76381.58
    assert (hours.symbol, hours.timeframe, len(hours)) == ("BTC-USDT", "1h", 24)  # no header, ms
    assert (futures.symbol, futures.instrument.kind, len(futures)) == (
        "BTC-USDT-PERP",
        "perpetual",
        24,
    )  # with a header
    assert hours.first == futures.first == parse_time("2024-10-28")
    assert (hours.columns.open[0], futures.columns.open[0]) == (68021.69, 67992.70)


def test_the_minutes_of_a_bulk_file_are_those_of_the_checked_parquet(test_data: Path) -> None:
    bulk = read_bars(test_data / "raw_bulk" / "BTCUSDT-1m-2026-05.zip")[0]
    kept = read_bars(test_data / "crypto" / "spot_1m", first=parse_time("2026-05-01"))[0]
    assert bulk.sha256 == kept.sha256


def test_trades_give_the_candles_that_the_exchange_made_of_them(test_data: Path) -> None:
    for timeframe in ("1m", "5m"):
        made = read_bars(test_data / "crypto" / "trades" / "XRPETH_trades_2019-10.parquet", timeframe=timeframe)[0]
        theirs = read_bars(test_data / "crypto" / "trades" / f"XRPETH_{timeframe}_2019-10.parquet")[0]
        theirs = theirs.between(last=made.last)
        for ours, other in zip(made.columns.all()[:5], theirs.columns.all()[:5], strict=True):
            assert np.array_equal(ours, other)
        assert made.columns.volume == pytest.approx(theirs.columns.volume, rel=1e-12)


def test_five_minutes_sum_to_the_hours_of_the_exchange(test_data: Path) -> None:
    made = read_bars(test_data / "crypto" / "spot_5m" / "BTCUSDT_5m.parquet", timeframe="1h")[0]
    theirs = read_bars(test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet", first=made.first, last=made.last)[0]
    for ours, other in zip(made.columns.all()[:5], theirs.columns.all()[:5], strict=True):
        assert np.array_equal(ours, other)
    assert made.columns.volume == pytest.approx(theirs.columns.volume, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "symbol", "gaps", "missing"),  # as the data's manifest counts them
    [
        ("crypto/spot_1h/BTCUSDT_1h.parquet", "BTC-USDT", 27, 122),
        ("defects/UNITTEST_BTC_1m_2017-11_gaps.parquet", "UNITTEST-BTC", 538, 717),
        ("defects/ADABTC_5m_2018-01_gaps.parquet", "ADA-BTC", 5, 40),
        ("defects/NXTBTC_5m_2018-01_gaps.parquet", "NXT-BTC", 0, 0),
        ("equities/raw_unadjusted/spy_daily_to_2016.parquet", "SPY-USD", 0, 0),  # New York's holidays are no gaps
    ],
)
def test_real_gaps_are_counted_as_they_are_known(
    test_data: Path, name: str, symbol: str, gaps: int, missing: int
) -> None:
    (bars,) = read_bars(test_data / name)
    assert (bars.symbol, bars.gaps, bars.missing) == (symbol, gaps, missing)


def test_real_defects_are_refused_with_the_remedy(test_data: Path) -> None:
    defects = test_data / "defects"
    with pytest.raises(
        NeedsOperator, match=r"XRP_USDT-5m.feather: this is a git-LFS pointer .* Fetch it with `git lfs pull`"
    ):
        read_bars(defects / "XRP_USDT-5m.feather")
    with pytest.raises(NeedsOperator, match=r"funding_jitter.parquet: .*open is missing"):
        read_bars(defects / "BTCUSDT_funding_jitter.parquet")


def test_two_vintages_of_one_download_are_not_joined_and_a_spliced_one_is_told(test_data: Path, tmp_path: Path) -> None:
    old, new = (
        pq.read_table(test_data / "defects" / f"AAPL_daily_vintage_{vintage}.parquet")
        for vintage in ("2020-05", "2021-03")
    )
    pq.write_table(old, tmp_path / "old.parquet")
    pq.write_table(new, tmp_path / "new.parquet")
    with pytest.raises(NeedsOperator, match=r"expected bars of AAPL-USD 1d after those of"):
        read_bars(tmp_path, symbol="AAPL-USD")
    pq.write_table(old.slice(0, 3000), tmp_path / "old.parquet")
    pq.write_table(new.slice(3000), tmp_path / "new.parquet")
    (spliced,) = read_bars(tmp_path, symbol="AAPL-USD")
    assert "-75% at 2011-12-05" in spliced.notes[-1]  # the 3001st day: prices are a quarter from there on


def test_a_panel_becomes_one_series_a_share(test_data: Path) -> None:
    panel = read_bars(test_data / "equities" / "us_daily_86_2000_2016.parquet", universe="survivors")
    assert len(panel) == 86
    assert {(bars.instrument.kind, bars.instrument.calendar, bars.universe, bars.timeframe) for bars in panel} == {
        ("share", "XNYS", "survivors", "1d")
    }
    apple = panel[0]
    assert (apple.symbol, len(apple), apple.gaps) == ("AAPL-USD", 4277, 0)


def test_a_split_in_raw_prices_is_told_and_taken_out_by_the_factor_file(test_data: Path) -> None:
    folder = test_data / "equities" / "raw_unadjusted"
    raw = {bars.symbol: bars for bars in read_bars(folder)}
    adjusted = {bars.symbol: bars for bars in read_bars(folder, adjusted=True)}
    assert sorted(raw) == ["AAPL-USD", "BAC-USD", "IBM-USD", "SPY-USD"]
    assert "-85% at 2014-06-09" in raw["AAPL-USD"].notes[-1]  # seven for one
    assert "2014-06-09" not in adjusted["AAPL-USD"].notes[-1]
    assert "-52% at 2000-09-29" in adjusted["AAPL-USD"].notes[-1]  # that one was real


def test_spy_with_dividends_earned_what_another_vendor_says(test_data: Path) -> None:
    file = test_data / "equities" / "raw_unadjusted" / "spy_daily_to_2016.parquet"
    (raw,), (adjusted,) = read_bars(file), read_bars(file, adjusted=True)
    earned = adjusted.columns.close[-1] / adjusted.columns.close[0]
    # raw closes 97.36 and 223.53; the factor file has 0.6566606 on the first day and 0.9243343 on the last
    assert raw.columns.close[-1] / raw.columns.close[0] == pytest.approx(223.53 / 97.36, rel=1e-12)
    assert earned == pytest.approx(223.53 * 0.9243343 / (97.36 * 0.6566606), rel=1e-12)
    theirs = pl.read_parquet(test_data / "equities" / "spy_adjclose_1993_2016.parquet")
    theirs = theirs.filter(pl.col("timestamp").is_in(adjusted.columns.opened_at_ms.tolist()))["SPY"]
    assert len(theirs) == len(adjusted)
    assert earned == pytest.approx(theirs[-1] / theirs[0], rel=3e-3)  # 76 dividends, rounded by each vendor in its way
