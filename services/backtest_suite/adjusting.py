"""Share prices taken through splits and dividends, so that returns are what a holder earned.

adjusted price = raw price x price factor (dividends) x split factor; adjusted volume = raw volume / split factor.
Adjusted levels carry knowledge of later dividends: returns are right, levels are not those seen at the time.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shared.artifacts.bar_tables import numbers_of
from shared.contracts.errors import NeedsOperator
from shared.trading.columns import Columns, Floats

if TYPE_CHECKING:
    import pyarrow as pa

DAY_MS = 86_400_000
EPOCH_DAY = date(1970, 1, 1)


class Factors(NamedTuple):
    """What each bar's prices and volume are multiplied by and divided by, both (n,)."""

    price: Floats
    split: Floats


def factor_file(file: Path) -> Path:
    """The factor file that belongs to a file of raw prices: `spy_daily.parquet` -> `spy_factor_files.csv`."""
    return file.with_name(f"{file.stem.split('_')[0]}_factor_files.csv")


def factors_of(file: Path, table: pa.Table, columns: Columns) -> Factors:
    """By the table's `adj_close` where it has one, else by the factor file beside. Raises NeedsOperator without either."""
    if "adj_close" in table.column_names:
        ratio = numbers_of(table, "adj_close", file.name) / columns.close
        if not (np.isfinite(ratio) & (ratio > 0)).all():
            raise NeedsOperator(f"{file.name}: expected an adj_close above 0 in every row.")
        return Factors(ratio, np.ones(len(columns)))
    beside = factor_file(file)
    if not beside.is_file():
        raise NeedsOperator(
            f"{file.name}: adjusted prices need a column adj_close or a factor file {beside.name} beside, "
            f"there is neither."
        )
    return read_factors(beside, columns)


def read_factors(file: Path, columns: Columns) -> Factors:
    """A factor file's lines are `20140609,0.86,0.25,645.57`: day, price factor, split factor, reference price.

    A line holds up to and including its day; after the last one nothing is adjusted.
    """
    days: list[int] = []
    factors: list[tuple[float, float]] = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split(",")
        try:
            day = date.fromisoformat(cells[0])
            price, split = float(cells[1]), float(cells[2])
        except (ValueError, IndexError) as error:
            raise NeedsOperator(
                f"{file.name}, row {number}: expected day,price factor,split factor, was {line!r}."
            ) from error
        if not (price > 0 and split > 0) or (days and (day - EPOCH_DAY).days <= days[-1]):
            raise NeedsOperator(f"{file.name}, row {number}: expected factors above 0 and days in order, was {line!r}.")
        days.append((day - EPOCH_DAY).days)
        factors.append((price, split))
    table = np.array([*factors, (1.0, 1.0)])
    held = np.searchsorted(days, columns.opened_at_ms // DAY_MS)
    return Factors(table[held, 0] * table[held, 1], table[held, 1])


def adjust_columns(columns: Columns, factors: Factors) -> Columns:
    """The same bars, adjusted."""
    return Columns.of(
        columns.opened_at_ms,
        columns.open * factors.price,
        columns.high * factors.price,
        columns.low * factors.price,
        columns.close * factors.price,
        columns.volume / factors.split,
    )
