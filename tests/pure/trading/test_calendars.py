"""The days on which New York traded, as its rules say them and as the real bars have them."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from shared.trading.calendars import (
    bars_a_session,
    closed_weekdays,
    early_closes,
    easter_sunday,
    mean_sessions,
    session,
)
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
    # 61 of them end at 13:00: 28 Fridays after Thanksgiving, 16 Christmas Eves, 12 third and 1 fifth of July as it was
    # until 2012, 3 third of July on a Wednesday since, and 2003-12-26. Such a session has 4 bars of an hour.
    assert sum(len(early_closes(year)) for year in range(2000, 2028)) == 61
    assert periods_per_year("1h", "XNYS") == pytest.approx((7 * 7041 - 3 * 61) / 28)
    assert periods_per_year("1m", "XNYS") == pytest.approx((390 * 7041 - 180 * 61) / 28)
    assert periods_per_year("1h", "24x7") == pytest.approx(365.2425 * 24)


def test_early_closes_that_people_know() -> None:
    # from the exchange's published calendars
    assert early_closes(2023) == (date(2023, 7, 3), date(2023, 11, 24))
    assert early_closes(2024) == (date(2024, 7, 3), date(2024, 11, 29), date(2024, 12, 24))
    assert early_closes(2002) == (date(2002, 7, 5), date(2002, 11, 29), date(2002, 12, 24))
    assert early_closes(2021) == (date(2021, 11, 26),)  # Christmas was on a Saturday: the Eve was the holiday
    for year in range(1993, 2028):
        assert not set(early_closes(year)) & set(closed_weekdays(year))
        assert all(day.weekday() < 5 for day in early_closes(year))


def test_early_closes_are_days_of_little_trading_in_the_real_bars(test_data: Path) -> None:
    table = pq.read_table(test_data / "equities" / "us_daily_86_2000_2016.parquet")
    names = table.column_names
    times = (
        table["timestamp" if "timestamp" in names else "date"]
        .to_numpy()
        .astype("datetime64[ms]")
        .astype("datetime64[D]")
    )
    days, place = np.unique(times, return_inverse=True)
    volume = np.bincount(place, np.nan_to_num(table["volume"].to_numpy().astype(float)))
    early = [i for i, day in enumerate(days.tolist()) if day in early_closes(day.year)]
    assert len(early) > 35
    shares = [volume[i] / np.median(volume[max(0, i - 10) : i + 11]) for i in early]
    assert np.mean(np.array(shares) < 0.7) > 0.9


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        (date(2024, 1, 2), "14:30", "21:00"),  # winter
        (date(2024, 3, 11), "13:30", "20:00"),  # the Monday after the clocks were put forward
        (date(2024, 11, 4), "14:30", "21:00"),  # and back
        (date(2024, 7, 3), "13:30", "17:00"),  # ends early
        (date(2006, 4, 3), "13:30", "20:00"),  # before 2007: from the first Sunday of April
        (date(2006, 10, 30), "14:30", "21:00"),  # to the last of October
    ],
)
def test_a_session_opens_and_closes_by_new_yorks_clock(day: date, opens: str, closes: str) -> None:
    opened, closed = session(day)
    assert (f"{opened:%H:%M}", f"{closed:%H:%M}") == (opens, closes)
    assert (opened.date(), closed.date()) == (day, day)
