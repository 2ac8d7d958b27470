"""Which instrument a series of bars is: its symbol, kind, calendar and steps, its timeframe, and which bars it lacks."""

from __future__ import annotations

import re
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.backtest_suite.adjusting import factor_file
from shared.artifacts.bar_tables import price_decimals
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.instruments import SYMBOL, Instrument, check_symbol, split_symbol, symbol_of_file
from shared.contracts.times import MILLISECOND, TIMEFRAMES, timeframe_length, timeframe_ms, to_ms
from shared.trading.calendars import EARLY_SESSION, bars_a_session, closed_weekdays, early_closes, session
from shared.trading.columns import Columns, Integers

Kind = Literal["spot", "perpetual", "share"]
Calendar = Literal["24x7", "XNYS"]

DAY_MS = 86_400_000
EPOCH_DAY = date(1970, 1, 1)
Dates = NDArray[np.datetime64]
LEAST_WEEKEND_DAYS = 14  # of a span in which no bar on a weekend means that there is none to be had
PERPETUAL = r"(?<![a-z])(futures|swap|perp)(?![a-z])"  # in a file's name


def panel_symbols(names: list[str], source: str) -> dict[str, str]:
    """Ours -> a panel's own names: pairs when all of them end in a known quote, else tickers of shares in USD."""
    try:
        return {symbol_of_file(name): name for name in names}
    except BadMessage:
        pass
    try:
        return {_share(name): name for name in names}
    except BadMessage as error:
        raise NeedsOperator(f"{source}: {error}") from error


def _share(ticker: str) -> str:
    """`BRK.B` -> `BRK_B-USD`."""
    return check_symbol(ticker.upper().replace(".", "_").replace("-", "_") + "-USD")


def symbol_of(file: Path, symbol: str) -> str:
    """As given, else the share whose factor file lies beside, else by the name's known quotes."""
    try:
        if symbol:
            return check_symbol(symbol)
        if told := archived(file):
            return told[0]
        if (factors := factor_file(file)).is_file():
            return _share(factors.name.removesuffix("_factor_files.csv"))
        named = symbol_of_file(file.stem)
        return f"{named}-PERP" if re.search(PERPETUAL, file.stem.lower()) else named
    except BadMessage as error:
        raise NeedsOperator(f"{file.name}: {error}") from error


def archived(file: Path) -> tuple[str, str] | None:
    """Symbol and timeframe of a part that an ingester keeps: `bars/sim/BTC-USDT/1m/1700000000000-4096-0123456789ab.parquet`."""
    symbol, timeframe = file.parent.parent.name, file.parent.name
    is_part = timeframe in TIMEFRAMES and re.fullmatch(r"\d+-\d+-[0-9a-f]{12}", file.stem)
    return (symbol, timeframe) if is_part and SYMBOL.fullmatch(symbol) else None


def own_timeframe(columns: Columns, said: str, source: str) -> str:
    """Of a file whose name does not tell: by its bars; what was said where the bars are too few to tell."""
    return said if said and len(columns) < 3 else spacing(columns.opened_at_ms, source)


def spacing(times: Integers, source: str) -> str:
    """The timeframe by the most frequent distance of two bars."""
    distances, counts = np.unique(np.diff(times), return_counts=True)
    if len(distances):
        most = int(distances[np.argmax(counts)])
        for timeframe, length in TIMEFRAMES.items():
            if most == length // MILLISECOND:
                return timeframe
    raise NeedsOperator(
        f"{source}: cannot tell the timeframe of {len(times)} bars by their distance. Say it: one of "
        f"{', '.join(TIMEFRAMES)}."
    )


def kind_of(symbol: str, columns: Columns, kind: Kind | None) -> tuple[Kind, Calendar]:
    """What kind of instrument this is, and when it trades."""
    if kind is None:
        days = columns.opened_at_ms // DAY_MS
        weekdays = (days + 3) % 7  # 1970-01-01 was a Thursday
        rests = int(days[-1] - days[0]) >= LEAST_WEEKEND_DAYS and bool((weekdays < 5).all())
        is_share = symbol.endswith("-USD") and rests
        kind = "share" if is_share else "perpetual" if symbol.endswith("-PERP") else "spot"
    return kind, "XNYS" if kind == "share" else "24x7"


