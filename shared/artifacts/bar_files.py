"""Bars as files: whatever exchanges, vendors and we ourselves write, read into tables, and what cannot be read said.

Parquet, feather, and CSV: plain, gzipped, or zipped as exchanges publish it. What the columns are is next door, in
bar_tables.py; which instrument it is and on what terms it trades is for the reader to say.
"""

# pyright: standard, reportMissingImports=false
# pyarrow carries no types: what it returns is checked where it becomes columns.

from __future__ import annotations

import gzip
import io
import itertools
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shared.artifacts.bar_tables import NAMES, is_number, lower_names
from shared.contracts.errors import NeedsOperator

if TYPE_CHECKING:
    import pyarrow as pa

# Binance's candles, which have no header in spot files:
# https://github.com/binance/binance-public-data#klines
KLINE_NAMES = (
    *("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count"),
    *("taker_buy_volume", "taker_buy_quote_volume", "ignore"),
)
# Its trades, of futures and of spot, one by one and aggregated: https://github.com/binance/binance-public-data#trades
# A file is told by its number of columns, and by how many of the last ones are true or false.
HEADERLESS = {
    (len(NAMES), 0): NAMES,
    (len(KLINE_NAMES), 0): KLINE_NAMES,
    (6, 1): ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker"),
    (7, 2): ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker", "is_best_match"),
    (7, 1): ("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "time", "is_buyer_maker"),
    (8, 2): (
        *("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id", "time"),
        *("is_buyer_maker", "is_best_match"),
    ),
}
SUFFIXES = (".parquet", ".feather", ".csv", ".csv.gz", ".zip")
POINTER = b"version https://git-lfs.github.com/spec/"


def read_table(path: Path) -> pa.Table:
    """One file as it is, names in lower case. The columns of a CSV are text. Raises NeedsOperator that names the file."""
    if not path.is_file():
        raise NeedsOperator(f"{path.name}: there is no such file. Files of bars end in {', '.join(SUFFIXES)}.")
    if not path.name.lower().endswith(SUFFIXES):
        raise NeedsOperator(f"{path.name}: expected a name that ends in {', '.join(SUFFIXES)}, was {path.suffix!r}.")
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            raise NeedsOperator(
                f"{path.name}: this is a git-LFS pointer of three text lines, not the data. Fetch it with `git lfs pull`."
            )
    match path.suffix.lower():
        case ".parquet":
            return _parquet(path)
        case ".feather":
            return _feather(path)
        case ".csv":
            return csv_table(path.read_bytes(), path.name)
        case ".gz":
            return csv_table(_unzipped(path), path.name)
        case _:
            return csv_table(_member(path), path.name)


def csv_table(content: bytes, source: str) -> pa.Table:
    """The lines of a CSV as text columns. Without a header, the number of columns tells what they are."""
    import pyarrow as pa
    from pyarrow import csv

    content = content.removeprefix(b"\xef\xbb\xbf").lstrip()
    first = content.split(b"\n", 1)[0].decode("utf-8", "replace").strip()
    delimiter = max(",;\t", key=first.count)
    cells = [cell.strip().strip('"') for cell in first.split(delimiter)]
    if not first:
        raise NeedsOperator(f"{source}: expected a CSV with {', '.join(NAMES)}, the file is empty.")
    names: Sequence[str] | None = None
    if is_number(cells[0]):
        answers = sum(1 for _ in itertools.takewhile(_is_answer, reversed(cells)))
        names = HEADERLESS.get((len(cells), answers))
        if names is None:
            known = sorted({count for count, _ in HEADERLESS})
            raise NeedsOperator(
                f"{source}: expected a header, or {', '.join(map(str, known))} columns of bars or trades as exchanges "
                f"publish them; there are {len(cells)} and no header."
            )
    try:
        return lower_names(
            csv.read_csv(
                io.BytesIO(content),
                csv.ReadOptions(column_names=names, use_threads=False),
                csv.ParseOptions(delimiter=delimiter),
                csv.ConvertOptions(column_types=dict.fromkeys(names or cells, pa.string())),
            )
        )
    except (pa.ArrowException, ValueError) as error:
        raise NeedsOperator(
            f"{source}: expected lines of {len(cells)} cells, could not read them: {_first_line(error)}"
        ) from error


def _is_answer(cell: str) -> bool:
    return cell.lower() in ("true", "false")


def written(rows: Iterable[Sequence[float]]) -> pa.Table:
    """Bars as the table that we keep in files: opened at (ms), open, high, low, close, volume."""
    import pyarrow as pa

    columns = list(zip(*rows, strict=True)) or [()] * len(NAMES)
    kinds = [pa.int64(), *[pa.float64()] * 5]
    return pa.table({name: pa.array(values, kind) for name, values, kind in zip(NAMES, columns, kinds, strict=True)})


def _parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return lower_names(parquet.read_table(path))
    except (pa.ArrowException, OSError) as error:
        raise NeedsOperator(f"{path.name}: expected a Parquet file, could not read it: {_first_line(error)}") from error


def _feather(path: Path) -> pa.Table:
    import pyarrow as pa
    from pyarrow import feather

    try:
        return lower_names(feather.read_table(path))
    except (pa.ArrowException, OSError) as error:
        raise NeedsOperator(f"{path.name}: expected a feather file, could not read it: {_first_line(error)}") from error


def _unzipped(path: Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise NeedsOperator(f"{path.name}: expected a gzipped CSV, could not read it: {error}") from error


def _member(path: Path) -> bytes:
    """The one CSV that a zip of an exchange holds."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.lower().endswith(".csv")]
            if len(members) != 1:
                raise NeedsOperator(f"{path.name}: expected one CSV in the zip, there are {len(members)}.")
            return archive.read(members[0])
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise NeedsOperator(f"{path.name}: expected a zip, could not read it: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def feather_bytes(table: pa.Table) -> bytes:
    """A table as services hand bars to each other: an Arrow feather file, uncompressed, for it never leaves the machine."""
    import pyarrow as pa
    from pyarrow import feather

    sink = pa.BufferOutputStream()
    feather.write_feather(table, sink, compression="uncompressed")
    return sink.getvalue().to_pybytes()
