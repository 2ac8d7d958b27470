"""Which instrument a series of bars is: its symbol, kind, calendar and steps, its timeframe, and which bars it lacks."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path
from typing import Literal

import numpy as np

from services.backtest_suite.adjusting import factor_file
from shared.artifacts.bar_tables import price_decimals
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.instruments import Instrument, check_symbol, split_symbol, symbol_of_file
from shared.contracts.times import MILLISECOND, TIMEFRAMES, from_ms, timeframe_length, timeframe_ms
from shared.trading.calendars import bars_a_session, closed_weekdays
from shared.trading.columns import Columns, Integers

Kind = Literal["spot", "perpetual", "share"]
Calendar = Literal["24x7", "XNYS"]

DAY_MS = 86_400_000
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
        if (factors := factor_file(file)).is_file():
            return _share(factors.name.removesuffix("_factor_files.csv"))
        named = symbol_of_file(file.stem)
        return f"{named}-PERP" if re.search(PERPETUAL, file.stem.lower()) else named
    except BadMessage as error:
        raise NeedsOperator(f"{file.name}: {error}") from error


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
    length = timeframe_ms(timeframe)
    if calendar == "24x7":
        apart = np.rint(np.diff(times, prepend=times[0] - length) / length)
        return np.maximum(apart.astype(np.int64) - 1, 0)
    a_session = bars_a_session(timeframe_length(timeframe))
    days = (times // DAY_MS).astype("datetime64[D]")
    years = range(from_ms(int(times[0])).year, from_ms(int(times[-1])).year + 1)
    holidays = np.array([day for year in years for day in closed_weekdays(year)], "datetime64[D]")
    skipped = np.busday_count(days[:-1] + 1, days[1:], holidays=holidays) * a_session
    within = np.where(days[1:] == days[:-1], np.diff(times) // length - 1, 0)
    return np.concatenate([np.zeros(1, np.int64), np.maximum(skipped, 0) + np.maximum(within, 0)])
