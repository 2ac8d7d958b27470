"""Recorded bars: read exactly, gaps kept, and a file that is wrong is refused with the row and the reason."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from services.venue_sim.recorded import RecordedSeries, read_series
from shared.contracts.errors import NeedsOperator

HOUR = 3_600_000
FIRST = 1_640_995_200_000  # 2022-01-01 00:00 UTC
COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
Row = tuple[float, ...]


def rows(count: int = 4) -> list[Row]:
    return [(FIRST + at * HOUR, 100.0 + at, 102.5 + at, 99.5 + at, 101.25 + at, 10.0) for at in range(count)]


def write_csv(path: Path, content: list[Row]) -> Path:
    lines = [
        ",".join(COLUMNS),
        *(",".join(f"{value:.10g}" if at else f"{int(value)}" for at, value in enumerate(row)) for row in content),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def table(content: list[Row]) -> pa.Table:
    return pa.table({name: [row[at] for row in content] for at, name in enumerate(COLUMNS)})


def write_parquet(path: Path, content: list[Row]) -> Path:
    pq.write_table(table(content), path)
    return path


def write_feather(path: Path, content: list[Row]) -> Path:
    feather.write_feather(table(content), path)
    return path


def candles(series: RecordedSeries) -> list[Row]:
    return [tuple(bar) for at in range(len(series)) if (bar := series.candle(at)) is not None]


@pytest.mark.parametrize(
    ("name", "write"),
    [("BTCUSDT_1h.csv", write_csv), ("BTCUSDT_1h.parquet", write_parquet), ("BTCUSDT_1h.feather", write_feather)],
)
def test_the_three_formats_give_the_same_bars(
    tmp_path: Path, name: str, write: Callable[[Path, list[Row]], Path]
) -> None:
    series = read_series(write(tmp_path / name, rows()))
    assert (series.instrument.symbol, series.timeframe) == ("BTC-USDT", "1h")
    assert candles(series) == rows()
    assert series.candle(4) is None


def test_times_in_a_csv_may_be_iso_or_microseconds(tmp_path: Path) -> None:
    iso, micro = tmp_path / "BTCUSDT_1h.csv", tmp_path / "ETHUSDT_1h.csv"
    iso.write_text(
        "timestamp,open,high,low,close,volume\n2022-01-01T00:00:00Z,1,2,0.5,1.5,3\n2022-01-01 01:00,1.5,2,1,1,0\n"
    )
    micro.write_text(f"timestamp,open,high,low,close,volume\n{FIRST * 1000},1,2,0.5,1.5,3\n")
    assert [row[0] for row in candles(read_series(iso))] == [FIRST, FIRST + HOUR]
    assert [row[0] for row in candles(read_series(micro))] == [FIRST]


def test_an_arrow_timestamp_is_a_time_too(tmp_path: Path) -> None:
    content = table(rows())
    content = content.set_column(0, "timestamp", content.column(0).cast(pa.int64()).cast(pa.timestamp("ms", tz="UTC")))
    pq.write_table(content, tmp_path / "BTCUSDT_1h.parquet")
    assert candles(read_series(tmp_path / "BTCUSDT_1h.parquet")) == rows()


def test_the_timeframe_is_told_by_the_spacing_where_the_name_says_nothing(tmp_path: Path) -> None:
    content = [row for at, row in enumerate(rows(6)) if at != 2]  # a gap must not hide it
    assert read_series(write_csv(tmp_path / "BTC-USDT.csv", content)).timeframe == "1h"


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ((FIRST + 2 * HOUR, 103.0, 101.0, 102.0, 103.0, 1.0), "row 3 .2022-01-01 02:00.: expected high >= low"),
        ((FIRST + 2 * HOUR, 103.0, 104.0, 102.0, 105.0, 1.0), "row 3 .*expected low <= open, close <= high"),
        ((FIRST + 2 * HOUR, float("nan"), 104.0, 102.0, 103.0, 1.0), "row 3 .*expected a finite price above 0"),
        ((FIRST + 2 * HOUR, 103.0, 104.0, 0.0, 103.0, 1.0), "row 3 .*expected a finite price above 0"),
        ((FIRST + 2 * HOUR, 103.0, 104.0, 102.0, 103.0, -1.0), "row 3 .*expected a finite volume >= 0"),
        ((FIRST + HOUR, 103.0, 104.0, 102.0, 103.0, 1.0), "row 3 .*a later time than the bar before, not the same"),
        ((FIRST, 103.0, 104.0, 102.0, 103.0, 1.0), "row 3 .*a later time than the bar before"),
        ((FIRST + 2 * HOUR + 7, 103.0, 104.0, 102.0, 103.0, 1.0), "row 3 .*times on the grid of 3600 s"),
    ],
)
def test_a_row_that_no_exchange_can_have_said_is_named(tmp_path: Path, row: Row, expected: str) -> None:
    content = rows()
    content[2] = row
    for path in (
        write_csv(tmp_path / "BTCUSDT_1h.csv", content),
        write_parquet(tmp_path / "BTCUSDT_1h.parquet", content),
    ):
        with pytest.raises(NeedsOperator, match=expected):
            read_series(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("BTCUSDT_1h.csv", "timestamp,open,high,low,close\n1,1,1,1,1\n", "volume is missing"),
        ("BTCUSDT_1h.csv", "timestamp,open,high,low,close,volume\n1640995200000,1,2,0.5,x,3\n", "row 1: expected"),
        ("BTCUSDT_1h.csv", "timestamp,open,high,low,close,volume\n1640995200000,1,2\n", "expected lines of 6 cells"),
        ("BTCUSDT_1h.csv", "timestamp,open,high,low,close,volume\n", "expected bars, found none"),
        ("BTCUSDT_1h.csv", "", "the file is empty"),
        ("BTCUSDT_1h.parquet", "not parquet at all", "expected a Parquet file"),
        ("BTCUSDT_1h.feather", "not feather at all", "expected a feather file"),
        ("BTCUSDT_1h.xlsx", "", "ends in .parquet, .feather, .csv, .csv.gz, .zip"),
        ("prices.csv", "", "Cannot tell a symbol from the file name 'prices'"),
    ],
)
def test_a_malformed_file_is_refused_with_what_was_expected(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(NeedsOperator, match=expected):
        read_series(path)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(NeedsOperator, match="there is no such file"):
        read_series(tmp_path / "BTCUSDT_1h.csv")


def test_a_pointer_file_under_a_data_file_name_is_recognised(test_data: Path) -> None:
    with pytest.raises(NeedsOperator, match="git-LFS pointer"):
        read_series(test_data / "defects" / "XRP_USDT-5m.feather")


def test_real_outages_stay_gaps(test_data: Path) -> None:
    series = read_series(test_data / "crypto" / "spot_1h" / "BTCUSDT_1h.parquet")
    times = [bar.opened_at for at in range(len(series)) if (bar := series.candle(at)) is not None]
    assert len(times) == 65_590
    assert (times[-1] - times[0]) // HOUR + 1 - len(times) == 122  # hours that never existed, by the data's manifest
    assert str(series.instrument.tick) == "0.01" and str(series.instrument.lot) == "0.00001"
