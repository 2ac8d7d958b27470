"""Tables of bars: what vendors and frames call their columns made into ours, and what is wrong with a row said.

Nothing is mended and nothing is filled in. Files are decoded next door, in bar_files.py.
"""

# pyright: standard, reportMissingImports=false
# pyarrow carries no types: what it returns is checked where it becomes columns.

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.times import from_ms, parse_time, to_ms
from shared.trading.columns import Columns, Floats, Integers, fault, told

if TYPE_CHECKING:
    import pyarrow as pa

NAMES = ("timestamp", "open", "high", "low", "close", "volume")  # our own files: ms since 1970 UTC, then float64
TIME_NAMES = (
    *("timestamp", "open_time", "datetime", "date", "time", "transact_time"),
    "__index_level_0__",  # a nameless index
)
# A number is a time in s, ms, us or ns by its size: ms of 1973 to 5138 lie between these, and the others beside them.
SECONDS_BELOW, MS_BELOW, US_BELOW = 10**11, 10**14, 10**17
DAYS_AS_NUMBERS = (19_000_000, 23_000_000)  # 20240131 is a date to people, and a second of August 1970 to us
NO_CLOSES = {"symbol", "price", "open", "high", "low", "funding_rate", "last_funding_rate"}  # a column of other tables
REMEDY_FOR_TIMES = "Sort the file by time and keep one row for each."
MOST_DECIMALS = 8  # of a price: what exchanges quote


def table_of(frame: Any, source: str) -> pa.Table:
    """The table that a pandas or polars frame (anything that exports Arrow) holds, its index included."""
    import pyarrow as pa

    if not hasattr(frame, "__arrow_c_stream__"):
        raise NeedsOperator(f"{source}: expected a pandas (>= 2.2) or polars frame, was {type(frame).__name__}.")
    try:
        return _single(lower_names(pa.table(frame)), source)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise NeedsOperator(f"{source}: expected a frame of times and numbers, could not read it: {error}") from error


def bars_of(table: pa.Table, source: str) -> Columns:
    """The bars of a table, checked. Raises NeedsOperator that names the file, the row (the first of bars is 1) and why."""
    times = times_of(table, source)
    open, high, low, close, volume = (numbers_of(table, name, source) for name in NAMES[1:])
    return checked(Columns(times, open, high, low, close, volume), source)


def symbols_in(table: pa.Table, source: str) -> list[str]:
    """What the column `symbol` of a long table names, in order."""
    import pyarrow as pa

    column = table.column("symbol")
    if column.null_count:
        raise NeedsOperator(f"{source}: expected a symbol in every row, {column.null_count} have none.")
    return sorted(column.cast(pa.string()).unique().to_pylist())


def closes_in(table: pa.Table) -> list[str]:
    """The columns of a wide table that knows closes alone, one for each instrument; none when it is another table."""
    names = [name for name in table.column_names if name not in TIME_NAMES]
    return [] if NO_CLOSES & set(names) else [name for name in names if name != "volume"]


def bars_of_closes(table: pa.Table, name: str, source: str) -> Columns:
    """Bars of one column of closes: all four prices are it, the volume is 0, and where there is none there is no bar."""
    import pyarrow as pa

    at = table.column_names.index(name)
    if pa.types.is_string(table.column(at).type):  # an empty cell of a CSV
        cells = [cell or None for cell in table.column(at).to_pylist()]
        table = table.set_column(at, name, pa.array(cells, pa.string()))
    price = numbers_of(table, name, source)
    there = ~np.isnan(price)
    price = price[there]
    return checked(
        Columns(times_of(table, source)[there], price, price.copy(), price.copy(), price.copy(), np.zeros(len(price))),
        source,
    )


def rows_of(table: pa.Table, symbol: str) -> pa.Table:
    """The rows of a long table that are about this symbol, in their order."""
    import pyarrow as pa

    names = table.column("symbol").cast(pa.string()).combine_chunks().dictionary_encode()
    return table.take(np.flatnonzero(names.indices.to_numpy() == names.dictionary.index(symbol).as_py()))


def checked(bars: Columns, source: str) -> Columns:
    """The same bars when there are any and each is one, else NeedsOperator that names the row and what was expected."""
    if not len(bars):
        raise NeedsOperator(f"{source}: expected bars, found none.")
    if found := fault(bars):
        i, expected = found
        where = f"{source}, {place(bars.opened_at_ms, i)}"
        if "time" in expected:
            before = from_ms(int(bars.opened_at_ms[i - 1]))
            raise NeedsOperator(f"{where}: expected {expected} ({before:%Y-%m-%d %H:%M}). {REMEDY_FOR_TIMES}")
        raise NeedsOperator(f"{where}: expected {expected}, was {told(bars, i)}.")
    return bars


def place(times: Integers, i: int) -> str:
    """`row 3 (2022-01-01 02:00)`: where a person finds it; the first row of data is 1."""
    return f"row {i + 1} ({from_ms(int(times[i])):%Y-%m-%d %H:%M})"