def instrument_of(
    symbol: str,
    columns: Columns,
    kind: Kind,
    calendar: Calendar,
    tick: Decimal | str | None,
    lot: Decimal | str | None,
) -> tuple[Instrument, list[str]]:
    """The instrument, and how its steps were found.

    The tick is the fewest decimals that write all prices; prices without such (adjusted ones) are counted in about a
    millionth of their median. The lot is as fine as leaves ledger units of 1e-10, at most 1e-8.
    """
    notes: list[str] = []
    if tick is None:
        decimals = price_decimals(columns.open, columns.high, columns.low, columns.close)
        if decimals is None:
            tick = Decimal(1).scaleb(int(np.floor(np.log10(np.median(columns.close)))) - 6)
            notes.append(f"tick {tick:f}: about a millionth of the price, since eight decimals do not write all prices")
        else:
            tick = Decimal(1).scaleb(-decimals)
            notes.append(f"tick {tick:f}: the fewest decimals that write all prices")
    tick = Decimal(tick)
    if lot is None:
        lot = Decimal(1).scaleb(-min(8, max(0, 10 + tick.adjusted())))
        notes.append(f"lot {lot:f}: fractions, as fine as the ledger counts")
    base, quote = split_symbol(symbol) if "-" in symbol else (symbol, "")
    return (
        Instrument(symbol=symbol, base=base, quote=quote, kind=kind, tick=tick, lot=Decimal(lot), calendar=calendar),
        notes,
    )


def absent_bars(times: Integers, timeframe: str, calendar: str) -> Integers:
    """How many bars are missing before each (n,), by the instrument's calendar."""
    length = timeframe_ms(timeframe)
    if calendar == "24x7":
        apart = np.rint(np.diff(times, prepend=times[0] - length) / length)
        return np.maximum(apart.astype(np.int64) - 1, 0)
    days = (times // DAY_MS).astype("datetime64[D]")
    sessions, bars = _sessions(days, timeframe_length(timeframe))
    known = np.concatenate([[0], np.cumsum(bars)])  # bars before each session
    place = np.searchsorted(sessions, days)
    is_new = days[1:] != days[:-1]
    after = np.minimum(place[:-1] + (sessions[np.minimum(place[:-1], len(sessions) - 1)] == days[:-1]), place[1:])
    skipped = np.where(is_new, known[place[1:]] - known[after], 0)
    within = np.where(is_new, 0, np.diff(times) // length - 1)
    return np.concatenate([np.zeros(1, np.int64), np.maximum(skipped, 0) + np.maximum(within, 0)])


def session_times(times: Integers, timeframe: str) -> tuple[Integers, Integers]:
    """When the bars of shares that opened at these times really open and close (ms), both (n,): by New York's calendar.

    A day's bar is named by its date. The last bar of a session is cut off by its close.
    """
    length = timeframe_ms(timeframe)
    days, place = np.unique(times // DAY_MS, return_inverse=True)
    told = [session(EPOCH_DAY + timedelta(days=int(day))) for day in days]
    opens, closes = (np.array([to_ms(each) for each in edge], np.int64)[place] for edge in zip(*told, strict=True))
    return (opens, closes) if length >= DAY_MS else (times, np.minimum(times + length, np.maximum(closes, times)))


def _sessions(days: Dates, length: timedelta) -> tuple[Dates, Integers]:
    """New York's sessions of the years of these days, and how many bars of this length each has."""
    years = range(days[0].item().year, days[-1].item().year + 1)
    every = np.arange(f"{years.start}-01-01", f"{years.stop}-01-01", dtype="datetime64[D]")
    closed = np.array([day for year in years for day in closed_weekdays(year)], "datetime64[D]")
    early = np.array([day for year in years for day in early_closes(year)], "datetime64[D]")
    sessions = every[np.is_busday(every, holidays=closed)]
    whole, half = bars_a_session(length), bars_a_session(length, EARLY_SESSION)
    return sessions, np.where(np.isin(sessions, early), half, whole)
