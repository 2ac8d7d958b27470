"""When markets trade: around the clock, or in the sessions of the New York Stock Exchange. Days only, and pure.

Source of the holidays: https://www.nyse.com/markets/hours-calendars, and of the special closures the exchange's own
notices. Sessions that end early count as whole ones: about three a year do.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import cache

MONDAY, THURSDAY, SATURDAY, SUNDAY = 0, 3, 5, 6
MARTIN_LUTHER_KING_SINCE, JUNETEENTH_SINCE = 1998, 2022
SESSION = timedelta(hours=6, minutes=30)  # 9:30 to 16:00 in New York
SPECIAL_CLOSURES = frozenset(
    {
        date(1994, 4, 27),  # President Nixon's funeral
        *(date(2001, 9, day) for day in (11, 12, 13, 14)),  # the attacks
        date(2004, 6, 11),  # President Reagan's funeral
        date(2007, 1, 2),  # President Ford's
        date(2012, 10, 29),  # the storm Sandy
        date(2012, 10, 30),
        date(2018, 12, 5),  # President G. H. W. Bush's funeral
        date(2025, 1, 9),  # President Carter's
    }
)
# 28 years, in which each date falls on each weekday four times.
MEAN_YEARS = range(2000, 2028)


@cache
def closed_weekdays(year: int) -> tuple[date, ...]:
    """The days of Monday to Friday on which New York does not trade, in order. Right since 1990."""
    days = [
        _nth(year, 2, MONDAY, 3),  # Washington's birthday
        easter_sunday(year) - timedelta(days=2),
        _nth(year, 6, MONDAY, 1) - timedelta(days=7),  # Memorial Day: the last Monday of May
        _observed(date(year, 7, 4)),
        _nth(year, 9, MONDAY, 1),  # Labor Day
        _nth(year, 11, THURSDAY, 4),  # Thanksgiving
        _observed(date(year, 12, 25)),
        *(day for day in SPECIAL_CLOSURES if day.year == year),
    ]
    new_year = date(year, 1, 1)
    if new_year.weekday() != SATURDAY:  # on a Saturday it is not made up for: the Friday closes the year's books
        days.append(_observed(new_year))
    if year >= MARTIN_LUTHER_KING_SINCE:
        days.append(_nth(year, 1, MONDAY, 3))
    if year >= JUNETEENTH_SINCE:
        days.append(_observed(date(year, 6, 19)))
    return tuple(sorted(set(days)))


@cache
def mean_sessions() -> float:
    """Sessions that New York has in a mean year: those of 2000 to 2027, counted."""
    days = (date(MEAN_YEARS.stop, 1, 1) - date(MEAN_YEARS.start, 1, 1)).days
    weekdays = days * 5 / 7  # 28 years are whole weeks
    return (weekdays - sum(len(closed_weekdays(year)) for year in MEAN_YEARS)) / len(MEAN_YEARS)


def bars_a_session(length: timedelta) -> int:
    """Bars of this length in a session; the last one may be shorter. One for days and longer."""
    return max(1, -(-SESSION // length))


def easter_sunday(year: int) -> date:
    """Of the Gregorian calendar. Source: J. M. Oudin's algorithm, U.S. Naval Observatory, "The Date of Easter"."""
    century = year // 100
    golden = year % 19
    k = (century - 17) // 25
    i = (century - century // 4 - (century - k) // 3 + 19 * golden + 15) % 30
    i -= (i // 28) * (1 - (i // 28) * (29 // (i + 1)) * ((21 - golden) // 11))
    j = (year + year // 4 + i + 2 - century + century // 4) % 7
    month = 3 + (i - j + 40) // 44
    return date(year, month, i - j + 28 - 31 * (month // 4))


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _observed(day: date) -> date:
    """A holiday on a weekend is kept on the weekday beside it."""
    shift = {SATURDAY: -1, SUNDAY: 1}.get(day.weekday(), 0)
    return day + timedelta(days=shift)