def times_of(table: pa.Table, source: str) -> Integers:
    """When each row was, ms since 1970 UTC (n,). Takes Arrow's times, ISO texts, and numbers of s, ms, us or ns."""
    import pyarrow as pa

    name = next((name for name in TIME_NAMES if name in table.column_names), None)
    if name is None:
        raise NeedsOperator(
            f"{source}: expected a column of times ({', '.join(TIME_NAMES[:-1])}), there are {', '.join(table.column_names)}."
        )
    column = table.column(name).combine_chunks()
    kind = column.type
    if column.null_count:
        raise NeedsOperator(f"{source}, row {_first_null(column)}: expected a time in {name}, there is none.")
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        in_ms = pa.timestamp("ms", tz=getattr(kind, "tz", None))
        return _owned(column.cast(in_ms, safe=False).cast(pa.int64()), np.int64)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        texts: list[str] = column.to_pylist()
        if not texts or not is_number(texts[0]):
            return _parsed(texts, name, source)
    return _milliseconds(_whole(column, numbers_of(table, name, source), name, source), name, source)


def numbers_of(table: pa.Table, name: str, source: str) -> Floats:
    """A column of numbers (n,), NaN where there is none. Raises NeedsOperator when it is not there or one is no number."""
    import pyarrow as pa

    if name not in table.column_names:
        raise NeedsOperator(f"{source}: expected the columns {', '.join(NAMES)}; {name} is missing.")
    column = table.column(name).combine_chunks()
    try:
        return _owned(column.cast(pa.float64(), safe=False), np.float64)
    except pa.ArrowException as error:
        row = next((i for i, value in enumerate(column.to_pylist(), 1) if not is_number(value)), 0)
        raise NeedsOperator(
            f"{source}, row {row}: expected a number in {name}, was {column[row - 1].as_py()!r}."
        ) from error


def price_decimals(*prices: Floats) -> int | None:
    """The fewest decimals, at most eight, that write every price; None when there are no such.

    A price has d decimals when the integer nearest to price x 10^d, divided by 10^d, gives it back. The division is
    rounded once, so a price parsed from d decimals passes to the last bit; four units in the last place are let pass,
    for files whose writer multiplied. Only while the integer is below 2^50, where this can still fail.
    """
    for decimals in range(MOST_DECIMALS + 1):
        scale = 10.0**decimals
        if all(
            bool((np.abs(np.rint(column * scale) / scale - column) <= 4 * np.spacing(column)).all())
            and bool((column * scale < 2.0**50).all())
            for column in prices
        ):
            return decimals
    return None


def lower_names(table: pa.Table) -> pa.Table:
    """The table with names as we write them: `Adj Close` is adj_close."""
    return table.rename_columns([str(name).strip().lower().replace(" ", "_") for name in table.column_names])


def _whole(column: Any, numbers: Floats, name: str, source: str) -> Integers:
    """Stamps as integers. ns do not fit a double, so only what is written with a fraction goes through one."""
    import pyarrow as pa

    try:
        return _owned(column.cast(pa.int64()), np.int64)
    except pa.ArrowException:
        bad = ~np.isfinite(numbers) | (np.abs(numbers) >= 2.0**53)
        if bad.any():
            i = int(np.argmax(bad))
            raise NeedsOperator(f"{source}, row {i + 1}: expected a time in {name}, was {numbers[i]}.") from None
        return _owned(np.rint(np.where(np.abs(numbers) < SECONDS_BELOW, numbers * 1000.0, numbers)), np.int64)


def _single(table: pa.Table, source: str) -> pa.Table:
    """A frame whose columns have two levels, as yfinance makes them: ('Close', 'AAPL'). Of one ticker it is a plain one."""
    pairs = [re.fullmatch(r"\('(\w+)',_'(.*)'\)", name) for name in table.column_names]
    tickers = {pair[2].upper() for pair in pairs if pair}
    if len(tickers) > 1:
        raise NeedsOperator(f"{source}: expected bars of one symbol, there are {', '.join(sorted(tickers))}. Take one.")
    return table.rename_columns(
        [pair[1] if pair else name for name, pair in zip(table.column_names, pairs, strict=True)]
    )


def _milliseconds(stamps: Integers, name: str, source: str) -> Integers:
    """Numbers of whichever unit in ms. Each is told by its own size: Binance's bulk files changed to us in 2025."""
    size = np.abs(stamps)
    days = (size > DAYS_AS_NUMBERS[0]) & (size < DAYS_AS_NUMBERS[1])
    if days.any():
        i = int(np.argmax(days))
        raise NeedsOperator(
            f"{source}, row {i + 1}: expected a time in {name} (s, ms, us or ns since 1970, or a text like 2024-01-31), "
            f"was the number {stamps[i]}."
        )
    return _owned(
        np.select(
            [size < SECONDS_BELOW, size < MS_BELOW, size < US_BELOW],
            [stamps * 1000, stamps, stamps // 1000],
            stamps // 1_000_000,
        ),
        np.int64,
    )


def _parsed(texts: list[str], name: str, source: str) -> Integers:
    made = np.empty(len(texts), np.int64)
    for i, text in enumerate(texts):
        try:
            made[i] = to_ms(parse_time(text.strip()))
        except BadMessage as error:
            raise NeedsOperator(f"{source}, row {i + 1}: {name}: {error}") from error
    return made


def _owned(values: Any, kind: Any) -> Any:
    """An array of our own: columns that are read-only or strided would be compiled for once more."""
    array = values if isinstance(values, np.ndarray) else values.to_numpy(zero_copy_only=False)
    return np.require(array, kind, ["C", "W", "O"])


def is_number(value: object) -> bool:
    """Whether this reads as a number, or is nothing at all."""
    try:
        float(value)  # pyright: ignore[reportArgumentType] - that it may not be one is the question
    except (TypeError, ValueError):
        return value is None  # nothing is a NaN, not a wrong word
    return True


def _first_null(column: Any) -> int:
    return int(np.argmax(column.is_null().to_numpy(zero_copy_only=False))) + 1
