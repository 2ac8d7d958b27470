"""Funding of a perpetual, read from a file: when it was due, and the rate that a long paid."""

# pyright: standard, reportMissingImports=false
# pyarrow carries no types: what it returns is checked where it becomes columns.

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.artifacts.bar_files import read_table
from shared.artifacts.bar_tables import REMEDY_FOR_TIMES, numbers_of, place, times_of
from shared.contracts.errors import NeedsOperator
from shared.trading.columns import Floats, Integers

if TYPE_CHECKING:
    import pyarrow as pa

# What exchanges call them: https://github.com/binance/binance-public-data, and their REST answers.
TIMES = ("calc_time", "fundingtime", "funding_time")
RATES = ("funding_rate", "last_funding_rate", "fundingrate", "rate")


@dataclass(frozen=True, eq=False)
class Funding:
    """When funding was due (ms since 1970 UTC, rising) and its rates (fraction of the position's worth), both (k,)."""

    at_ms: Integers
    rate: Floats

    def __len__(self) -> int:
        return len(self.at_ms)

    def sha256(self) -> str:
        """The hash (hex) that names them."""
        digest = hashlib.sha256(np.ascontiguousarray(self.at_ms, "<i8").tobytes())
        digest.update(np.ascontiguousarray(self.rate, "<f8").tobytes())
        return digest.hexdigest()


def read_funding(path: Path) -> Funding:
    """The funding in a file: Parquet, feather, CSV or an exchange's zip, with a column of times and one of rates.

    Times are taken as they are, also when an exchange wrote them some milliseconds late. Raises NeedsOperator that names
    file, row and what was expected.
    """
    table = _named(read_table(path))
    rate = next((name for name in RATES if name in table.column_names), None)
    if rate is None:
        raise NeedsOperator(
            f"{path.name}: expected a column of funding rates ({', '.join(RATES)}), there are "
            f"{', '.join(table.column_names)}."
        )
    times, rates = times_of(table, path.name), numbers_of(table, rate, path.name)
    if not len(times):
        raise NeedsOperator(f"{path.name}: expected funding rates, found none.")
    if (late := np.diff(times, prepend=times[0] - 1) <= 0).any():
        i = int(np.argmax(late))
        raise NeedsOperator(
            f"{path.name}, {place(times, i)}: expected a later time than in the row before. {REMEDY_FOR_TIMES}"
        )
    if (wild := ~(np.abs(rates) < 1)).any():
        i = int(np.argmax(wild))
        raise NeedsOperator(
            f"{path.name}, {place(times, i)}: expected a rate within -1..1 (0.0001 is one basis point), was {rates[i]}."
        )
    return Funding(times, rates)


def _named(table: pa.Table) -> pa.Table:
    return table.rename_columns(["timestamp" if name in TIMES else name for name in table.column_names])
