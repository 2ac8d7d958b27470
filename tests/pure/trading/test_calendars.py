"""The days on which New York traded, as its rules say them and as the real bars have them."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from shared.trading.calendars import bars_a_session, closed_weekdays, easter_sunday, mean_sessions
from shared.trading.performance import periods_per_year


@pytest.mark.parametrize("name", ["sp500_index_1990_2016", "factor_etfs_2014_2022", "raw_unadjusted/spy_daily_to_2016"])
def test_the_sessions_of_the_rules_are_those_of_the_real_bars(test_data: Path, name: str) -> None:
    times = pq.read_table(test_data / "equities" / f"{name}.parquet", columns=["timestamp"])["timestamp"].to_numpy()
    traded = times.astype("datetime64[ms]").astype("datetime64[D]")
    first, last = traded[0].astype(object), traded[-1].astype(object)
    closed = [day for year in range(first.year, last.year + 1) for day in closed_weekdays(year)]
    days = np.arange(first, last + timedelta(days=1), dtype="datetime64[D]")
    assert np.array_equal(traded, days[np.is_busday(days, holidays=np.array(closed, "datetime64[D]"))])


def test_holidays_that_people_know() -> None:
    # from the exchange's published calendars
    assert easter_sunday(2024) == date(2024, 3, 31) and easter_sunday(2025) == date(2025, 4, 20)
    assert [f"{day:%m-%d}" for day in closed_weekdays(2023)] == [
        *("01-02", "01-16", "02-20", "04-07", "05-29", "06-19", "07-04", "09-04", "11-23", "12-25")
    ]
    assert date(2021, 12, 31) not in closed_weekdays(2021)  # New Year 2022 fell on a Saturday: nothing is made up for


def test_a_year_has_the_sessions_that_were_counted_and_not_a_number_from_a_book() -> None:
    # 28 years of 2000-2027: 7305 weekdays less 264 closed ones = 7041 sessions, 251.46 a year
    assert mean_sessions() == 7041 / 28
    assert periods_per_year("1d", "XNYS") == mean_sessions()
    assert bars_a_session(timedelta(hours=1)) == 7  # 9:30 to 16:00, the last one is half
    assert periods_per_year("1h", "XNYS") == 7 * mean_sessions()
    assert periods_per_year("1m", "XNYS") == 390 * mean_sessions()
    assert periods_per_year("1h", "24x7") == pytest.approx(365.2425 * 24)
