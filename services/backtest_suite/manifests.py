"""What a run depended on, written so that it can be run again to the same bits, and the fingerprint of it."""

from __future__ import annotations

import functools
import platform
import sys
from datetime import datetime
from decimal import Decimal
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import msgspec

from services.backtest_suite.data import Universe
from services.backtest_suite.listing import Kind
from shared.artifacts.canonical import canonical_json, content_id
from shared.contracts.errors import BadMessage
from shared.contracts.governance import Costs, Span
from shared.contracts.instruments import Instrument
from shared.contracts.times import from_ms
from shared.trading import loop, portfolio_loop
from shared.trading.columns import Columns
from shared.trading.compiled.loops import EXECUTION
from shared.trading.kernel import KERNELS, fingerprint
from shared.trading.performance import figures
from shared.trading.scales import Scale
from shared.trading.strategies import is_built_in
from shared.trading.strategy import Declared

Params = dict[str, int | float | bool]
Exits = Literal["on_close", "at_venue"]
Fill = Literal["next_open", "same_close", "next_close"]
# As people write them, on the command line and over HTTP.
FILLS: dict[str, Fill] = {"next-open": "next_open", "same-close": "same_close", "next-close": "next_close"}
EXITS: dict[str, Exits] = {"on-close": "on_close", "at-venue": "at_venue"}
SHORT = 12  # characters of a fingerprint that begin a run id; the ordinal behind them keeps ids apart
LIBRARIES = ("trimtab", "numpy", "numba", "polars", "pyarrow", "msgspec")


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How the bars were read: from a file or a folder, or from the ingester of the stack that runs on a data folder."""

    path: str = ""
    stack: str = ""
    symbol: str = ""  # as it was said; "" where the file told it
    timeframe: str = ""
    adjusted: bool = False
    kind: Kind | None = None  # of instrument, as it was said; None where the file told it
    funding: str = ""  # a perpetual's, by its file; "": none


class Data(msgspec.Struct, frozen=True, kw_only=True):
    """Which bars."""

    reading: Reading | None  # None: a program gave them
    symbol: str
    timeframe: str
    universe: Universe  # who was allowed into the data set
    sha256: str  # of the columns
    funding_sha256: str = ""  # of times and rates; "": none was charged
    first: datetime
    last: datetime
    bars: int
    members: tuple[Data, ...] = ()  # of a panel, in its order; each tells its own reading and hash


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was told besides its bars and its parameters."""

    instruments: tuple[Instrument, ...]  # one, or those of a portfolio: one quote and one calendar
    cash: Decimal = Decimal(10_000)  # quote currency
    costs: Costs = Costs(fee_bps=10, slippage_bps=5)
    fill: Fill = "next_open"
    size: Decimal | None = None  # base units of every position; None: a fraction of the equity
    exposure: float = 1.0  # times the strategy's own
    shorts: bool = True  # where the instrument allows them
    exits: Exits = "on_close"  # judged on closed bars, or resting at the venue
    rebalance_band: float = 0.0  # of a portfolio's equity: a leg that is off by less is left alone
    trade_from: int = 0  # bars before it only warm up
    seed: int = 0

    @property
    def quote(self) -> str:
        """The currency that the account counts in."""
        return self.instruments[0].quote

    @property
    def calendar(self) -> str:
        """When its instruments trade."""
        return self.instruments[0].calendar


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One run: what went in, and the hash of what came out."""

    run_id: str
    fingerprint: str  # of everything that decides the result: bars, parameters, assumptions, code
    strategy: str
    strategy_file: str  # of a strategy of the user's own; "" for ours, and for one that stands in no file
    source_sha256: str  # of the strategy's code
    params: Params
    data: Data
    assumptions: Assumptions
    versions: dict[str, str]
    result_sha256: str  # of every fill and of the equity at every close
    metrics: dict[str, Any]


def span_of(bars: Columns) -> Span:
    """What these bars are. Raises BadMessage when there are none."""
    if not len(bars):
        raise BadMessage("Expected at least one bar, there is none.")
    return Span(
        first=from_ms(int(bars.opened_at_ms[0])),
        last=from_ms(int(bars.opened_at_ms[-1])),
        bars=len(bars),
        data_sha256=bars.sha256(),
    )


def common_of(strategy: Declared, data_sha256: str, assumptions: Assumptions) -> bytes:
    """What the fingerprints of all parameter sets of one experiment have in common."""
    told = msgspec.json.decode(msgspec.json.encode(assumptions), type=Assumptions)  # 10 bps are 10.0 bps
    # Costs leave defaults out when they are written, and which those are is asked by identity: here all are told.
    whole = {**msgspec.structs.asdict(told), "costs": msgspec.structs.asdict(told.costs)}
    return canonical_json([strategy.name, strategy.source, _execution(), data_sha256, whole])


def fingerprint_of(common: bytes, params: Params) -> str:
    """SHA-256 (hex) of all that a result depends on: code, bars, assumptions, parameters."""
    return content_id(common + canonical_json(params))


@functools.cache
def _execution() -> str:
    """The code that turns targets into money: the loops, and every kernel of the modules that execute."""
    modules = [sys.modules[name] for name in sorted(EXECUTION)]
    kernels = [value for module in modules for value in vars(module).values() if _is_kernel(value)]
    return fingerprint(loop.run, loop.follow, portfolio_loop.run, figures, Scale.of, Scale.rules, *kernels)


def _is_kernel(value: object) -> bool:
    return isinstance(value, FunctionType) and value in KERNELS


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of what computes here. They are told, and are not part of a fingerprint."""
    return {"python": platform.python_version(), **{name: _version(name) for name in LIBRARIES}}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "source"  # our own, in a checkout that is not installed


def file_of(strategy: Declared) -> Path | None:
    """The file of a strategy of the user's own; None for ours, and for one that stands in no file, as in a notebook."""
    module = sys.modules.get(strategy.Params.__module__)
    if is_built_in(strategy) or getattr(module, "STRATEGY", None) is not strategy:
        return None
    file = getattr(module, "__file__", None)
    return None if file is None else Path(file)
