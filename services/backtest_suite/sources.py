"""Finds what a command names: a strategy by its name or file, bars by their file, or in the ingester of a stack."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from services.backtest_suite.data import Bars, Universe, read_bars
from services.backtest_suite.listing import Kind, instrument_of, kind_of
from services.backtest_suite.manifests import Reading
from shared.contracts.errors import NeedsOperator
from shared.contracts.instruments import check_symbol, members_of
from shared.contracts.times import EPOCH
from shared.runtime.settings import PORTS
from shared.trading.columns import Columns
from shared.trading.strategies import find_any, load_any
from shared.trading.strategy import PortfolioStrategy, Strategy

FOREVER = datetime(9999, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Found:
    """Bars, and how they were read."""

    bars: Bars
    reading: Reading


def strategy_named(text: str) -> Strategy | PortfolioStrategy:
    """A strategy by its name, or by the path of its file."""
    if text.endswith(".py") or "/" in text:
        file = Path(text)
        if not file.is_file():
            raise NeedsOperator(f"There is no strategy file {file}. Write one with `trimtab new strategy NAME`.")
        return load_any(file)
    return find_any(text)


def bars_found(
    reading: Reading,
    *,
    first: datetime | None = None,
    last: datetime | None = None,
    lot: Decimal | None = None,
    universe: Universe | None = None,
) -> list[Found]:
    """The bars of every instrument that this reading names, those that opened in [first, last]."""
    if reading.path:
        bars = read_bars(
            reading.path,
            symbol=reading.symbol,
            timeframe=reading.timeframe,
            first=first,
            last=last,
            lot=lot,
            kind=reading.kind,
            universe=universe,
            adjusted=reading.adjusted,
        )
    else:
        bars = [_from_ingester(reading, first, last, lot, universe)]
    if reading.funding:
        bars = [_funded(bars, Path(reading.funding))]
    return [Found(each, reading) for each in bars]


def _funded(bars: Sequence[Bars], file: Path) -> Bars:
    """The one series, with the funding of this file."""
    if len(bars) != 1:
        names = ", ".join(f"{each.symbol} {each.timeframe}" for each in bars)
        raise NeedsOperator(f"A file of funding is of one instrument, the bars are of {names}. Name one of them.")
    return bars[0].with_funding(file)


def readings(
    paths: Sequence[Path],
    symbol: str,
    timeframe: str,
    adjusted: bool,
    stack: Path,
    funding: Sequence[Path] = (),
    kind: Kind | None = None,
) -> list[Reading]:
    """What `--data`, or else `--symbol` and `--timeframe`, ask for; each with its file of funding, if there are any.

    Without `--data` the symbol may name several instruments, joined by +.
    """
    members = members_of(symbol) if symbol and not paths else ()
    series = len(paths) or len(members) or 1
    funded = [str(file.resolve()) for file in funding] or [""] * series
    if len(funded) != series:
        raise NeedsOperator(
            f"A file of funding is of one instrument: give one for each --data, in the same order. There are "
            f"{series} of bars and {len(funded)} of funding."
        )
    if paths:
        return [
            Reading(
                path=str(path.resolve()), symbol=symbol, timeframe=timeframe, adjusted=adjusted, kind=kind, funding=file
            )
            for path, file in zip(paths, funded, strict=True)
        ]
    if not symbol or not timeframe:
        raise NeedsOperator(
            "A backtest needs bars: --data FILE_OR_DIR, or --symbol and --timeframe of what the ingester of a running "
            "stack holds."
        )
    return [
        Reading(stack=str(stack.resolve()), symbol=member, timeframe=timeframe, kind=kind, funding=file)
        for member, file in zip(members, funded, strict=True)
    ]


def _from_ingester(
    reading: Reading,
    first: datetime | None,
    last: datetime | None,
    lot: Decimal | None,
    universe: Universe | None,
) -> Bars:
    from services.backtest_suite.bars import Ingester
    from shared.runtime.running import Stack  # these bring an HTTP client, which a file does not need

    stack = Stack.of(Path(reading.stack))
    symbol, timeframe = check_symbol(reading.symbol), reading.timeframe

    async def asked() -> Columns:
        ingester = Ingester(f"http://127.0.0.1:{stack.port_base + PORTS['ingester']}")
        try:
            return await ingester.columns(symbol, timeframe, first or EPOCH, last or FOREVER)
        finally:
            await ingester.close()

    return held_bars(
        symbol, timeframe, asyncio.run(asked()), f"ingester of {stack.folder}", lot, universe, reading.kind
    )


def held_bars(
    symbol: str,
    timeframe: str,
    columns: Columns,
    source: str,
    lot: Decimal | None = None,
    universe: Universe | None = None,
    kind: Kind | None = None,
) -> Bars:
    """What an ingester handed out, as bars of an instrument. Raises NeedsOperator when there are none."""
    if not len(columns):
        raise NeedsOperator(f"The {source} holds no bars of {symbol} {timeframe} in that span.")
    found, calendar = kind_of(symbol, columns, kind)
    instrument, notes = instrument_of(symbol, columns, found, calendar, None, lot)
    return Bars(symbol, timeframe, columns, instrument, universe or "unknown", source, notes=tuple(notes))
