"""Recorded bars from Parquet, feather or CSV files, one instrument a file. What is wrong with a file is said, not mended.

Bars that the exchange never made are absent here too: nothing is filled in.
"""

from __future__ import annotations

import csv
import hashlib
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from services.venue_sim.market import MIN_NOTIONAL, Candle
from shared.contracts.errors import BadMessage, NeedsOperator
from shared.contracts.instruments import Instrument, check_symbol, split_symbol, symbol_of_file, timeframe_of_file
from shared.contracts.times import TIMEFRAMES, from_ms, parse_time, timeframe_ms, to_ms

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
POINTER = b"version https://git-lfs.github.com/spec/"
DECIMALS = 8  # Binance says prices and quantities with eight
LATEST_MS = to_ms(datetime.fromisoformat("2200-01-01T00:00:00+00:00"))  # above it a number counts microseconds


class RecordedSeries:
    """The bars of one file, in memory: times (n,) int64 ms, values (n, 5) open, high, low, close, volume."""

    def __init__(self, symbol: str, timeframe: str, times: Times, values: Floats) -> None:
        self.timeframe = timeframe
        self.instrument = instrument_of(symbol, values[:, :4])
        self._times = times
        self._values = values
        content = hashlib.sha256(times.tobytes() + np.ascontiguousarray(values).tobytes()).hexdigest()
        self.identity = f"recorded/{symbol}/{timeframe}/{content}"

    def __len__(self) -> int:
        return len(self._times)

    @property
    def first_opened_at(self) -> int:
        return int(self._times[0])

    def candle(self, index: int) -> Candle | None:
        """The bar at this place, the first is 0; None after the end."""
        if index >= len(self._times):
            return None
        return Candle(int(self._times[index]), *self._values[index].tolist())

    def index_at(self, opened_at: int) -> int:
        """The place of the first bar that opened at this instant (ms) or later."""
        return int(np.searchsorted(self._times, opened_at))


def read_series(path: Path, symbol: str = "", timeframe: str = "") -> RecordedSeries:
    """One file's bars. Symbol and timeframe come from its name when they are not given.

    Raises NeedsOperator that names the file, the row (the first one of bars is 1) and what was expected.
    """
    try:
        symbol = check_symbol(symbol) if symbol else symbol_of_file(path.stem)
    except BadMessage as error:
        raise NeedsOperator(f"{path.name}: {error}") from error
    times, values = _columns(path)
    timeframe = timeframe or timeframe_of_file(path.stem) or _spacing(path, times)
    _check(path, times, values, timeframe_ms(timeframe))
    return RecordedSeries(symbol, timeframe, times, values)


def instrument_of(symbol: str, prices: Floats) -> Instrument:
    """The steps that these prices (n, 4) were made in: the fewest decimals that hold all of them, at most eight.

    The lot takes what is left of eight decimals, at most five, so that price x quantity is exact.
    """
    decimals = next(
        (d for d in range(DECIMALS) if bool(np.all(np.abs(prices * 10.0**d - np.rint(prices * 10.0**d)) < 1e-4))),
        DECIMALS,
    )
    base, quote = split_symbol(symbol)
    return Instrument(
        symbol=symbol,
        base=base,
        quote=quote,
        tick=Decimal(1).scaleb(-decimals),
        lot=Decimal(1).scaleb(-min(5, DECIMALS - decimals)),
        min_notional=MIN_NOTIONAL if quote.endswith(("USDT", "USDC", "USD")) else Decimal("0.0001"),
    )


def _columns(path: Path) -> tuple[Times, Floats]:
    if not path.is_file():
        raise NeedsOperator(f"{path.name}: there is no such file. --market takes Parquet, feather or CSV files.")
    with path.open("rb") as file:
        beginning = file.read(len(POINTER))
    if beginning == POINTER:
        raise NeedsOperator(
            f"{path.name}: this is a git-LFS pointer of three text lines, not the data. Fetch it with `git lfs pull`."
        )
    readers = {".parquet": _parquet, ".feather": _feather, ".csv": _csv}
    if path.suffix not in readers:
        raise NeedsOperator(f"{path.name}: expected a name that ends in {', '.join(readers)}, was {path.suffix!r}.")
    return readers[path.suffix](path)


def _parquet(path: Path) -> tuple[Times, Floats]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise NeedsOperator(f"{path.name}: expected a Parquet file, could not read it: {error}") from error
    return _from_table(path, table)


