"""When markets trade: around the clock, or in the sessions of the New York Stock Exchange. Pure.

Source of the holidays and early closes: https://www.nyse.com/markets/hours-calendars, and of the special ones the
exchange's own notices.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import cache

MONDAY, TUESDAY, WEDNESDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = range(7)
MARTIN_LUTHER_KING_SINCE, JUNETEENTH_SINCE = 1998, 2022
OPENS, CLOSES, CLOSES_EARLY = time(9, 30), time(16), time(13)  # in New York
SESSION = timedelta(hours=6, minutes=30)
EARLY_SESSION = timedelta(hours=3, minutes=30)
EARLY_CLOSES_SINCE, JULY_THIRD_SINCE, WEDNESDAY_THE_THIRD_SINCE = 1993, 1995, 2013
SPECIAL_EARLY_CLOSES = frozenset({date(1997, 12, 26), date(1999, 12, 31), date(2003, 12, 26)})
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


@cache
def early_closes(year: int) -> tuple[date, ...]:
    """The days on which New York closes at one o'clock, in order. Right since 1993."""
    third, fifth, eve = date(year, 7, 3), date(year, 7, 5), date(year, 12, 24)
    days = [day for day in SPECIAL_EARLY_CLOSES if day.year == year]
    if year >= EARLY_CLOSES_SINCE:
        days.append(_nth(year, 11, THURSDAY, 4) + timedelta(days=1))
        if eve.weekday() <= THURSDAY:  # before a Christmas on a Saturday it is the holiday itself
            days.append(eve)
    if year >= JULY_THIRD_SINCE:
        if third.weekday() in (MONDAY, TUESDAY, THURSDAY):
            days.append(third)
        elif third.weekday() == WEDNESDAY:  # before a fourth on a Thursday it was the Friday after it, until 2012
            days.append(third if year >= WEDNESDAY_THE_THIRD_SINCE else fifth)
    return tuple(sorted(days))


def session(day: date) -> tuple[datetime, datetime]:
    """When New York opens and closes on this day, which must be one of its sessions (UTC)."""
    closes = CLOSES_EARLY if day in early_closes(day.year) else CLOSES
    behind = timedelta(hours=4 if _is_summer(day) else 5)
    opened, closed = (datetime.combine(day, at, UTC) + behind for at in (OPENS, closes))
    return opened, closed


def bars_a_session(length: timedelta, session: timedelta = SESSION) -> int:
    """Bars of this length in a session; the last one may be shorter. One for days and longer."""
    return max(1, -(-session // length))


@cache
def mean_bars(length: timedelta) -> float:
    """Bars of this length that New York has in a mean year: those of 2000 to 2027, counted."""
    fewer = bars_a_session(length) - bars_a_session(length, EARLY_SESSION)
    early = sum(len(early_closes(year)) for year in MEAN_YEARS) / len(MEAN_YEARS)
    return mean_sessions() * bars_a_session(length) - early * fewer


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


def _is_summer(day: date) -> bool:
    """Whether New York's clocks are ahead. Right since 1987: https://www.law.cornell.edu/uscode/text/15/260a."""
    if day.year >= 2007:
        return _nth(day.year, 3, SUNDAY, 2) <= day < _nth(day.year, 11, SUNDAY, 1)
    return _nth(day.year, 4, SUNDAY, 1) <= day < _nth(day.year, 11, SUNDAY, 1) - timedelta(days=7)


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _observed(day: date) -> date:
    """A holiday on a weekend is kept on the weekday beside it."""
    shift = {SATURDAY: -1, SUNDAY: 1}.get(day.weekday(), 0)
    return day + timedelta(days=shift)
