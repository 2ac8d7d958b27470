"""What a backtest runs on: bars of one instrument, with what a reader must know of them. From files, or from a frame.

How files are decoded is in shared/artifacts/bar_files.py; here they become instruments, parts are joined, trades
become bars, and a gap is counted rather than filled.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from services.backtest_suite.adjusting import adjust_columns, factors_of
from services.backtest_suite.funding import Funding, read_funding
from services.backtest_suite.grouping import bars_of_trades, grouped
from services.backtest_suite.listing import (
    Calendar,
    Kind,
    absent_bars,
    archived,
    instrument_of,
    kind_of,
    own_timeframe,
    panel_symbols,
    spacing,
    symbol_of,
)
from shared.artifacts.bar_files import SUFFIXES, read_table
from shared.artifacts.bar_tables import bars_of, bars_of_closes, closes_in, place, rows_of, symbols_in, table_of
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import Instrument, timeframe_of_file
from shared.contracts.times import from_ms, timeframe_ms, to_ms
from shared.trading.columns import Columns, Floats, Integers

if TYPE_CHECKING:
    import pyarrow as pa

Universe = Literal["point_in_time", "survivors", "unknown"]

DAY_MS = 86_400_000
JUMP = 0.5  # a bar's move above this is told: a split, a listing, or a wrong price
JUMPS_TOLD = 3
SUMMER_TIME_MS = 3_600_000  # days of a market's own zone are an hour shorter once a year
UNIVERSE_FILE = "universe.toml"
CLOSES_ALONE = (
    "closes alone: open, high and low are the close, the volume is 0, and no bar knows what happened inside it"
)
COMPANIONS = ("_factor_files.csv", "_map_files.csv")  # of share prices: what lies beside them and is no bars


@dataclass(frozen=True)
class Bars:
    """Closed bars of one instrument, oldest first, and what is known of where they come from."""

    symbol: str
    timeframe: str
    columns: Columns
    instrument: Instrument
    universe: Universe = "unknown"  # of which set this is a member: as it was then, those that are left, or not known
    source: str = ""  # names of files, "frame"
    funding: Funding | None = None  # of a perpetual; None: holding it costs nothing
    notes: tuple[str, ...] = field(default=(), compare=False)  # what was inferred, and what looks odd: for people

    def __post_init__(self) -> None:
        if self.universe not in get_args(Universe):
            raise NeedsOperator(f"A universe must be one of {', '.join(get_args(Universe))}, was {self.universe!r}.")
        times, length = self.columns.opened_at_ms, timeframe_ms(self.timeframe)
        least = length - (SUMMER_TIME_MS if length >= DAY_MS else 0)
        near = np.diff(times) < least
        if near.any():
            i = int(np.argmax(near)) + 1
            raise NeedsOperator(
                f"{self.source}, {place(times, i)}: expected {self.timeframe} after the bar before, "
                f"was {timedelta(milliseconds=int(times[i] - times[i - 1]))}. Say the right timeframe."
            )

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        *,
        symbol: str = "DATA",
        timeframe: str | None = None,
        tick: Decimal | str | None = None,
        lot: Decimal | str | None = None,
        kind: Kind = "spot",
        calendar: Calendar = "24x7",
        universe: Universe = "unknown",
    ) -> Bars:
        """Bars of a pandas or polars frame with open, high, low, close, volume, and times in a column or the index.

        Times may be aware, naive (then they are UTC), texts, or numbers of s, ms, us or ns. Raises NeedsOperator that
        names the row and what was expected.
        """
        table = table_of(frame, symbol)
        if "symbol" in table.column_names and len(names := symbols_in(table, symbol)) > 1:
            raise NeedsOperator(
                f"{symbol}: expected bars of one symbol, there are {', '.join(names)}. Take one of them."
            )
        columns = bars_of(table, symbol)
        timeframe = timeframe or spacing(columns.opened_at_ms, symbol)
        instrument, notes = instrument_of(symbol, columns, kind, calendar, tick, lot)
        return cls(symbol, timeframe, columns, instrument, universe, "frame", notes=(*notes, *_jumps(columns)))

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def sha256(self) -> str:
        """The hash that names these bars, as in a `Span`."""
        return self.columns.sha256()

    @property
    def first(self) -> datetime:
        """When the first bar opened."""
        return from_ms(int(self.columns.opened_at_ms[0]))

    @property
    def last(self) -> datetime:
        """When the last bar opened."""
        return from_ms(int(self.columns.opened_at_ms[-1]))

    @cached_property
    def absent(self) -> Integers:
        """How many bars are missing before each bar (n,), by the instrument's calendar."""
        return absent_bars(self.columns.opened_at_ms, self.timeframe, self.instrument.calendar)

    @property
    def gaps(self) -> int:
        """Places at which bars are missing."""
        return int(np.count_nonzero(self.absent))

    @property
    def missing(self) -> int:
        """Bars that are missing."""
        return int(self.absent.sum())

    @property
    def members(self) -> tuple[Bars, ...]:
        """These alone; a panel has several."""
        return (self,)

    @property
    def instruments(self) -> tuple[Instrument, ...]:
        """The one that these are bars of."""
        return (self.instrument,)

    def held(self, first: int) -> Floats:
        """What holding is worth at each close from bar `first` on (n - first,), in any unit."""
        return self.columns.close[first:]

    def part(self, first: int, end: int) -> Bars:
        """Bars `first` up to, not including, `end`."""
        return replace(self, columns=self.columns.part(first, end))

    def between(self, first: datetime | None = None, last: datetime | None = None) -> Bars:
        """The bars that opened in [first, last]. Raises NeedsOperator when there are none."""
        since = to_ms(first) if first else int(self.columns.opened_at_ms[0])
        until = to_ms(last) if last else int(self.columns.opened_at_ms[-1])
        part = self.columns.between(since, until)
        if not len(part):
            raise NeedsOperator(
                f"{self.source}: expected bars from {from_ms(since):%Y-%m-%d %H:%M} to {from_ms(until):%Y-%m-%d %H:%M}, "
                f"there are only those from {self.first:%Y-%m-%d %H:%M} to {self.last:%Y-%m-%d %H:%M}."
            )
        return replace(self, columns=part)

    def with_funding(self, file: str | Path) -> Bars:
        """The same, and what holding them cost by this file of times and rates. Raises NeedsOperator unless a perpetual."""
        if self.instrument.kind != "perpetual":
            raise NeedsOperator(
                f"Only perpetuals have funding, {self.symbol} is {self.instrument.kind}. If these are a perpetual's bars, "
                f"say so: the symbol is {self.symbol}-PERP then."
            )
        return replace(self, funding=read_funding(Path(file)))

    def resampled(self, timeframe: str) -> Bars:
        """The same in longer bars, on the grid of UTC. A bar that is cut off at the beginning or the end is left out."""
        long, short = timeframe_ms(timeframe), timeframe_ms(self.timeframe)
        if long % short or long < short:
            raise NeedsOperator(
                f"{self.source}: bars of {self.timeframe} cannot be made into bars of {timeframe}: "
                f"it must be a multiple."
            )
        times = self.columns.opened_at_ms
        first = -(-int(times[0]) // long) * long
        end = (int(times[-1]) + short) // long * long
        whole = self.columns.between(first, end - 1)
        if not len(whole):
            raise NeedsOperator(f"{self.source}: {len(self)} bars of {self.timeframe} do not fill one of {timeframe}.")
        return replace(self, timeframe=timeframe, columns=grouped(*whole.all(), long))


def read_bars(
    path: str | Path,
    *,
    symbol: str = "",
    timeframe: str = "",
    first: datetime | None = None,
    last: datetime | None = None,
    tick: Decimal | str | None = None,
    lot: Decimal | str | None = None,
    kind: Kind | None = None,
    universe: Universe | None = None,
    adjusted: bool = False,
) -> list[Bars]:
    """The bars of a file, or of a folder of them: one Bars for each symbol and timeframe, sorted.

    Parquet, feather, CSV (also gzipped), an exchange's zips, a panel with a `symbol` column, and trades, which need a
    `timeframe`. Parts of one symbol are joined. What is not given is told by the file's name, then by its content: a
    series in USD without a bar on a weekend is a share on New York's calendar, all else trades around the clock.
    `adjusted` takes share prices through splits and dividends, by an `adj_close` column or the factor file beside.
    `universe` may stand in a `universe.toml` beside the files. Raises NeedsOperator that names file, row and remedy.
    """
    files = _files(Path(path))
    parts = [part for file in files for part in _parts(file, symbol, timeframe, adjusted)]
    said = universe or _universe(files[0].parent)
    made: list[Bars] = []
    for key in sorted({(part.symbol, part.timeframe) for part in parts}):
        own = [part for part in parts if (part.symbol, part.timeframe) == key]
        columns, source = _joined(own)
        found, calendar = kind_of(key[0], columns, kind)
        instrument, notes = instrument_of(key[0], columns, found, calendar, tick, lot)
        bars = Bars(*key, columns, instrument, said, source, notes=(*own[0].notes, *notes, *_jumps(columns)))
        if timeframe and bars.timeframe != timeframe:
            bars = bars.resampled(timeframe)
        made.append(bars.between(first, last))
    return made


@dataclass(frozen=True)
class _Part:
    """What one file says of one symbol."""

    symbol: str
    timeframe: str
    columns: Columns
    source: str
    notes: tuple[str, ...] = ()


def _files(path: Path) -> list[Path]:
    """The files of bars that are meant: those of the folder, or below it the parts that an ingester keeps."""
    if not path.is_dir():
        return [path]
    files = sorted(file for file in path.iterdir() if file.name.lower().endswith(SUFFIXES))
    files = files or sorted(file for file in path.rglob("*.parquet") if archived(file))
    files = [file for file in files if not file.name.endswith(COMPANIONS)]
    if not files:
        raise NeedsOperator(f"{path}: expected files that end in {', '.join(SUFFIXES)}, there are none.")
    return files


def _parts(file: Path, symbol: str, timeframe: str, adjusted: bool) -> Iterable[_Part]:
    """What a file says of each symbol that is wanted."""
    table = read_table(file)
    if closes := closes_in(table):
        names = {symbol_of(file, symbol): closes[0]} if closes == ["close"] else panel_symbols(closes, file.name)
        yield from _closes(file, table, names, symbol, timeframe)
        return
    if "symbol" not in table.column_names:
        yield _part(file, symbol_of(file, symbol), table, file.name, timeframe, adjusted)
        return
    names = symbols_in(table, file.name)
    symbols = {symbol: names[0]} if symbol and len(names) == 1 else panel_symbols(names, file.name)
    if symbol and symbol not in symbols:
        raise NeedsOperator(f"{file.name}: there is no {symbol} among its symbols {', '.join(symbols)}.")
    for ours, name in symbols.items():
        if symbol in ("", ours):
            yield _part(file, ours, rows_of(table, name), f"{file.name} {name}", timeframe, adjusted)


def _closes(file: Path, table: pa.Table, names: dict[str, str], symbol: str, timeframe: str) -> Iterable[_Part]:
    """What a table of closes says of each symbol that is wanted."""
    if symbol and symbol not in names:
        raise NeedsOperator(f"{file.name}: there is no {symbol} among its symbols {', '.join(names)}.")
    for ours, name in names.items():
        if symbol in ("", ours):
            source = file.name if name == "close" else f"{file.name} {name}"
            columns = bars_of_closes(table, name, source)
            own = timeframe_of_file(file.stem) or own_timeframe(columns, timeframe, source)
            yield _Part(ours, own, columns, source, (CLOSES_ALONE,))


def _part(file: Path, symbol: str, rows: pa.Table, source: str, timeframe: str, adjusted: bool) -> _Part:
    if "price" in rows.column_names and "open" not in rows.column_names:
        if not timeframe:
            raise NeedsOperator(f"{source}: these are trades. Say of which timeframe the bars are to be made.")
        return _Part(symbol, timeframe, bars_of_trades(rows, timeframe, source), source)
    columns = bars_of(rows, source)
    if adjusted:
        columns = adjust_columns(columns, factors_of(file, rows, columns))
    told = archived(file)
    own = (told and told[1]) or timeframe_of_file(file.stem) or own_timeframe(columns, timeframe, source)
    return _Part(symbol, own, columns, source)


def _joined(parts: list[_Part]) -> tuple[Columns, str]:
    """The parts of one symbol as one, in the order of time. They may not overlap: which would be right?"""
    parts = sorted(parts, key=lambda part: int(part.columns.opened_at_ms[0]))
    for before, after in pairwise(parts):
        ended, begins = int(before.columns.opened_at_ms[-1]), int(after.columns.opened_at_ms[0])
        if begins <= ended:
            raise NeedsOperator(
                f"{after.source}: expected bars of {after.symbol} {after.timeframe} after those of {before.source}, "
                f"which end on {from_ms(ended):%Y-%m-%d %H:%M}; these begin on {from_ms(begins):%Y-%m-%d %H:%M}. "
                f"Take one of the files away, or --symbol and --from to say which."
            )
    if len(parts) == 1:
        return parts[0].columns, parts[0].source
    columns = [np.concatenate(column) for column in zip(*(part.columns.all() for part in parts), strict=True)]
    return Columns(*cast(Any, columns)), f"{parts[0].source} .. {parts[-1].source} ({len(parts)} files)"


def _jumps(columns: Columns) -> list[str]:
    """The bars whose close moved by more than half: said, not mended."""
    moves = columns.close[1:] / columns.close[:-1] - 1.0
    found = np.flatnonzero(np.abs(moves) > JUMP)
    told = [
        f"{moves[i]:+.0%} at {from_ms(int(columns.opened_at_ms[i + 1])):%Y-%m-%d %H:%M}" for i in found[:JUMPS_TOLD]
    ]
    if not told:
        return []
    more = f" and {len(found) - len(told)} more" if len(found) > len(told) else ""
    return [f"moves above {JUMP:.0%} from close to close: {', '.join(told)}{more}. A split, or a wrong price?"]


def _universe(folder: Path) -> Universe:
    """What the folder's `universe.toml` says: `universe = "survivors"`."""
    file = folder / UNIVERSE_FILE
    if not file.is_file():
        return "unknown"
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise NeedsOperator(f"{file.name}: expected TOML, could not read it: {error}") from error
    if set(said) != {"universe"} or said["universe"] not in get_args(Universe):
        raise NeedsOperator(
            f'{file.name}: expected one line like universe = "survivors" (or {", ".join(get_args(Universe))}), '
            f"was {said}."
        )
    return said["universe"]