def _feather(path: Path) -> tuple[Times, Floats]:
    import pyarrow as pa
    from pyarrow import feather

    try:
        table = feather.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise NeedsOperator(f"{path.name}: expected a feather file, could not read it: {error}") from error
    return _from_table(path, table)


def _from_table(path: Path, table: Any) -> tuple[Times, Floats]:
    import pyarrow as pa

    _check_columns(path, table.column_names)
    try:
        raw = table.column("timestamp")
        if pa.types.is_timestamp(raw.type):
            raw = raw.cast(pa.timestamp("ms", tz=raw.type.tz), safe=False)
        times = _milliseconds(raw.cast(pa.int64()).to_numpy())
        values = np.column_stack([table.column(name).cast(pa.float64()).to_numpy() for name in COLUMNS[1:]])
    except pa.ArrowException as error:
        raise NeedsOperator(
            f"{path.name}: expected times and numbers in {', '.join(COLUMNS)}, could not read them: {error}"
        ) from error
    return times, values


def _csv(path: Path) -> tuple[Times, Floats]:
    with path.open(newline="") as file:
        rows = csv.reader(file)
        header = [name.strip().lower() for name in next(rows, [])]
        _check_columns(path, header)
        places = [header.index(name) for name in COLUMNS]
        stamps: list[int] = []
        values: list[list[float]] = []
        for number, row in enumerate((row for row in rows if row), start=1):
            try:
                stamps.append(_stamp(row[places[0]]))
                values.append([float(row[place]) for place in places[1:]])
            except (ValueError, IndexError) as error:
                raise NeedsOperator(
                    f"{path.name}, row {number}: expected {','.join(COLUMNS)} as a time and five numbers, "
                    f"was {','.join(row)!r}."
                ) from error
    return _milliseconds(np.array(stamps, dtype=np.int64)), np.array(values, dtype=np.float64).reshape(-1, 5)


def _stamp(text: str) -> int:
    """A time in a CSV: a whole number of ms or us, or ISO 8601."""
    return int(text) if text.strip().lstrip("-").isdigit() else to_ms(parse_time(text.strip()))


def _milliseconds(stamps: Times) -> Times:
    """Binance's bulk files count microseconds since 2025: a number beyond the year 2200 is one of those."""
    return stamps // 1000 if len(stamps) and int(stamps[0]) > LATEST_MS else stamps


def _check_columns(path: Path, names: list[str]) -> None:
    absent = [name for name in COLUMNS if name not in names]
    if absent:
        raise NeedsOperator(f"{path.name}: expected the columns {', '.join(COLUMNS)}; {', '.join(absent)} missing.")


def _spacing(path: Path, times: Times) -> str:
    """The timeframe by the smallest distance of two bars."""
    distances = np.diff(times)
    smallest = int(distances[distances > 0].min()) if bool((distances > 0).any()) else 0
    for timeframe in TIMEFRAMES:
        if timeframe_ms(timeframe) == smallest:
            return timeframe
    raise NeedsOperator(f"{path.name}: cannot tell the timeframe. Name the file like BTCUSDT_1h{path.suffix}.")


def _check(path: Path, times: Times, values: Floats, length: int) -> None:
    """Refuse what no exchange can have said, with the first row where it is so."""
    if not len(times):
        raise NeedsOperator(f"{path.name}: expected bars, found none.")
    opened, high, low, closed, volume = values.T
    body_high, body_low = np.maximum(opened, closed), np.minimum(opened, closed)
    steps = np.diff(times, prepend=times[0] - length)
    with np.errstate(invalid="ignore"):  # NaN is named first, comparisons with it may be what they like
        faults = (
            (~np.isfinite(values).all(axis=1), "finite numbers"),
            (steps == 0, "each time once, this one is a duplicate"),
            (steps < 0, "times in ascending order"),
            (times % length != 0, f"times on the grid of {length // 1000} s"),
            (low <= 0, "prices above 0"),
            (high < low, "high >= low"),
            ((body_high > high) | (body_low < low), "low <= open, close <= high"),
            (volume < 0, "volume >= 0"),
        )
    for fault, expected in faults:
        if bool(fault.any()):
            row = int(np.argmax(fault))
            told = ", ".join(f"{name}={value}" for name, value in zip(COLUMNS[1:], values[row].tolist(), strict=True))
            raise NeedsOperator(
                f"{path.name}, row {row + 1} ({from_ms(int(times[row])):%Y-%m-%d %H:%M}): expected {expected}, "
                f"was {told}."
            )
